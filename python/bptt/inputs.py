"""What every pass takes, parameters, x and a state, checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import checks
from .backends.protocol import Backend, Layer, State
from .cells import Cell
from .checks import Array
from .params import Params
from .row_map import Places, RowMap, dense_rows
from .sequence_options import expect_one_layout, read_row_map
from .stack import is_stack
from .states import read_state

__all__ = ["initial_state", "layer_of", "places_for", "read_inputs", "read_sequences"]


def read_inputs(
    cell: Cell, params: object, x: object, state: object
) -> tuple[Params, Array, State | None]:
    """Check what every pass takes: parameters, x (T, B, I), and the state or None.

    A state that is not given is None until the call has asked for memory; see `initial_state`.
    """
    return read_sequences(cell, params, x, state, {})[:3]


def read_sequences(
    cell: Cell, params: object, x: object, state: object, how: Mapping[str, object]
) -> tuple[Params, Array, State | None, RowMap]:
    """The same of sequences of any kind, as the keywords of `read_row_map` describe them.

    `how` is empty if they are as a layer has them: see `sequence_options.described`. x and the
    state are as the caller has them; `layer_of` makes what a backend reads.
    """
    if not isinstance(params, Params):
        hint = "; this call takes one layer, no stack" if is_stack(params) else ""
        raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}{hint}")
    params = params.readable_for(cell)
    like = ("w_hh", params.dtype)
    array = checks.as_float_array("x", x, like)
    axes: tuple[str, ...] = ("B", "T") if how.get("batch_first") else ("T", "B")
    if how.get("batch_sizes") is not None:
        expect_one_layout(how.get("lengths"), how["batch_sizes"], how.get("batch_first"))
        axes = ("N",)
    checks.expect_shape(
        "x", array, (*axes, params.input_size), lambda: f"w_ih of shape {params.w_ih.shape}"
    )
    shape = array.shape[:-1]
    rows = read_row_map(shape, **how) if how else dense_rows(*shape)
    given = None
    if state is not None:
        shape = (rows.batch, params.hidden_size)
        given = read_state("state", state, cell, shape, like, "x and w_hh")
    return params, checks.readable(array), given, rows


def layer_of(
    cell: Cell,
    params: Params,
    x: Array,
    state: State,
    rows: RowMap,
    places: Places | None = None,
) -> Layer:
    """The layer that a backend runs, of a caller's x and S_0, moved unless there are places."""
    x = rows.gather(x) if places is None else x
    return Layer(cell, params, x, rows.gather_state(state), rows.offsets, places)


def places_for(backend: Backend, rows: RowMap) -> Places | None:
    """Where the caller has the rows, if they are not those of a layer and `backend` goes there by
    itself. If not, they are copied before a pass and after it."""
    return rows.places if backend.places else None


def initial_state(cell: Cell, params: Params, batch: int, given: State | None) -> State:
    """S_0: what was given, or zeros."""
    if given is not None:
        return given
    return tuple(np.zeros((batch, params.hidden_size), params.dtype) for _ in cell.states)
