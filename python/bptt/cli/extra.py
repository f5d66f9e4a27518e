"""What the commands that draw need beyond NumPy: the extra ``bptt[demo]``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from .errors import CommandError

__all__ = ["DRAWING", "TRAINING", "require"]

# The module that is imported, and the name pip knows.
_PACKAGES = {
    "matplotlib.figure": "matplotlib",
    "sklearn.datasets": "scikit-learn",
    "tqdm": "tqdm",
}
TRAINING = tuple(_PACKAGES)
DRAWING = ("matplotlib.figure", "tqdm")


def require(modules: Iterable[str]) -> None:
    """Import some of them, before anything is created.

    Raises
    ------
    CommandError
        If one cannot be imported, with the command that installs it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise CommandError(
                f"needs {_PACKAGES[module]}, which cannot be imported ({error}); "
                f"install it with: pip install {_PACKAGES[module]}"
            ) from None
