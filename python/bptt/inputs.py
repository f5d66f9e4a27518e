"""What every pass takes, parameters, x and a state, checked; and the memory that a pass needs."""

from __future__ import annotations

import numpy as np

from . import checks
from .backends.protocol import State
from .cells import Cell
from .checks import Array
from .params import Params
from .states import read_state
from .threads import get_num_threads

__all__ = ["block_nbytes", "read_inputs", "states_nbytes"]


def read_inputs(
    cell: Cell, params: object, x: object, state: object
) -> tuple[Params, Array, State]:
    """Check what every pass takes: parameters, x (T, B, I), and the state or None."""
    if not isinstance(params, Params):
        raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}")
    params = params.readable_for(cell)
    like = ("w_hh", params.dtype)
    array = checks.as_float_array("x", x, like)
    checks.expect_shape(
        "x", array, ("T", "B", params.input_size), lambda: f"w_ih of shape {params.w_ih.shape}"
    )
    shape = (array.shape[1], params.hidden_size)
    if state is None:
        parts = len(cell.states)
        checks.require_memory(parts * shape[0] * shape[1] * array.itemsize, "the initial state")
        zeros = tuple(np.zeros(shape, params.dtype) for _ in range(parts))
        return params, checks.readable(array), zeros
    initial = read_state("state", state, cell, shape, like, "x and w_hh")
    return params, checks.readable(array), initial


def block_nbytes(params: Params, batch: int) -> int:
    """Bytes that blocks of time take in the backward pass, at most about: inputs, states, gradients
    of states and pre-activations, and outputs, most of them for two blocks, and sums of slices of
    the batch. `plan` tells exactly what the native backend takes."""
    gates = len(params.w_hh) // params.hidden_size
    width = 2 * params.input_size + (4 + 4 * gates) * params.hidden_size
    width += 3 * (params.output_size or 0)
    rows = max(batch, 1024 * get_num_threads())
    return int(rows * width * params.dtype.itemsize) + (16 << 20)


def states_nbytes(cell: Cell, params: Params, steps: int, batch: int, save: str = "gates") -> int:
    """Bytes of all states of a pass, and of what the cell saves beside."""
    width = len(cell.states) + (cell.saved if save == "gates" else 0)
    return int((steps + 2) * batch * width * params.hidden_size * params.dtype.itemsize)
