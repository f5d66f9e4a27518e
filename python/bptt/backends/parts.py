"""A layer's passes, a part of its steps at a time: for who keeps the states of one part alone.

Forward, parts are layers like others, which begin with the state that another one ended with. Back,
they go from the last one to the first, and the gradient of the state goes from each into the one
before. `PlainParts` is that by passes of any backend: its sums are those of parts added up, and
their bits depend on where time is cut.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..checks import Array
from ..grads import Grads, grads_of
from ..losses import Objective
from ..outputs import deliver
from ..states import as_given, as_tuple
from ..wanted import norm_of
from .by_rows import each_row
from .protocol import Backend, Incoming, Layer, Record, Request, Sizes, State

__all__ = ["PlainParts", "every_step", "of_rows"]

_READOUT = frozenset({"w_ho", "b_o"})


class PlainParts:
    """`Parts` by the passes of `backend`."""

    def __init__(self, backend: Backend, request: Request) -> None:
        self._backend = backend
        self._request = request
        per_row = None if request.per_row is None else "gradient"
        self._through_time = Request(
            wanted=(request.wanted - _READOUT) | {"state"}, per_row=per_row
        )
        self._loss = 0.0
        self._sums: dict[str, Array] = {}
        self._dstate: State | None = None  # of the state before the last part

    def forward(self, start: int, part: Layer, save: str) -> Record:
        return self._backend.forward(part, save)

    def backward(
        self,
        start: int,
        part: Layer,
        record: Record,
        incoming: Incoming,
        dx: Array | None,
        objective: Objective | None = None,
    ) -> None:
        history = incoming.history
        if objective is not None:
            of_part = _within(objective, start, part.steps)
            history = (self._read_out(part, record.y, of_part), *(None for _ in part.state[1:]))
        given = incoming.state if self._dstate is None else self._dstate
        found = self._backend.backward(part, record, Incoming(history, given), self._through_time)
        self._dstate = as_tuple(found.state)
        if dx is not None:
            np.add(dx if self._request.accumulate else 0, found.x, out=dx)
        self._add(found.arrays())

    def end(self) -> tuple[float, Grads]:
        request = self._request
        if request.per_row == "norm":
            for name, g in self._sums.items():
                self._sums[name] = np.array([norm_of(row) for row in g], g.dtype)
        assert self._dstate is not None
        fresh = grads_of({**self._sums, "state": as_given(self._dstate)})
        # x is there already.
        return self._loss, deliver(fresh, request.out, request.accumulate, request.wanted - {"x"})

    def _read_out(self, part: Layer, y: Array, objective: Objective | None) -> Array:
        """dL/dS_t of the part's own steps; the loss and the readout's gradients are added."""
        if objective is None:
            return np.zeros_like(y)
        loss, dy, readout = self._backend.readout_gradient(part, y, objective)
        self._loss += loss
        if self._request.per_row is not None and self._request.wanted & _READOUT:
            rows = [
                self._backend.readout_gradient(row, row.x, of_row)[2]
                for row, of_row in each_row(replace(part, x=y), objective)
            ]
            readout = {name: np.stack([row[name] for row in rows]) for name in readout}
        self._add({n: g for n, g in readout.items() if n in self._request.wanted})
        if objective.step is None:
            return dy
        of_all = np.zeros_like(y)
        of_all[objective.step] = dy
        return of_all

    def _add(self, found: dict[str, Array]) -> None:
        for name, g in found.items():
            if name in self._sums:
                self._sums[name] += g
            else:
                self._sums[name] = g


def every_step(sizes: Sizes) -> Array:
    """Borders of parts wherever there are steps."""
    return np.arange(sizes.steps + 1)


def of_rows(objective: Objective, rows: slice) -> Objective:
    """The loss of some rows of all steps, as `Parts` take it."""
    if objective.step is not None:
        return objective
    weights = objective.weights
    return replace(
        objective,
        target=objective.target[rows],
        weights=None if weights is None else weights[rows],
    )


def _within(objective: Objective, start: int, steps: int) -> Objective | None:
    """The loss of a part, whose steps are counted from its own start; None if it has none."""
    if objective.step is None:
        return objective
    step = objective.step - start
    return replace(objective, step=step) if 0 <= step < steps else None
