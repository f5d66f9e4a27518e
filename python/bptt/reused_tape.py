"""`record_into`: a forward pass that is recorded into the arrays of an earlier tape."""

from __future__ import annotations

import numpy as np

from . import checks
from .backends import Backend
from .backends.protocol import State
from .cells import Cell
from .checks import Array
from .inputs import initial_state, layer_of, places_for
from .outputs import expect_writable
from .params import Params
from .row_map import RowMap
from .states import by_part
from .tape import Tape

__all__ = ["expect_same_shape", "record_into"]


def record_into(
    out: object,
    backend: Backend,
    save: str,
    cell: Cell,
    params: Params,
    x: Array,
    given: State | None,
    rows: RowMap,
) -> Tape:
    """Run a pass into the arrays of `out`, a tape of the same sizes, and return that.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If it cannot be recorded there; `out` is then as it was.
    """
    if not isinstance(out, Tape):
        raise TypeError(f"out: expected bptt.Tape, got {type(out).__name__}")
    if out._checkpoints is not None:
        raise ValueError("out: expected a tape without memory_limit and checkpoint_every")
    if out._record is None:
        raise RuntimeError("out: expected a tape that holds its arrays, got a released one")
    for what, wanted, got in (
        ("cell", cell.name, out.cell),
        ("backend", backend.name, out.backend),
        ("save", save, out.save),
    ):
        if wanted != got:
            raise ValueError(f"out: expected a tape of {what} {wanted!r}, got one of {got!r}")
    record, before = out._record, out._rows
    if record.y.dtype != x.dtype:
        raise TypeError(f"out: expected a tape of dtype {x.dtype} like x, got {record.y.dtype}")
    expect_same_shape(before, out._layer.params, rows, params)
    held = {
        **dict(zip(("out.y", "out.c"), record.history, strict=False)),
        **by_part("out.state", record.state),
        **{f"out.{'yc'[part]}": array for part, array in out._shown.items()},
    }
    for name, array in held.items():
        expect_writable(name, array, array, "the tape")
    for name, array in (("x", x), *params.arrays().items()):
        if any(np.may_share_memory(array, own) for own in held.values()):
            raise ValueError(f"{name}: expected memory apart from out, got a part of it; copy it")
    state = tuple(  # that of `out` is read before it is written
        s.copy() if any(np.may_share_memory(s, own) for own in held.values()) else s
        for s in initial_state(cell, params, rows.batch, given)
    )
    layer = layer_of(cell, params, x, state, rows, places_for(backend, rows))
    return out._record_again(layer, rows)


def expect_same_shape(before: RowMap, params_before: Params, rows: RowMap, params: Params) -> None:
    """Raise ValueError unless a pass leaves arrays of the same shapes as the one before."""
    found, wanted = (*before.shape, params_before.hidden_size), (*rows.shape, params.hidden_size)
    if found != wanted:
        y = np.broadcast_to(np.float32(0), found)
        checks.expect_shape("out", y, wanted, "x and w_hh")
    same = before.inner == rows.inner and before.inner_batch == rows.inner_batch
    if same and rows.offsets is not None and before.offsets is not None:
        same = np.array_equal(rows.offsets, before.offsets)
    if not same:
        raise ValueError("out: expected a tape of the same lengths and resets, got one of others")
