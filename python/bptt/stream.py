"""A forward pass in blocks of steps, whose states are not kept, and the outputs of its readout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .backends import Backend
from .backends.protocol import Forward, State
from .cells import CELLS, Cell
from .checks import Array
from .params import Params

__all__ = ["STEPS_AT_ONCE", "read_out", "state_after", "stream"]

# So many states fit a cache, and are many enough for one call.
STEPS_AT_ONCE = 128
_OUTPUTS_AT_ONCE = 64


def stream(
    cell: Cell, backend: Backend, params: Params, x: Array, state: State
) -> Iterator[tuple[int, Array, State]]:
    """Run through x (T, B, I): of each block of n steps the first, y (n, B, H), and the last state.

    y is valid until the next block is asked for.
    """
    into: Forward | None = None
    for start in range(0, len(x), STEPS_AT_ONCE):
        some = x[start : start + STEPS_AT_ONCE]
        if into is not None:
            history = tuple(states[: len(some)] for states in into.history)
            into = Forward(history, into.state, into.saved)
        into = backend.forward(cell, params, some, state, "minimal", into)
        state = tuple(s.copy() for s in into.state)
        yield start, into.y, state


def state_after(cell: Cell, backend: Backend, params: Params, x: Array, state: State) -> State:
    """The state after all steps of x."""
    for _, _, last in stream(cell, backend, params, x, state):
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
        found[:, some] = backend.forward(CELLS["linear"], network, rows, nothing, "minimal").y[0]
    return found.reshape(*y.shape[:-1], outputs)
