"""`Checkpoints`: a pass of which y is kept, and beside it the state at borders of segments alone.

On the way back each segment is computed again from its border, with its gates, and pulled back; see
`budget` for how time is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .backends import Backend
from .backends.protocol import Incoming, Layer, Parts, Record, Request, Sizes, State
from .budget import WHOLE, Budget, Segments, budget_for, segments_of
from .cells import Cell
from .checks import Array
from .grads import Grads, grads_of
from .holdings import moved_nbytes
from .params import Params
from .row_map import RowMap
from .states import as_given
from .wanted import rows_like

__all__ = ["Checkpoints", "Kept", "checkpointed", "read_kept"]

_READOUT = frozenset({"w_ho", "b_o"})


class Kept(NamedTuple):
    """What a tape keeps beside y.

    Attributes
    ----------
    segments : Segments or None
        Of whose borders the states are kept; None to keep all that `save` says.
    nbytes : int
        With what the way back computes again at a time.
    """

    segments: Segments | None
    nbytes: int


def read_kept(
    backend: Backend,
    cell: Cell,
    params: Params,
    rows: RowMap,
    save: str,
    limit: int | None,
    budget: Budget,
) -> Kept:
    """What to keep for a budget, or within a limit in bytes.

    Raises
    ------
    ValueError
        If the limit cannot be met; it names the least.
    """
    sizes = _sizes(cell, params, rows)
    n = sizes.steps * sizes.batch if sizes.offsets is None else int(sizes.offsets[-1])
    unit = params.hidden_size * params.dtype.itemsize
    units = len(cell.states) - 1 + (cell.saved if save == "gates" else 0)
    moved = moved_nbytes(params, rows, inputs=1, units=1)  # x, and y in the layer's rows
    whole = Kept(None, units * n * unit + moved)
    if not units and (limit is None or moved <= limit):
        return whole
    borders = backend.part_borders(sizes, None)

    def kept(tried: Budget) -> Kept:
        if tried == WHOLE:
            return whole
        segments = segments_of(Budget(tried.segment_steps), borders)
        most_steps = int(np.diff(segments.begins).max())
        most_rows = segments.most_rows(sizes.batch, sizes.offsets)
        again, _ = backend.parts_nbytes(sizes, most_rows, most_steps, None)
        states = segments.count * len(cell.states) * sizes.batch * unit
        return Kept(segments, states + again + moved)

    if limit is not None:
        grain = int(borders[1]) if sizes.offsets is None else 1
        budget = budget_for(limit, sizes.steps, grain, lambda tried: kept(tried).nbytes)
    return kept(budget)


def _sizes(cell: Cell, params: Params, rows: RowMap) -> Sizes:
    """Of a tape's passes, which have no readout."""
    steps = rows.inner[0] if rows.offsets is None else len(rows.offsets) - 1
    alone = params.like(lambda array: array, params.arrays().keys() - _READOUT)
    return Sizes(cell, alone, steps, rows.inner_batch, rows.offsets)


@dataclass(frozen=True, eq=False)
class Checkpoints:
    """How a pass was cut, whose record has ``saved`` the state before each segment but the first,
    (B, H) of each part.

    Attributes
    ----------
    segments : Segments
    sizes : Sizes
    """

    segments: Segments
    sizes: Sizes

    def refuse(self, truncation: object) -> None:
        """Raise ValueError if there is one: it reads the states of all steps."""
        if truncation is not None:
            raise ValueError(
                "truncate, detach_every: expected neither, as the tape was made under memory_limit "
                "or checkpoint_every"
            )

    def nbytes_again(self, backend: Backend) -> int:
        """Of what `backward` computes again at a time."""
        steps = int(np.diff(self.segments.begins).max())
        return backend.parts_nbytes(self.sizes, self._most_rows(self.segments), steps, None)[0]

    def backward(
        self, backend: Backend, layer: Layer, record: Record, incoming: Incoming, request: Request
    ) -> Grads:
        """``Backend.backward`` of the whole pass."""
        out = _new_grads(layer, request) if request.out is None else request.out
        request = Request(out, request.accumulate, request.wanted - _READOUT, request.per_row)
        segments = self._segments(backend, request.per_row)
        most_rows = max(self._most_rows(self.segments), self._most_rows(segments))
        parts = backend.parts(self.sizes, most_rows, request)
        for start, stop in reversed(list(pairwise(segments.begins.tolist()))):
            part = layer.part(start, stop, self._state_before(start, layer, record, parts))
            again, rows = parts.forward(start, part, "gates"), layer.rows(start, stop)
            given = Incoming(
                tuple(None if d is None else d[rows] for d in incoming.history), incoming.state
            )
            dx = out.x[rows] if "x" in request.wanted else None
            parts.backward(start, part, again, given, dx)
        parts.end()
        return out

    def _segments(self, backend: Backend, per_row: str | None) -> Segments:
        """Those of the way back: sums of each row of the batch are cut at other places."""
        if per_row is None:
            return self.segments
        steps = int(np.diff(self.segments.begins).max())
        return segments_of(Budget(steps), backend.part_borders(self.sizes, per_row))

    def _most_rows(self, segments: Segments) -> int:
        return segments.most_rows(self.sizes.batch, self.sizes.offsets)

    def _state_before(self, step: int, layer: Layer, record: Record, parts: Parts) -> State:
        """From the border there, or by a pass from the one before."""
        begins, each = self.segments.begins, len(layer.state)
        n = int(np.searchsorted(begins, step, side="right")) - 1
        state = (*layer.state, *record.saved)[n * each : (n + 1) * each]
        start = int(begins[n])
        if start == step:
            return state
        again = parts.forward(start, layer.part(start, step, state), "minimal")
        return tuple(s.copy() for s in again.state)


def checkpointed(
    backend: Backend, layer: Layer, cell: Cell, rows: RowMap, segments: Segments
) -> tuple[Record, Checkpoints]:
    """Run a pass: y of all steps with the state after them, and the borders."""
    params, dtype = layer.params, layer.x.dtype
    y = np.empty((*layer.x.shape[:-1], params.hidden_size), dtype)
    most = segments.most_rows(layer.batch, layer.offsets)
    begins = segments.begins.tolist()
    beside = [np.empty((most, params.hidden_size), dtype) for _ in layer.state[1:]]
    states = [layer.state]
    for start, stop in pairwise(begins):
        part, of_part = layer.part(start, stop, states[-1]), y[layer.rows(start, stop)]
        others = [s[: of_part.size // s.shape[1]].reshape(of_part.shape) for s in beside]
        states.append(tuple(map(np.empty_like, layer.state)))
        backend.forward(part, "minimal", Record((of_part, *others), states[-1]))
    last = states.pop()
    saved = tuple(part for state in states[1:] for part in state)
    return Record((y,), last, saved), Checkpoints(segments, _sizes(cell, params, rows))


def _new_grads(layer: Layer, request: Request) -> Grads:
    """Unwritten ones of all that is wanted."""

    def new(like: Array) -> Array:
        return np.empty(like.shape, layer.x.dtype)

    made: dict[str, Any] = {
        name: new(rows_like(array, layer.batch, request.per_row))
        for name, array in layer.params.arrays().items()
    }
    made |= {"x": new(layer.x), "state": as_given(tuple(map(new, layer.state)))}
    return grads_of({name: made.get(name) for name in request.wanted - _READOUT})
