"""What the commands show of their results: each report is a file, with its text beside it.

Importing this imports matplotlib.
"""

from .adding import ADDING
from .digits import DIGITS
from .lags import LAGS
from .page import conclude

__all__ = ["DEMOS", "LAGS", "conclude"]

DEMOS = {"digits": DIGITS, "adding": ADDING}  # by task
