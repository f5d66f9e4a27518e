"""A forward pass in blocks of steps, whose states are not kept, and the outputs of its readout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .backends import Backend
from .backends.protocol import Layer, Record, State
from .cells import CELLS
from .checks import Array
from .params import Params

__all__ = ["STEPS_AT_ONCE", "read_out", "state_after", "stream"]

# So many states fit a cache, and are many enough for one call.
STEPS_AT_ONCE = 128
_OUTPUTS_AT_ONCE = 64


def stream(backend: Backend, layer: Layer) -> Iterator[tuple[int, Array, State]]:
    """Run through x (T, B, I): of each block of n steps the first, y (n, B, H), and the last state.

    y is valid until the next block is asked for.
    """
    into: Record | None = None
    state = layer.state
    for start in range(0, len(layer.x), STEPS_AT_ONCE):
        some = layer.x[start : start + STEPS_AT_ONCE]
        if into is not None:
            history = tuple(states[: len(some)] for states in into.history)
            into = Record(history, into.state, into.saved)
        into = backend.forward(replace(layer, x=some, state=state), "minimal", into)
        state = tuple(s.copy() for s in into.state)
        yield start, into.y, state


def state_after(backend: Backend, layer: Layer) -> State:
    """The state after all steps of x."""
    state = layer.state
    for _, _, last in stream(backend, layer):
        state = last
    return state


def read_out(backend: Backend, params: Params, y: Array) -> Array:
    """O = W_o S + b_2 (..., O) of states y (..., H).

    They are the states of a linear network after one step without recurrence: W_x = W_o. It takes
    some outputs at a time, as its W_s = 0 grows with their square.
    """
    assert params.w_ho is not None
    rows, outputs = y.reshape(1, -1, y.shape[-1]), len(params.w_ho)
    found = np.empty((rows.shape[1], outputs), y.dtype)
    for first in range(0, outputs, _OUTPUTS_AT_ONCE):
        some = slice(first, first + _OUTPUTS_AT_ONCE)
        w_ho, b_o = params.w_ho[some], None if params.b_o is None else params.b_o[some]
        network = Params(w_ho, np.zeros((len(w_ho), len(w_ho)), y.dtype), b_o)
        nothing = (np.zeros((rows.shape[1], len(w_ho)), y.dtype),)
        layer = Layer(CELLS["linear"], network, rows, nothing)
        found[:, some] = backend.forward(layer, "minimal").y[0]
    return found.reshape(*y.shape[:-1], outputs)
