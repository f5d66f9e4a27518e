"""What a backend provides. Everything it receives is checked, C-contiguous and of one dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..losses import Objective
from ..params import Params

__all__ = ["Backend", "Forward", "State"]

# One (B, H) array for each state of the cell: (h,), and (h, c) for an LSTM.
State = tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Forward:
    """What a forward pass leaves behind.

    Attributes
    ----------
    y : (T, B, H)
        The hidden state after every step.
    state : tuple of (B, H)
        The state after the last step.
    saved : tuple of arrays
        What ``backward`` needs beyond x, the initial state and y; the backend's own business.
    """

    y: Array
    state: State
    saved: tuple[Array, ...] = ()


class Backend(Protocol):
    """One implementation of every cell: forward pass, BPTT, and both fused with a loss.

    Attributes
    ----------
    name : str
        The name that users pass as ``backend=``.
    error : type
        The exception for "not available": ImportError where a missing package is the reason.
    """

    @property
    def name(self) -> str: ...

    @property
    def error(self) -> type[Exception]: ...

    def missing(self) -> str | None:
        """Why the backend cannot be used here and what to do about it; None if it can."""

    def description(self) -> str:
        """What it runs on, in a few words, once it is known to be available."""

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        """Whether it computes `cell` in `dtype`."""

    def forward(
        self, cell: Cell, params: Params, x: Array, state: State, out: Forward | None = None
    ) -> Forward:
        """Run the recurrence over x (T, B, I) from `state`.

        `out` gives arrays to write y and the last state to, apart from all that is read.
        """

    def backward(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        forward: Forward,
        dy: Array | None,
        dstate: State | None,
        out: Grads | None = None,
        accumulate: bool = False,
    ) -> Grads:
        """Pull dy (T, B, H) and the final state's gradient back through time.

        `out` gives the arrays to write to, or to add to, apart from all that is read.
        """

    def value_and_grad(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        objective: Objective,
        out: Grads | None = None,
        accumulate: bool = False,
    ) -> tuple[float, Grads]:
        """The loss of the readout, and all gradients, which go where `backward`'s go."""
