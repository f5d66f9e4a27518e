"""The parameters' gradients of each row of the batch, for a backend that knows only their sum.

Each row goes through the backend as a batch of its own, forward and back. The gradients of x and of
the initial state are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import Array
from ..grads import Grads, some_of
from ..losses import Objective
from ..outputs import deliver
from ..wanted import norm_of, rows_like
from .protocol import Incoming, Layer, Record, Request, State

if TYPE_CHECKING:
    from .protocol import Backend

__all__ = ["backward_by_rows", "each_row", "value_and_grad_by_rows"]

_OF_ROWS = frozenset({"x", "state"})


def backward_by_rows(
    backend: Backend, layer: Layer, record: Record, incoming: Incoming, request: Request
) -> Grads:
    """Backend.backward with ``per_row``."""
    whole = Request(wanted=request.wanted & _OF_ROWS, trace=request.trace)
    grads = backend.backward(layer, record, incoming, whole)
    of_row = Request(wanted=request.wanted - _OF_ROWS)

    def each() -> Iterator[Grads]:
        for b, row in enumerate(_rows(layer)):
            given = Incoming(
                tuple(_of_row(layer, d, b) for d in incoming.history),
                tuple(None if d is None else d[b : b + 1] for d in incoming.state or ()) or None,
            )
            yield backend.backward(row, backend.forward(row, "gates"), given, of_row)

    return _collected(grads, each(), layer, request, ("w_ho", "b_o"))


def value_and_grad_by_rows(
    backend: Backend, layer: Layer, objective: Objective, request: Request, last: State | None
) -> tuple[float, Grads]:
    """Backend.value_and_grad with ``per_row``."""
    alone = replace(request, out=None, accumulate=False, per_row=None)
    whole = replace(alone, wanted=request.wanted & _OF_ROWS)
    loss, grads = backend.value_and_grad(layer, objective, whole, last)
    of_row = replace(alone, wanted=request.wanted - _OF_ROWS)

    def each() -> Iterator[Grads]:
        for row, part in each_row(layer, objective):
            yield backend.value_and_grad(row, part, of_row)[1]

    return loss, _collected(grads, each(), layer, request, ())


def each_row(layer: Layer, objective: Objective) -> Iterator[tuple[Layer, Objective]]:
    """Each row of the batch as a batch of its own, and its part of the loss."""
    for b, row in enumerate(_rows(layer)):
        one = objective.target[b : b + 1]
        target = one if objective.step is not None else _of_row(layer, objective.target, b)
        weights = _of_row(layer, objective.weights, b)
        yield row, replace(objective, target=target, weights=weights)


def _rows(layer: Layer) -> Iterator[Layer]:
    """Each row of the batch as a batch of its own."""
    for b in range(len(layer.state[0])):
        x = _of_row(layer, layer.x, b)
        state = tuple(np.ascontiguousarray(s[b : b + 1]) for s in layer.state)
        yield replace(layer, x=x, state=state, offsets=None)


def _of_row(layer: Layer, array: Array | None, b: int) -> Any:
    """One row of an array of all steps: (t, 1, ...)."""
    if array is None:
        return None
    if layer.offsets is None:
        return np.ascontiguousarray(array[:, b : b + 1])
    first, active = layer.offsets[:-1], np.diff(layer.offsets)
    return array[first[active > b] + b][:, None]


def _collected(
    grads: Grads, rows: Iterator[Grads], layer: Layer, request: Request, absent: tuple[str, ...]
) -> Grads:
    """`grads` with the parameters' gradients of all rows, where the request has them go."""
    batch, per_row = len(layer.state[0]), request.per_row
    fresh = some_of(grads, request.wanted & _OF_ROWS)
    for name, param in layer.params.arrays().items():
        if name in request.wanted and name not in absent:
            like = rows_like(param, batch, per_row)
            setattr(fresh, name, np.empty(like.shape, like.dtype))
    for b, row in enumerate(rows):
        for name, target in fresh.arrays().items():
            gradient = getattr(row, name)
            target[b] = norm_of(gradient) if per_row == "norm" else gradient
    return deliver(fresh, request.out, request.accumulate, request.wanted)
