"""What the two functions of a cell are written with: on NumPy arrays, and compiled on numbers.

    sigmoid(a) = 1 / (1 + e^-a)      slope_of_sigmoid(a) = a (1 - a), of a sigmoid's value a
    tanh(a)                          slope_of_tanh(a) = 1 - a^2, of a tanh's value a

Called from Python they are plain NumPy. In a function that `bptt.cell` compiles they become code
that Numba vectorises and that stays in the dtype of its argument, which ``np.tanh`` does not and
``1 - a`` does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["sigmoid", "slope_of_sigmoid", "slope_of_tanh", "tanh"]


def sigmoid(a: Any) -> Any:
    """The logistic function 1 / (1 + e^-a), by an exponential that cannot overflow."""
    e = np.exp(-np.abs(a))
    return np.where(np.asarray(a) >= 0, 1, e) / (1 + e)


def tanh(a: Any) -> Any:
    """The hyperbolic tangent."""
    return np.tanh(a)


def slope_of_sigmoid(a: Any) -> Any:
    """The derivative of `sigmoid` where its value is `a`."""
    return a - a * a


def slope_of_tanh(a: Any) -> Any:
    """The derivative of `tanh` where its value is `a`."""
    return 1 - a * a
