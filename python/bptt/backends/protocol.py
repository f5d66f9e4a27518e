"""What a backend provides. Everything it receives is checked, C-contiguous and of one dtype.

Arrays of all steps are dense, (T, B, ...), or where a layer has offsets packed rows, (N, ...): step
t has rows ``offsets[t]`` up to ``offsets[t + 1]``, one for each of the first rows of the batch, and
never more than the step before. What is said of (T, B, ...) below holds of these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..budget import WHOLE, Budget
from ..cells import Cell
from ..checks import Array
from ..grads import EVERYTHING, Grads
from ..holdings import Beside
from ..losses import Objective
from ..params import Params
from . import aligned

__all__ = [
    "ALL",
    "ROUTES",
    "SAVE",
    "Backend",
    "Incoming",
    "Layer",
    "Record",
    "Request",
    "Sizes",
    "State",
    "Stepping",
    "Steps",
    "Trace",
]

# What a forward pass keeps for the way back beside the states: the gates, or nothing, so that
# they have to be computed again.
SAVE = ("gates", "minimal")

# What a gradient takes from a step to the one before: W_s and what goes straight from state to
# state (f_t dc_t of an LSTM, z_t dS_t of a GRU), or the latter alone.
ROUTES = ("whole", "direct")

# What is passed here is not assigned to. Frozen dataclasses would say so, but take three times as
# long to make, and the smallest call has time for few of them.

# One (B, H) array for each state of the cell: (h,), and (h, c) for an LSTM.
State = tuple[Array, ...]


class Sizes(NamedTuple):
    """How much there is of a layer, before there is one."""

    cell: Cell
    params: Params
    steps: int
    batch: int
    offsets: Array | None


@dataclass(eq=False, slots=True)
class Layer:
    """A layer and what runs through it: all that a forward pass reads.

    Attributes
    ----------
    cell : Cell
    params : Params
    x : (T, B, I), or (N, I) with offsets
    state : tuple of (B, H)
        Each part of the initial state.
    offsets : (T + 1,) int64, or None
        How many rows there are before each step; None if all steps have B.
    """

    cell: Cell
    params: Params
    x: Array
    state: State
    offsets: Array | None = None

    @property
    def steps(self) -> int:
        """T"""
        return len(self.x) if self.offsets is None else len(self.offsets) - 1

    @property
    def batch(self) -> int:
        """B"""
        return len(self.state[0])

    def part(self, start: int, stop: int, state: State) -> Layer:
        """Some of its steps, from `state` on."""
        rows = self.rows(start, stop)
        if self.offsets is None:
            return replace(self, x=self.x[rows], state=state)
        offsets = self.offsets[start : stop + 1] - rows.start
        return replace(self, x=self.x[rows], state=state, offsets=offsets)

    def rows(self, start: int, stop: int) -> slice:
        """Where arrays of all steps have some of them."""
        if self.offsets is None:
            return slice(start, stop)
        return slice(int(self.offsets[start]), int(self.offsets[stop]))

    def active(self, t: int) -> int:
        """How many rows step t has."""
        if self.offsets is None:
            return self.batch
        return int(self.offsets[t + 1] - self.offsets[t])

    def at(self, t: int) -> int | slice:
        """Where arrays of all steps have those of step t."""
        return t if self.offsets is None else self.rows(t, t + 1)


@dataclass(eq=False, slots=True)
class Record:
    """What a forward pass leaves behind.

    Attributes
    ----------
    history : tuple of (T, B, H)
        Each part of the state after every step: (y,), and (y, c) for an LSTM.
    state : tuple of (B, H)
        The state after the last step that each row has.
    saved : tuple of arrays
        What ``backward`` reads beyond the layer and the history; the backend's own business. Empty
        where there is nothing, or where it is computed anew.
    with_initial : tuple of (T + 1, B, H), or None
        `history` and in front of it a place for the initial state; None if there is none, as of
        packed rows.
    """

    history: tuple[Array, ...]
    state: State
    saved: tuple[Array, ...] = ()
    with_initial: tuple[Array, ...] | None = None

    @classmethod
    def empty(cls, layer: Layer, saved: tuple[Array, ...]) -> Record:
        """Unwritten states of a pass of `layer`."""
        x, state, hidden = layer.x, layer.state, layer.params.hidden_size
        last = tuple([np.empty(s.shape, x.dtype) for s in state])
        if layer.offsets is not None:
            rows = (len(x), hidden)
            return cls(tuple([aligned.empty(rows, x.dtype) for _ in state]), last, saved)
        shape = (len(x) + 1, len(state[0]), hidden)
        states = tuple([aligned.empty(shape, x.dtype) for _ in state])
        return cls(tuple([s[1:] for s in states]), last, saved, states)

    def before(self, initial: State) -> State:
        """The state before each step, (T, B, H) of each part, of a dense pass from `initial`."""
        if self.with_initial is None:
            return tuple(
                np.concatenate([s[None], after[:-1]])[: len(after)]
                for s, after in zip(initial, self.history, strict=True)
            )
        for states, s in zip(self.with_initial, initial, strict=True):
            states[0] = s
        return tuple(states[:-1] for states in self.with_initial)

    @property
    def y(self) -> Array:
        """(T, B, H), the hidden state after every step."""
        return self.history[0]


@dataclass(eq=False, slots=True)
class Steps:
    """Some steps of a pass, each for itself: none of them waits for another.

    Attributes
    ----------
    cell : Cell
    params : Params
    x : (T, B, I)
    before, after : tuple of (T, B, H)
        Each part of the state before every step, and after it.
    saved : tuple of arrays
        ``Record.saved`` of these steps.
    """

    cell: Cell
    params: Params
    x: Array
    before: State
    after: State
    saved: tuple[Array, ...]


@dataclass(eq=False, slots=True)
class Incoming:
    """The gradients that come into the states from outside.

    Attributes
    ----------
    history : tuple of (T, B, H) or None
        For each part of the state, of every step.
    state : tuple of (B, H), or None
        Of the state after the last step that each row has; it adds to that of this step. A part of
    it may be None, too.
    """

    history: tuple[Array | None, ...]
    state: tuple[Array | None, ...] | None = None


@dataclass(eq=False, slots=True)
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
        """Unwritten arrays for states like `like` (T, B, H), or (N, H)."""
        deltas = np.empty((cell.sums, *like.shape), like.dtype)
        return cls(deltas, tuple(np.empty_like(like) for _ in cell.states))


@dataclass(eq=False, slots=True)
class Request:
    """Which gradients a backward pass is asked for, and where they go.

    Attributes
    ----------
    out : Grads or None
        The arrays to write to, apart from all that is read; None for new ones. Of what is not
        wanted nothing is touched.
    accumulate : bool
        Whether they are added to what `out` holds.
    wanted : frozenset of str
        Names of `Grads`. What is not wanted need not be computed, and is None in new `Grads`.
    per_row : {"norm", "gradient"}, optional
        Of the parameters' gradients not the sum over the rows of the batch but each, (B, ...), or
        the Frobenius norm of each, (B,), which is not accumulated.
    trace : Trace or None
        Arrays for what passes by.
    budget : Budget
        What `value_and_grad` keeps of the states at a time; others are computed again, from those
        at the borders of segments.
    route : str
        One of `ROUTES`; along the direct one only of a pass whose gates were saved.
    """

    out: Grads | None = None
    accumulate: bool = False
    wanted: frozenset[str] = EVERYTHING
    per_row: str | None = None
    trace: Trace | None = None
    budget: Budget = WHOLE
    route: str = "whole"


# All gradients, in new arrays.
ALL = Request()


class Stepping(Protocol):
    """A layer that is fed step by step: a copy of its weights, and the state after the last call.

    A call during another one raises RuntimeError; one that does not end leaves the state as it was.
    """

    @property
    def nbytes(self) -> int:
        """Bytes held."""

    def try_run(self, x: object, out: object) -> Array | None:
        """`run` of whatever the caller passed, `out` None for a new array: as fast as can be.

        None, and nothing has happened, if they have to be checked or converted.
        """

    def run(self, x: Array, y: Array) -> Array:
        """Run through x (B, I) or (T, B, I); return `y` (B, H) or (T, B, H), written."""

    def state(self) -> State:
        """A copy of the state."""

    def assign(self, rows: Array, state: State | None) -> None:
        """Give some rows (R,) int64 another state (R, H), or zero."""


class Backend(Protocol):
    """One implementation of every cell: forward pass, BPTT, and both fused with a loss.

    Attributes
    ----------
    name : str
        The name that users pass as ``backend=``.
    error : type
        The exception for "not available": ImportError where a missing package is the reason.
    packed : bool
        Whether it takes layers with offsets; if not, `dense_runs` computes these with it.
    """

    @property
    def name(self) -> str: ...

    @property
    def error(self) -> type[Exception]: ...

    @property
    def packed(self) -> bool: ...

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

    def beside(self, cell: Cell, save: str) -> Beside:
        """What its passes hold that another backend need not."""

    def forward(self, layer: Layer, save: str, out: Record | None = None) -> Record:
        """Run the recurrence over x from the initial state.

        `save` is one of `SAVE`. `out` gives arrays to write to, those of a pass that saved the
        same, apart from all that is read.
        """

    def stepping(self, layer: Layer) -> Stepping | None:
        """Those of `layer` from its state, whose x is empty; None if `forward` is as good."""

    def backward(self, layer: Layer, record: Record, incoming: Incoming, request: Request) -> Grads:
        """Pull the incoming gradients back through time."""

    def backward_steps(self, steps: Steps, dstates: State, request: Request) -> None:
        """Pull the gradients of the states after some steps back through these steps alone.

        `dstates` (T, B, H) are those of each part. All steps are computed at once; weight gradients
        are summed over them. They go to ``request.out``, whose `state` is (T, B, H): the gradient
        of the state before each step. The gates of the steps were saved.
        """

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        """``Record.saved`` of some steps."""

    def lag_products(
        self, layer: Layer, y: Array, deltas: Array, totals: dict[str, Array], lags: Array
    ) -> tuple[Array, dict[str, Array]] | None:
        """Of a loss at the last step, scalar products of each of `lags`, for each of `totals`.

        Returns (L, parameters, 5) float64: of the lag's term with itself and with the total, of the
        sum of all larger lags with itself and with the total, and of the total less that sum with
        itself; and the sum of the terms of all lags. None if the backend has no kernel for them.
        """

    def read_out(self, params: Params, y: Array) -> Array:
        """The outputs W_o S + b_2 (..., O) of states y (..., H)."""

    def readout_gradient(
        self, layer: Layer, y: Array, objective: Objective
    ) -> tuple[float, Array, dict[str, Array]]:
        """The loss of the readout of states y (T, B, H) of `layer`, and its gradients.

        They are dL/dS of each state's own loss, (T, B, H) or (B, H) of a loss at one step; and
        those of w_ho and, if there is one, of b_o. `value_and_grad` sums the latter and the loss in
        the same order.
        """

    def kept_nbytes(self, sizes: Sizes, budget: Budget) -> int:
        """Bytes that `value_and_grad` holds beside its arguments and results."""

    def segment_grain(self, sizes: Sizes) -> int:
        """Steps of which segments have multiples."""

    def value_and_grad(
        self, layer: Layer, objective: Objective, request: Request, last: State | None = None
    ) -> tuple[float, Grads]:
        """The loss of the readout, and all gradients.

        `last` gives arrays (B, H) for the state after the last step, or after the only one whose
        loss counts.
        """
