"""The readout of the top layer, O_t = W_o y_t + b_2.

Where the top reads in both directions, y_t holds both their states, and each has its own columns of
W_o in its `Params`: O_t = W_o^f S_t^f + W_o^r S_t^r + b_2. b_2 is with the forward one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..backends import Backend
from ..backends.by_rows import each_row
from ..backends.protocol import Layer, Request
from ..cells import CELLS
from ..checks import Array
from ..losses import Objective
from ..params import Params
from ..stack import Stack
from ..wanted import norm_of
from .wanted import READOUT

__all__ = ["expect_readout", "readout_gradient", "readout_of"]


def expect_readout(stack: Stack, call: str) -> None:
    """Raise ValueError unless the top layer alone has a readout, in each of its directions."""
    below = len(stack.directions) - len(stack.top)
    for k, (where, params) in enumerate(zip(stack.names, stack.directions, strict=True)):
        if k < below and params.w_ho is not None:
            raise ValueError(f"params{where}: expected a readout on the top layer alone, got w_ho")
        if k >= below and params.w_ho is None:
            raise ValueError(
                f"params{where}: {call} needs the readout weights w_ho of the top layer"
                f"{', of each direction' if len(stack.top) > 1 else ''}, got None"
            )
    if len(stack.top) == 1:
        return
    forward, reverse = stack.top
    if forward.output_size != reverse.output_size:
        raise ValueError(
            f"params{stack.names[-1]}: expected w_ho with {forward.output_size} rows like that of "
            f"the forward direction, got {reverse.output_size}"
        )
    if reverse.b_o is not None:
        raise ValueError(f"params{stack.names[-1]}: expected b_o in the forward direction alone")


def readout_of(top: Sequence[Params]) -> Params:
    """Parameters with the readout of a top layer's y, w_ho (O, D*H); no other array counts."""
    if len(top) == 1:
        return top[0]
    w_ho = np.concatenate([params.w_ho for params in top if params.w_ho is not None], axis=1)
    width = w_ho.shape[1]
    unused = np.zeros((width, width), w_ho.dtype)
    return Params(unused, unused, w_ho=w_ho, b_o=top[0].b_o)


def readout_gradient(
    backend: Backend,
    top: Sequence[Layer],
    y: Array,
    objective: Objective,
    requests: Sequence[Request],
) -> tuple[float, Array]:
    """The loss of the readout of y (T, B, 2 H) of both directions, and its gradient in y.

    Those in W_o and b_2 go where the requests of the two directions have them. A backend reads out
    the states of a layer; of the one here nothing but the readout is used.
    """
    network = readout_of([layer.params for layer in top])
    state = (np.zeros((len(top[0].state[0]), y.shape[-1]), y.dtype),)
    layer = Layer(CELLS["linear"], network, y, state, top[0].offsets)
    loss, dy, found = backend.readout_gradient(layer, y, objective)
    if requests[0].per_row is None:
        _put(found, requests)
    elif any(request.wanted & READOUT for request in requests):
        for b, (row, of_row) in enumerate(each_row(layer, objective)):
            _put(backend.readout_gradient(row, row.x, of_row)[2], requests, slice(b, b + 1))
    if objective.step is not None:
        of_step, dy = dy, np.zeros_like(y)
        dy[objective.step] = of_step
    return loss, dy


def _put(found: Mapping[str, Array], requests: Sequence[Request], row: slice | None = None) -> None:
    """Write the gradients of the readout where both directions want theirs, or add them."""
    parts = np.split(found["w_ho"], len(requests), axis=1)
    for request, part in zip(requests, parts, strict=True):
        _put_one(request, "w_ho", part, row)
    if "b_o" in found:
        _put_one(requests[0], "b_o", found["b_o"], row)


def _put_one(request: Request, name: str, gradient: Array, row: slice | None) -> None:
    target = getattr(request.out, name)
    if target is None:
        return
    into = target if row is None else target[row]
    value = norm_of(gradient) if request.per_row == "norm" else gradient
    np.add(into if request.accumulate else 0, value, out=into)
