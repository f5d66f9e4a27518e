"""What goes to a backend and comes from it. All arrays are checked, C-contiguous and of one dtype.

Arrays of all steps are dense, (T, B, ...), or where a layer has offsets packed rows, (N, ...): step
t has rows ``offsets[t]`` up to ``offsets[t + 1]``, one for each of the first rows of the batch, and
never more than the step before. What is said of (T, B, ...) below holds of these. Where a layer has
places, x, y as it is shown, and the gradients of both are in the caller's rows and of any axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..budget import WHOLE, Budget
from ..cells import Cell
from ..checks import Array
from ..grads import EVERYTHING, Grads
from ..params import Params
from ..row_copies import take_rows
from ..row_map import Places
from . import aligned

__all__ = [
    "ALL",
    "ROUTES",
    "SAVE",
    "Incoming",
    "Layer",
    "Record",
    "Request",
    "Sizes",
    "State",
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
    places: bool = False  # whether the caller has the rows in others


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
    places : Places, or None
        Where the caller has the rows of x; None if x is in the layer's own.
    """

    cell: Cell
    params: Params
    x: Array
    state: State
    offsets: Array | None = None
    places: Places | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """What the layer's own arrays of all steps begin with, (T, B) or (N,)."""
        if self.places is None:
            return self.x.shape[:-1]
        rows = len(self.places.rows)
        return (rows,) if self.offsets is not None else (rows // self.batch, self.batch)

    @property
    def steps(self) -> int:
        """T"""
        return self.shape[0] if self.offsets is None else len(self.offsets) - 1

    def own_rows(self) -> Layer:
        """The same without places, with a copy of x."""
        if self.places is None:
            return self
        inputs = self.x.shape[-1]
        x = take_rows(self.x.reshape(-1, inputs), self.places.rows)
        return replace(self, x=x.reshape(*self.shape, inputs), places=None)

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
    shown : (..., H), or None
        Of a layer with places y once more, in the caller's rows.
    """

    history: tuple[Array, ...]
    state: State
    saved: tuple[Array, ...] = ()
    with_initial: tuple[Array, ...] | None = None
    shown: Array | None = None

    @classmethod
    def empty(cls, layer: Layer, saved: tuple[Array, ...]) -> Record:
        """Unwritten states of a pass of `layer`."""
        x, state, hidden = layer.x, layer.state, layer.params.hidden_size
        last = tuple([np.empty(s.shape, x.dtype) for s in state])
        if layer.offsets is not None:
            rows = (*layer.shape, hidden)
            return cls(tuple([aligned.empty(rows, x.dtype) for _ in state]), last, saved)
        shape = (layer.steps + 1, len(state[0]), hidden)
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
