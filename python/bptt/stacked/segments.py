"""`value_and_grad` of a stack that keeps the states of one segment of time at a time.

Once forward through all layers, segment by segment, and at each border the state of every layer is
kept. Then from the last segment on: all layers of it again, and back through them from the top.
Borders are where the sums of every layer have one, so that they are added up as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np

from ..backends import Backend
from ..backends.parts import of_rows
from ..backends.protocol import Incoming, Layer, Parts, Record, Request, Sizes, State
from ..budget import WHOLE, Budget, Segments, budget_for, from_the_last, segments_of
from ..checks import Array
from ..holdings import moved_nbytes
from ..losses import Objective
from ..stack import Stack
from .passes import Pass, Runner

__all__ = ["Cut", "read_cut"]

# Of each layer the state at a border.
States = tuple[State, ...]


class Cut(NamedTuple):
    """How a pass through a stack is cut.

    Attributes
    ----------
    segments : Segments
    sizes : tuple of Sizes
        Of each layer, as long as its way back.
    nbytes : int
        What the pass holds beside arguments and results.
    """

    segments: Segments
    sizes: tuple[Sizes, ...]
    nbytes: int

    def run(
        self,
        runner: Runner,
        x: Array,
        initial: Sequence[State],
        objective: Objective,
        requests: Sequence[Request],
    ) -> tuple[float, list[State]]:
        """The loss, and the states after all steps of x; `requests` are carried out."""
        most = self.segments.most_rows(self.sizes[0].batch, runner.rows.offsets)
        parts = [
            runner.backend.parts(sizes, most, request)
            for sizes, request in zip(self.sizes, requests, strict=True)
        ]
        walk = _Walk(runner, self.sizes, parts, x, objective, requests)
        last: States = ()
        for start, stop, states in from_the_last(self.segments, tuple(initial), walk.state_after):
            passes = walk.forward(start, stop, states, keep=True)
            last = last or tuple(_copied(record.state) for _, record in passes)
            walk.back(start, passes)
        _end_x(requests[0], walk.rows(0, int(self.segments.begins[-1])).stop)
        last = walk.rest(int(self.segments.begins[-1]), most, last)
        loss = 0.0
        for each, request in zip(parts, requests, strict=True):
            if request.wanted or each is parts[-1]:
                loss, _ = each.end()
        return loss, list(last)


class _Walk:
    """The passes through segments, from the caller's x in the layers' rows."""

    def __init__(
        self,
        runner: Runner,
        sizes: Sequence[Sizes],
        parts: Sequence[Parts],
        x: Array,
        objective: Objective,
        requests: Sequence[Request],
    ) -> None:
        self._runner, self._sizes, self._parts = runner, sizes, parts
        self._objective, self._requests = objective, requests
        # Without a state, which is of each segment.
        self._whole = Layer(sizes[0].cell, sizes[0].params, x, (), runner.rows.offsets)

    def rows(self, start: int, stop: int) -> slice:
        return self._whole.rows(start, stop)

    def state_after(self, start: int, stop: int, states: States) -> States:
        return tuple(_copied(record.state) for _, record in self.forward(start, stop, states))

    def forward(self, start: int, stop: int, states: States, *, keep: bool = False) -> list[Pass]:
        """All layers of a segment; `keep` what the way back takes."""
        passes: list[Pass] = []
        part = self._whole.part(start, stop, ())
        for sizes, parts, state, request in zip(
            self._sizes, self._parts, states, self._requests, strict=True
        ):
            part = replace(part, params=sizes.params, state=state)
            save = "gates" if keep and request.wanted else "minimal"
            passes.append(Pass(part, parts.forward(start, part, save)))
            part = replace(part, x=passes[-1].record.y)
        return passes

    def rest(self, start: int, most_rows: int, states: States) -> States:
        """The states after all steps, from those before the ones behind a loss at one step."""
        if start == self._whole.steps:
            return states
        steps = max(1, most_rows // self._sizes[0].batch)
        for first in range(start, self._whole.steps, steps):
            states = self.state_after(first, min(first + steps, self._whole.steps), states)
        return states

    def back(self, start: int, passes: Sequence[Pass]) -> None:
        """From the loss down to the lowest layer of which something is wanted."""
        objective: Objective | None = of_rows(
            self._objective, self.rows(start, start + passes[0].layer.steps)
        )
        dy: Array | None = None
        for k in reversed(range(len(passes))):
            layer, record, request = *passes[k], self._requests[k]
            if not request.wanted and objective is None:
                return
            layer, record = _shortened(layer, record, self._sizes[k].steps - start)
            dx = self._dx(k, start, passes[k].layer)
            if layer.steps:
                incoming = Incoming((dy, *(None for _ in layer.state[1:])))
                into = None if dx is None else dx[: len(layer.x)]
                self._parts[k].backward(start, layer, record, incoming, into, objective)
            dy, objective = dx, None

    def _dx(self, k: int, start: int, layer: Layer) -> Array | None:
        """Where a layer's dL/dx goes: the caller's rows, or between layers a new array."""
        request = self._requests[k]
        if "x" not in request.wanted:
            return None
        assert request.out is not None
        if not k:
            x: Array = request.out.x[self.rows(start, start + layer.steps)]
            return x
        whole = start + layer.steps <= self._sizes[k].steps
        return (
            np.empty_like(layer.x) if whole and not request.accumulate else np.zeros_like(layer.x)
        )


def _shortened(layer: Layer, record: Record, steps: int) -> tuple[Layer, Record]:
    """A pass of a dense segment that ends after so many steps, if that is before its end."""
    if steps >= layer.steps:
        return layer, record
    steps = max(0, steps)
    layer = layer.part(0, steps, layer.state)
    history = tuple(states[:steps] for states in record.history)
    return layer, replace(record, history=history, saved=tuple(s[:steps] for s in record.saved))


def _copied(state: State) -> State:
    return tuple(s.copy() for s in state)


def _end_x(request: Request, stop: int) -> None:
    """Steps behind those that were walked through get no gradient."""
    if "x" in request.wanted and not request.accumulate:
        assert request.out is not None
        request.out.x[stop:] = 0


def read_cut(
    runner: Runner,
    stack: Stack,
    objective: Objective,
    limit: int | None,
    budget: Budget,
    per_row: str | None,
) -> Cut | None:
    """How to cut a pass for a budget, or for a limit in bytes; None if it need not be.

    Raises
    ------
    ValueError
        If a layer is one in both directions, or the limit cannot be met.
    """
    if limit is None and budget == WHOLE:
        return None
    for k, layer in enumerate(stack.layers):
        if len(layer) > 1:
            name = "checkpoint_every" if limit is None else "memory_limit"
            raise ValueError(
                f"{name}: expected None, as params[{k}] is a layer in both directions, whose y at "
                "any step takes all steps: no segment of time has it alone"
            )
    rows = runner.rows
    steps = rows.inner[0] if rows.offsets is None else len(rows.offsets) - 1
    if not steps or not rows.inner_batch:
        return None
    sizes = _sizes(runner, stack, steps, objective)
    borders = _borders(runner.backend, sizes, per_row)
    moved = moved_nbytes(stack.bottom, rows, inputs=3)

    def cut(tried: Budget) -> Cut:
        segments = segments_of(tried, borders)
        return Cut(segments, sizes, moved + _nbytes(runner.backend, sizes, segments, per_row))

    if limit is not None:
        grain = int(borders[1]) if rows.offsets is None else 1
        budget = budget_for(limit, int(borders[-1]), grain, lambda tried: cut(tried).nbytes)
    found = cut(budget)
    return found if found.segments.count > 1 else None


def _sizes(runner: Runner, stack: Stack, steps: int, objective: Objective) -> tuple[Sizes, ...]:
    """Of each layer; the way back of the top ends with the only step of a loss."""
    rows, cell = runner.rows, runner.cell
    of = [Sizes(cell, p, steps, rows.inner_batch, rows.offsets) for p in stack.directions]
    if objective.step is not None:
        of[-1] = of[-1]._replace(steps=objective.step + 1)
    return tuple(of)


def _borders(backend: Backend, sizes: Sequence[Sizes], per_row: str | None) -> Array:
    """Where all layers can be cut, from 0 to the end of what is walked through."""
    each = [backend.part_borders(of, per_row) for of in sizes]
    of_all: Array = reduce(np.intersect1d, [borders[:-1] for borders in each])
    # Layers below a top that ends before go on to where they can end.
    of_lower: Array = reduce(np.intersect1d, each[:-1] or each)
    end = of_lower[np.searchsorted(of_lower, sizes[-1].steps)]
    return np.append(of_all[of_all < end], end)


def _nbytes(
    backend: Backend, sizes: Sequence[Sizes], segments: Segments, per_row: str | None
) -> int:
    """The states and gates of a segment of all layers, one call's memory, the states of all layers
    at borders, and dL/dx between two layers."""
    top = sizes[-1]
    most_rows = segments.most_rows(top.batch, top.offsets)
    most_steps = int(np.diff(segments.begins).max())
    each = [backend.parts_nbytes(of, most_rows, most_steps, per_row) for of in sizes]
    states = len(sizes) * len(top.cell.states) * top.batch
    between = 2 * most_rows if len(sizes) > 1 else 0
    units = (segments.borders + 2) * states + between
    held, in_a_call = zip(*each, strict=True)
    between_calls = units * top.params.hidden_size * top.params.dtype.itemsize
    return int(sum(held) + max(in_a_call) + between_calls)
