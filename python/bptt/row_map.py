"""`RowMap`: which row of the caller's arrays each row of a layer's arrays is.

A layer computes packed rows: those of step t are the first ``active(t)`` of the batch, and
``active`` never grows with t. Where all sequences are as long as the longest, that is a dense
(T, B). Sequences as callers have them become such rows by an index, and results go back by it:

- **lengths** of any order: rows sorted by falling length, padding left out;
- **batch_sizes**: rows that are packed already, as PyTorch's PackedSequence has them;
- **batch_first**: rows (b, t) instead of (t, b);
- **reverse**: each row turned round within its own length;
- **reset**: a sequence ends and another one begins. The pieces of a row become rows of their own:
  S_0 enters the first one, the final state is that of the last one, and nothing passes between.

"In processing order" means the order in which a layer runs through the steps: the other way round
with ``reverse``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from .checks import Array
from .row_copies import put_rows, take_rows

__all__ = ["Layout", "Places", "RowMap", "dense_rows", "mirrored_rows"]

# One (B, H) array for each part of a state.
State = tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where a caller's arrays have step t of sequence b: in row
    ``per_step * t + per_sequence * b``, and of packed rows in ``begin[t] + b``.
    """

    axes: tuple[str, ...]  # what their first axes are called
    per_step: int = 0
    per_sequence: int = 1
    begin: Array | None = None  # (T,)

    def rows(self, time: Array, sequence: Array) -> Array:
        of_step = self.per_step * time if self.begin is None else self.begin[time]
        found: Array = of_step + self.per_sequence * sequence
        return found


class Places(NamedTuple):
    """Where a caller has a layer's rows, for a backend that reads and writes them there.

    Attributes
    ----------
    rows : (N,) int64
        The caller's row of each row.
    padding : (M - N,) int64
        The caller's rows that are none.
    spacing : int
        How far the caller's rows of a step are from each other, if that is the same everywhere;
        else 0.
    """

    rows: Array
    padding: Array
    spacing: int


