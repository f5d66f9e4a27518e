"""`NativeParts`: a pass of the compiled backend, part by part, with the bits of a single call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..checks import Array
from ..compiled import core as _core
from ..grads import Grads, some_of
from ..losses import Objective
from ..subnormals import get_flush_subnormals
from ..threads import get_num_threads
from . import aligned
from .protocol import Incoming, Layer, Record, Request, Sizes, State

__all__ = ["NativeParts", "held_between_calls"]


@dataclass(eq=False, slots=True)
class Place:
    """Where in a pass a layer is a part of it.

    Attributes
    ----------
    start : int
        The first step.
    steps : int
        T of the whole pass.
    offsets : (T + 1,) int64, or None
        Of the whole pass.
    states : tuple of (B + N, H)
        Each part of the state after every step of the part and, in front, before it: the rows that
        go on are the last of those.
    """

    start: int
    steps: int
    offsets: Array | None
    states: State


class NativeParts:
    """`Parts` whose arrays are used again for every part."""

    def __init__(self, sizes: Sizes, most_rows: int, request: Request) -> None:
        hidden, dtype = sizes.params.hidden_size, sizes.params.dtype
        self._sizes = sizes
        self._request = request
        front = sizes.batch
        self._states = tuple(
            aligned.empty((front + most_rows, hidden), dtype) for _ in sizes.cell.states
        )
        self._last = tuple(np.empty((front, hidden), dtype) for _ in sizes.cell.states)
        self._saved = aligned.empty((most_rows, sizes.cell.saved, hidden), dtype)
        self._carried = _core.Carried()
        self._loss = 0.0

    def forward(self, start: int, part: Layer, save: str) -> Record:
        rows, front = part.x.shape[:-1], self._sizes.batch
        stop = front + prod(rows)
        going_on = self._going_on(start)
        for states, s in zip(self._states, part.state, strict=True):
            states[front - going_on : front] = s[:going_on]
        hidden = part.params.hidden_size
        history = tuple(states[front:stop].reshape(*rows, hidden) for states in self._states)
        saved: State = ()
        if save == "gates" and part.cell.saved:
            some = self._saved[: stop - front]
            saved = (some.reshape(*rows, *some.shape[1:]),)
        record = Record(history, self._last, saved)
        _core.forward(get_num_threads(), get_flush_subnormals(), part, record)
        return record

    def backward(
        self,
        start: int,
        part: Layer,
        record: Record,
        incoming: Incoming,
        dx: Array | None,
        objective: Objective | None = None,
    ) -> None:
        sizes, request = self._sizes, self._request
        assert request.out is not None
        rows = self._sizes.batch + prod(part.x.shape[:-1])
        states = tuple(states[:rows] for states in self._states)
        place = Place(start, sizes.steps, sizes.offsets, states)
        into = some_of(request.out, request.wanted)
        into = replace(into, x=dx)  # type: ignore[arg-type]
        threads, flush = get_num_threads(), get_flush_subnormals()
        self._loss = _core.backward_part(
            threads, flush, part, place, record, incoming, objective, request, into, self._carried
        )

    def end(self) -> tuple[float, Grads]:
        assert self._request.out is not None
        return self._loss, self._request.out

    def _going_on(self, start: int) -> int:
        """How many rows the step before has."""
        offsets = self._sizes.offsets
        if not start:
            return 0
        return self._sizes.batch if offsets is None else int(offsets[start] - offsets[start - 1])


def held_between_calls(sizes: Sizes, most_rows: int) -> int:
    """Bytes of the arrays above, and of what parts hand on but sums."""
    cell, states = sizes.cell, len(sizes.cell.states)
    of_rows = (sizes.batch + most_rows) * states + most_rows * cell.saved
    at_border = sizes.batch * (states + cell.sums + 1)
    return (of_rows + at_border) * sizes.params.hidden_size * sizes.params.dtype.itemsize
