"""The readout of the top layer, O_t = W_o y_t + b_2.

Where the top reads in both directions, y_t holds both their states, and each has its own columns of
W_o in its `Params`: O_t = W_o^f S_t^f + W_o^r S_t^r + b_2. b_2 is with the forward one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..backends import Backend
from ..backends.protocol import Layer
from ..cells import CELLS
from ..checks import Array
from ..grads import Grads
from ..losses import Objective
from ..params import Params
from ..stack import Stack

__all__ = ["ReadoutGradient", "expect_readout", "put", "readout_gradient", "readout_of"]


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


class ReadoutGradient(NamedTuple):
    """A loss, and its gradients: in y, W_o and b_2."""

    loss: float
    dy: Array
    w_ho: Array
    b_o: Array | None


def readout_gradient(
    backend: Backend, top: Sequence[Layer], y: Array, objective: Objective
) -> ReadoutGradient:
    """The loss of the readout of y (T, B, 2 H) of both directions, and its gradients.

    A backend reads out the states of a layer; of this one nothing but the readout is used.
    """
    network = readout_of([layer.params for layer in top])
    state = (np.zeros((len(top[0].state[0]), y.shape[-1]), y.dtype),)
    layer = Layer(CELLS["linear"], network, y, state, top[0].offsets)
    loss, dy, readout = backend.readout_gradient(layer, y, objective)
    if objective.step is not None:
        of_step, dy = dy, np.zeros_like(y)
        dy[objective.step] = of_step
    return ReadoutGradient(loss, dy, readout["w_ho"], readout.get("b_o"))


def put(found: ReadoutGradient, outs: Sequence[Grads], accumulate: bool) -> None:
    """Write the gradients of the readout to those of both directions, or add them."""
    w_ho = np.split(found.w_ho, len(outs), axis=1)
    pairs = [(out.w_ho, part) for out, part in zip(outs, w_ho, strict=True)]
    for target, gradient in [*pairs, (outs[0].b_o, found.b_o)]:
        if target is not None and gradient is not None:
            np.add(target if accumulate else 0, gradient, out=target)