@dataclass(frozen=True, eq=False)
class RowMap:
    """An index of source rows, and the ends of the sequences.

    Attributes
    ----------
    shape : tuple of int
        What the caller's arrays begin with: (T, B), (B, T), or (N,) of packed rows.
    steps, batch : int
        T, and B, the caller's sequences and rows of the caller's states.
    inner : tuple of int
        What a layer's arrays begin with: (T', B') if it is dense, else (N',).
    inner_batch : int
        B', the rows of the layer's states: more than B where resets cut sequences.
    layout : Layout
    index : (N',) int64, or None
        The source row of each row, of the caller's rows in the order of memory; None if it is the
        same one.
    offsets : (T' + 1,) int64, or None
        How many rows there are before each step; None if it is dense.
    first, last : (B,) int64, or None
        The row of the layer that each sequence begins and ends with; None if it is the same one.
    anew : (B,) bool, or None
        The sequences whose first step is a reset: their S_0 is not used. None if there are none.
    lengths : (B,) int64, or None
        Of the caller's sequences; None if each has T steps.
    reverse : bool
    """

    shape: tuple[int, ...]
    steps: int
    batch: int
    inner: tuple[int, ...]
    inner_batch: int
    layout: Layout
    index: Array | None = None
    offsets: Array | None = None
    first: Array | None = None
    last: Array | None = None
    anew: Array | None = None
    lengths: Array | None = None
    reverse: bool = False

    @cached_property
    def whole(self) -> bool:
        """Whether the layer's rows are the caller's sequences, with all of their T steps each."""
        return self.lengths is None and self.inner == (self.steps, self.batch)

    @cached_property
    def same(self) -> bool:
        """Whether a layer reads and writes the caller's arrays as they are."""
        return self.same_rows and self.first is None and self.anew is None

    @cached_property
    def same_rows(self) -> bool:
        return self.index is None and self.shape == self.inner

    @cached_property
    def places(self) -> Places | None:
        """None if there is nothing to move."""
        if self.index is None or not len(self.index):
            return None
        missing = np.ones(math.prod(self.shape), bool)
        missing[self.index] = False
        spacing = 0
        if self.offsets is None:
            gaps = np.diff(self.index.reshape(self.inner), axis=1)
            even = int(gaps.flat[0]) if gaps.size else 1
            spacing = even if even > 0 and (gaps == even).all() else 0
        return Places(self.index, np.flatnonzero(missing), spacing)

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Steps and rows of a dense batch that takes as much memory as the layer's."""
        if self.offsets is None:
            return self.inner[0], self.inner_batch
        return -(-self.inner[0] // self.inner_batch), self.inner_batch

    @property
    def turned(self) -> RowMap:
        """The map of the same rows when each piece of a sequence is run the other way round: what
        was its end is where a state enters, and no reset stands before that."""
        return replace(self, first=self.last, last=self.first, anew=None)

    def axes(self, *more: str) -> str:
        """What the axes of the caller's arrays are called, as an error writes a shape."""
        names = (*self.layout.axes, *more)
        return f"({', '.join(names)}{',' if len(names) == 1 else ''})"

    def gather(self, array: Array) -> Array:
        """The layer's rows (*inner, ...) of a contiguous `array` (*shape, ...)."""
        if self.same_rows:
            return array
        more = array.shape[len(self.shape) :]
        rows = array.reshape(math.prod(self.shape), *more)
        if self.index is not None:
            rows = take_rows(rows, self.index)
        return rows.reshape(*self.inner, *more)

    def empty_like(self, array: Array) -> Array:
        """Unwritten rows of a layer for a contiguous `array` of the caller's, itself if it can."""
        more = array.shape[len(self.shape) :]
        if self.index is None:
            return array.reshape(*self.inner, *more)
        return np.empty((*self.inner, *more), array.dtype)

    def scatter(self, array: Array, out: Array | None = None, *, keep: bool = False) -> Array:
        """The caller's rows (*shape, ...) of the layer's `array`; zeros where it has none.

        They are written to `out` if it is given, a contiguous array; `keep` leaves the others as
        they are.
        """
        if self.same_rows:
            return _copied(array, out)
        more = array.shape[len(self.inner) :]
        rows = array.reshape(math.prod(self.inner), *more)
        if self.index is None:
            found = rows.reshape(*self.shape, *more)
            return _copied(found, out)
        if out is None:
            out, keep = np.empty((*self.shape, *more), array.dtype), False
        callers = out.reshape(math.prod(self.shape), *more)
        if keep:
            put_rows(rows, self.index, callers)
        else:
            take_rows(rows, self._places, callers)
        return out

    @cached_property
    def _places(self) -> Array:
        """The layer's row that each of the caller's rows is, -1 where it is none."""
        assert self.index is not None
        places = np.full(math.prod(self.shape), -1)
        places[self.index] = np.arange(len(self.index))
        return places

    def gather_state(self, state: State) -> State:
        """The layer's initial state, (B', H) of each part: zeros where a reset stands before."""
        return self._enter(state, self.first, self.anew)

    def scatter_state(self, state: State) -> State:
        """The caller's final state, (B, H) of each part, of the layer's."""
        return self._leave(state, self.last, None)

    def gather_dstate(self, dstate: tuple[Any, ...]) -> tuple[Any, ...]:
        """The gradient of the layer's final state: it enters the last piece of a sequence. A part
        may be None."""
        return self._enter(dstate, self.last, None)

    def scatter_dstate(self, dstate: State) -> State:
        """The gradient of the caller's initial state: zeros where that is not used."""
        return self._leave(dstate, self.first, self.anew)

    def gather_each(self, array: Array) -> Array:
        """What the caller has of each sequence, (B, ...), for as many rows of the layer."""
        if self.first is None:
            return array
        found = np.empty_like(array)
        found[self.first] = array
        return found

    def scatter_each(self, array: Array) -> Array:
        """The other way round."""
        return array if self.first is None else array[self.first]

    def _enter(
        self, state: tuple[Any, ...], at: Array | None, unused: Array | None
    ) -> tuple[Any, ...]:
        if at is None and unused is None:
            return state
        found = tuple(
            None if s is None else np.zeros((self.inner_batch, s.shape[1]), s.dtype) for s in state
        )
        used = slice(None) if unused is None else ~unused
        rows = np.arange(self.batch) if at is None else at
        for part, s in zip(found, state, strict=True):
            if part is not None:
                put_rows(s[used], rows[used], part)
        return found

    def _leave(self, state: State, at: Array | None, unused: Array | None) -> State:
        if at is None and unused is None:
            return state
        found = tuple(s.copy() if at is None else take_rows(s, at) for s in state)
        if unused is not None:
            for part in found:
                part[unused] = 0
        return found

    def place(self, source: Array) -> Array:
        """Which of the layer's rows these rows of the caller's are; there has to be one of each."""
        return source if self.index is None else self._places[source]

    def rows_at(self, step: int | None) -> tuple[Array, Array]:
        """The sequences that have step `step`, or a last one if it is None, and the caller's rows
        of it, in the order of memory."""
        lengths = np.full(self.batch, self.steps) if self.lengths is None else self.lengths
        time = lengths - 1 if step is None else np.full(self.batch, step)
        sequence = np.flatnonzero((time >= 0) & (time < lengths))
        return sequence, self.layout.rows(time[sequence], sequence)


def _copied(array: Array, out: Array | None) -> Array:
    """`array` itself if there is no `out`."""
    if out is None:
        return array
    np.copyto(out, array)
    return out


@lru_cache(maxsize=64)  # it takes longer to make than all else that a small call checks
def dense_rows(steps: int, batch: int) -> RowMap:
    """The map of arrays that are as a layer has them."""
    shape = (steps, batch)
    return RowMap(shape, steps, batch, shape, batch, Layout(("T", "B"), batch))


def mirrored_rows(offsets: Array) -> Array:
    """The mirror (N,) of each packed row within its own sequence."""
    active = np.diff(offsets)
    time = np.repeat(np.arange(len(active)), active)
    sequence = np.arange(offsets[-1]) - offsets[time]
    # Sequence b has as many steps as there are with more than b rows.
    length = np.searchsorted(-active, -sequence, side="left")
    mirrored: Array = offsets[length - 1 - time] + sequence
    return mirrored
