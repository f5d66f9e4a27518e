"""What every pass takes, parameters, x and a state, checked."""

from __future__ import annotations

import numpy as np

from . import checks
from .backends.protocol import State
from .cells import Cell
from .checks import Array
from .params import Params
from .states import read_state

__all__ = ["initial_state", "read_inputs"]


def read_inputs(
    cell: Cell, params: object, x: object, state: object
) -> tuple[Params, Array, State | None]:
    """Check what every pass takes: parameters, x (T, B, I), and the state or None.

    A state that is not given is None until the call has asked for memory; see `initial_state`.
    """
    if not isinstance(params, Params):
        raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}")
    params = params.readable_for(cell)
    like = ("w_hh", params.dtype)
    array = checks.as_float_array("x", x, like)
    checks.expect_shape(
        "x", array, ("T", "B", params.input_size), lambda: f"w_ih of shape {params.w_ih.shape}"
    )
    given = None
    if state is not None:
        shape = (array.shape[1], params.hidden_size)
        given = read_state("state", state, cell, shape, like, "x and w_hh")
    return params, checks.readable(array), given


def initial_state(cell: Cell, params: Params, batch: int, given: State | None) -> State:
    """S_0: what was given, or zeros."""
    if given is not None:
        return given
    return tuple(np.zeros((batch, params.hidden_size), params.dtype) for _ in cell.states)
