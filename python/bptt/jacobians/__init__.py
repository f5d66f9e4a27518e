"""The Jacobians dS_t/dS_{t-1} of a network that runs, and what their products do to a vector.

Of a cell with two states, S is the whole of them: (h, c) of an LSTM, 2 H numbers.
"""

from .lyapunov import lyapunov_exponents
from .norms import jacobian_norms
from .result import JacobianNorms, LyapunovExponents

__all__ = ["JacobianNorms", "LyapunovExponents", "jacobian_norms", "lyapunov_exponents"]
