"""`DenseRuns`: packed rows for a backend that knows dense batches only.

A run is a stretch of steps with the same rows, and a dense batch. The pass goes from run to run:
the first rows of the state after one are the initial state of the next. On the way back the
gradient of a run's final state is what comes out of the run behind it, and for rows that end here
the gradient of their own last state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..budget import WHOLE, Budget
from ..cells import Cell
from ..checks import Array
from ..grads import Grads, grads_of, present
from ..holdings import Beside
from ..losses import Objective
from ..outputs import deliver
from ..params import Params
from ..states import as_given
from .by_rows import backward_by_rows, value_and_grad_by_rows
from .in_segments import kept_by_parts, kept_in_segments, value_and_grad_in_segments
from .parts import PlainParts, every_step
from .plain_readout import readout_gradient
from .protocol import (
    Backend,
    Incoming,
    Layer,
    Parts,
    Record,
    Request,
    Sizes,
    State,
    Stepping,
    Steps,
    Trace,
)

__all__ = ["DenseRuns", "for_rows"]


def for_rows(backend: Backend, offsets: Array | None) -> Backend:
    """`backend`, or for packed rows that it does not know what computes them by it."""
    return backend if offsets is None or backend.packed else DenseRuns(backend)


class _Run(NamedTuple):
    """Steps with the same rows."""

    steps: int
    active: int
    rows: slice  # of packed arrays

    def of(self, array: Array) -> Array:
        """Its part of a packed array (N, ...), (steps, active, ...): the same memory."""
        return array[self.rows].reshape(self.steps, self.active, *array.shape[1:])


def _runs(offsets: Array) -> Iterator[_Run]:
    active = np.diff(offsets)
    begins = np.flatnonzero(np.diff(active, prepend=-1))
    ends = np.append(begins[1:], len(active))
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=False):
        rows = slice(int(offsets[begin]), int(offsets[end]))
        yield _Run(end - begin, int(active[begin]), rows)


@dataclass(frozen=True)
class DenseRuns:
    """`backend`, and packed rows by it. Of a pass it saves what that saves of each run in turn."""

    backend: Backend
    packed: bool = True
    places: bool = False
    one_saved: bool = False

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def error(self) -> type[Exception]:
        return self.backend.error

    def missing(self) -> str | None:
        return self.backend.missing()

    def description(self) -> str:
        return self.backend.description()

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        return self.backend.supports(cell, dtype)

    def beside(self, cell: Cell, save: str) -> Beside:
        """Of a run what the backend needs; the states of all runs, once more; fresh gradients."""
        of_run = self.backend.beside(cell, save)
        copied = len(cell.states) + (cell.saved if save == "gates" else 0)
        return of_run._replace(forward=of_run.forward + copied, fresh=True)

    def forward(self, layer: Layer, save: str, out: Record | None = None) -> Record:
        if layer.offsets is None:
            return self.backend.forward(layer, save, out)
        runs = list(_runs(layer.offsets))
        record = Record.empty(layer, ()) if out is None else out
        for of_row, initial in zip(record.state, layer.state, strict=True):
            np.copyto(of_row, initial)
        saved: list[Array] = []
        for n, run in enumerate(runs):
            last = tuple(s[: run.active] for s in record.state)
            of_run = _layer(layer, run, tuple(s.copy() for s in last))
            history = tuple(map(run.of, record.history))
            if out is None:  # what it saves is the backend's own business, and so are its arrays
                found = self.backend.forward(of_run, save)
                new = (*found.history, *found.state)
                for target, states in zip((*history, *last), new, strict=True):
                    np.copyto(target, states)
            else:
                kept = Record(history, last, _of_run(out.saved, n, len(runs)))
                found = self.backend.forward(of_run, save, kept)
            saved += found.saved
        return replace(record, saved=tuple(saved))

    def backward(self, layer: Layer, record: Record, incoming: Incoming, request: Request) -> Grads:
        if layer.offsets is None:
            return self.backend.backward(layer, record, incoming, request)
        if request.per_row is not None:
            return backward_by_rows(self, layer, record, incoming, request)
        grads = _zeros(layer, request.wanted)
        given = incoming.state or (None,) * len(layer.state)
        # Of each row the gradient that comes from behind: at first that of its last state.
        dlast = tuple(
            np.zeros_like(s) if d is None else d.copy()
            for s, d in zip(layer.state, given, strict=True)
        )
        runs = list(_runs(layer.offsets))
        for n, run in reversed(list(enumerate(runs))):
            before = layer.state
            if n > 0:
                before = tuple(runs[n - 1].of(s)[-1] for s in record.history)
            initial, dfinal = (tuple(s[: run.active] for s in part) for part in (before, dlast))
            dinitial = tuple(map(np.zeros_like, dfinal))
            history = tuple(map(run.of, record.history))
            into = replace(grads, state=as_given(dinitial))
            if grads.x is not None:
                into.x = run.of(grads.x)
            trace = None if request.trace is None else Trace.empty(layer.cell, history[0])
            self.backend.backward(
                _layer(layer, run, initial),
                Record(history, tuple(s[-1] for s in history), _of_run(record.saved, n, len(runs))),
                Incoming(tuple(d if d is None else run.of(d) for d in incoming.history), dfinal),
                Request(into, True, present(into), trace=trace, route=request.route),
            )
            for s, d in zip(dlast, dinitial, strict=True):
                s[: run.active] = d
            if request.trace is not None and trace is not None:
                _write_trace(request.trace, run, trace)
        grads.state = as_given(dlast)
        return deliver(grads, request.out, request.accumulate, request.wanted)

    def stepping(self, layer: Layer) -> Stepping | None:
        return self.backend.stepping(layer)

    def backward_steps(self, steps: Steps, dstates: State, request: Request) -> None:
        self.backend.backward_steps(steps, dstates, request)

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        return self.backend.steps_of(saved, steps)

    def lag_products(
        self, layer: Layer, y: Array, deltas: Array, totals: dict[str, Array], lags: Array
    ) -> tuple[Array, dict[str, Array]] | None:
        return self.backend.lag_products(layer, y, deltas, totals, lags)

    def read_out(self, params: Params, y: Array) -> Array:
        return self.backend.read_out(params, y)

    def readout_gradient(
        self, layer: Layer, y: Array, objective: Objective
    ) -> tuple[float, Array, dict[str, Array]]:
        return self.backend.readout_gradient(layer, y, objective)

    def kept_nbytes(self, sizes: Sizes, budget: Budget) -> int:
        return kept_in_segments(sizes, self.beside(sizes.cell, "gates"), budget)

    def segment_grain(self, sizes: Sizes) -> int:
        return 1

    def part_borders(self, sizes: Sizes, per_row: str | None) -> Array:
        return every_step(sizes)

    def parts_nbytes(
        self, sizes: Sizes, most_rows: int, most_steps: int, per_row: str | None
    ) -> tuple[int, int]:
        return kept_by_parts(sizes, self.beside(sizes.cell, "gates"), most_rows, per_row)

    def parts(self, sizes: Sizes, most_rows: int, request: Request) -> Parts:
        return PlainParts(self, request)

    def value_and_grad(
        self, layer: Layer, objective: Objective, request: Request, last: State | None = None
    ) -> tuple[float, Grads]:
        if layer.offsets is None:
            return self.backend.value_and_grad(layer, objective, request, last)
        if request.per_row is not None:
            return value_and_grad_by_rows(self, layer, objective, request, last)
        if request.budget != WHOLE:
            return value_and_grad_in_segments(self, layer, objective, request, last)
        record = self.forward(layer, "gates")
        for target, s in zip(last or (), record.state, strict=False):
            np.copyto(target, s)
        loss, dy, of_readout = readout_gradient(layer.params, record.y, objective)
        incoming = Incoming((dy, *(None for _ in layer.state[1:])))
        through_time = Request(wanted=request.wanted - {"w_ho", "b_o"})
        grads = replace(self.backward(layer, record, incoming, through_time), **of_readout)
        return loss, deliver(grads, request.out, request.accumulate, request.wanted)


def _layer(layer: Layer, run: _Run, state: State) -> Layer:
    return replace(layer, x=run.of(layer.x), state=state, offsets=None)


def _of_run(saved: tuple[Array, ...], n: int, runs: int) -> tuple[Array, ...]:
    """What was saved of run `n`: as many arrays of each."""
    each = len(saved) // runs
    return saved[n * each : (n + 1) * each]


def _zeros(layer: Layer, wanted: frozenset[str]) -> Grads:
    """Gradients to add to, apart from that of the state."""
    likes = {"x": layer.x, **layer.params.arrays()}
    names = likes.keys() & (wanted - {"w_ho", "b_o"})
    return grads_of({name: np.zeros_like(likes[name]) for name in names})


def _write_trace(into: Trace, run: _Run, found: Trace) -> None:
    for target, part in zip(into.dstates, found.dstates, strict=True):
        np.copyto(run.of(target), part)
    if into.deltas is not None and found.deltas is not None:
        sums = len(into.deltas)
        into.deltas[:, run.rows] = found.deltas.reshape(sums, -1, found.deltas.shape[-1])
