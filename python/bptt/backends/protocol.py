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

__all__ = ["SAVE", "WANTED", "Backend", "Forward", "State", "Trace"]

# What a forward pass keeps for the way back beside the states: the gates, or nothing, so that
# they have to be computed again.
SAVE = ("gates", "minimal")

# Gradients that a backward pass is asked for: all of them, all but that of x, that of the state.
WANTED = ("all", "params", "state")

# One (B, H) array for each state of the cell: (h,), and (h, c) for an LSTM.
State = tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Forward:
    """What a forward pass leaves behind.

    Attributes
    ----------
    history : tuple of (T, B, H)
        Each part of the state after every step: (y,), and (y, c) for an LSTM.
    state : tuple of (B, H)
        The state after the last step.
    saved : tuple of arrays
        What ``backward`` reads beyond x, the initial state and the history; the backend's own
        business. Empty where there is nothing, or where it is computed anew.
    """

    history: tuple[Array, ...]
    state: State
    saved: tuple[Array, ...] = ()

    @property
    def y(self) -> Array:
        """(T, B, H), the hidden state after every step."""
        return self.history[0]


@dataclass(frozen=True, eq=False)
class Trace:
    """What passes by on the way back, of every step; arrays that a backward pass writes.

    Attributes
    ----------
    deltas : (sums, T, B, H), or None
        da of each sum of the cell, if it is wanted.
    dstates : tuple of (T, B, H)
        The gradient with respect to each part of the state after the step, as if it were free of
        the other part.
    """

    deltas: Array | None
    dstates: tuple[Array, ...]

    @classmethod
    def empty(cls, cell: Cell, like: Array) -> Trace:
        """Unwritten arrays for states like `like` (T, B, H)."""
        deltas = np.empty((cell.sums, *like.shape), like.dtype)
        return cls(deltas, tuple(np.empty_like(like) for _ in cell.states))


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
        """Why the backend cannot be used here and what to do about it; None if it can.

        Raises
        ------
        ValueError
            If an environment variable asks of it what cannot be; "auto" must not pass over that.
        """

    def description(self) -> str:
        """What it runs on, in a few words, once it is known to be available."""

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        """Whether it computes `cell` in `dtype`, if it is available."""

    def forward(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        save: str,
        out: Forward | None = None,
    ) -> Forward:
        """Run the recurrence over x (T, B, I) from `state`.

        `save` is one of `SAVE`. `out` gives arrays to write to, those of a pass that saved the
        same, apart from all that is read.
        """

    def backward(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        forward: Forward,
        dhistory: tuple[Array | None, ...],
        dstate: State | None,
        out: Grads | None = None,
        accumulate: bool = False,
        *,
        wanted: str = "all",
        trace: Trace | None = None,
    ) -> Grads:
        """Pull the gradients of the history, (T, B, H) each, and of the final state back.

        `out` gives the arrays to write to, or to add to, apart from all that is read. `wanted` is
        one of `WANTED`; what is not wanted need not be computed, and is then an empty array.
        """

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        """``Forward.saved`` of some steps."""

    def as_rows(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        """``Forward.saved`` of some steps as that of a single step, with a row for each (t, b)."""

    def lag_products(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        y: Array,
        deltas: Array,
        totals: dict[str, Array],
        lags: Array,
    ) -> tuple[Array, dict[str, Array]] | None:
        """Of a loss at the last step, scalar products of each of `lags`, for each of `totals`.

        Returns (L, parameters, 5) float64: of the lag's term with itself and with the total, of the
        sum of all larger lags with itself and with the total, and of the total less that sum with
        itself; and the sum of the terms of all lags. None if the backend has no kernel for them.
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
        last: State | None = None,
    ) -> tuple[float, Grads]:
        """The loss of the readout, and all gradients, which go where `backward`'s go.

        `last` gives arrays (B, H) for the state after the last step, or after the only one whose
        loss counts.
        """
