"""`forward` through a stack of layers, into a new tape or an earlier one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import checks, memory
from ..backends import for_rows, resolve
from ..backends.protocol import SAVE, State
from ..cells import Cell
from ..checks import Array
from ..outputs import expect_writable
from ..reused_tape import expect_same_shape
from ..stack import Stack
from ..states import GivenState
from .inputs import initial_state, read_stack_inputs, refuse
from .passes import Runner
from .tape import StackTape, tape_nbytes

__all__ = ["forward"]


def forward(
    kind: Cell,
    params: object,
    x: Array,
    state: GivenState | None,
    how: Mapping[str, object],
    *,
    backend: str,
    save: str,
    out: object,
    **of_one_layer: object,
) -> StackTape:
    """`bptt.forward` of a list of layers."""
    refuse(**of_one_layer)
    stack, array, given, rows = read_stack_inputs(kind, params, x, state, how)
    save = checks.choice("save", save, SAVE)
    chosen = for_rows(resolve(backend, kind, array.dtype), rows.offsets)
    runner = Runner.of(chosen, kind, save, stack, rows)
    if out is not None:
        return _record_into(out, runner, stack, array, given)
    needed = tape_nbytes(chosen, kind, stack, rows, save)
    memory.require_memory(needed, f"the tape of {rows.steps} steps of {len(stack.layers)} layers")
    return StackTape(runner, stack, array, initial_state(kind, stack, rows.batch, given))


def _record_into(
    out: object, runner: Runner, stack: Stack, x: Array, given: State | None
) -> StackTape:
    """Run a pass into the arrays of `out`, a tape of the same sizes, and return that.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If it cannot be recorded there; `out` is then as it was.
    """
    if not isinstance(out, StackTape):
        raise TypeError(f"out: expected bptt.StackTape, got {type(out).__name__}")
    if out._ran is None:
        raise RuntimeError("out: expected a tape that holds its arrays, got a released one")
    for what, wanted, got in (
        ("cell", runner.cell.name, out.cell),
        ("backend", runner.backend.name, out.backend),
        ("save", runner.save, out.save),
        ("layers with the directions", _directions(stack), _directions(out._stack)),
    ):
        if wanted != got:
            raise ValueError(f"out: expected a tape of {what} {wanted!r}, got one of {got!r}")
    if out.y.dtype != x.dtype:
        raise TypeError(f"out: expected a tape of dtype {x.dtype} like x, got {out.y.dtype}")
    expect_same_shape(out._runner.rows, out._stack.bottom, runner.rows, stack.bottom)
    records = [record for passes in out._ran.passes for _, record in passes]
    held = [array for record in records for array in (*record.history, *record.state)]
    for array in held:
        expect_writable("out", array, array, "the tape")
    arrays = {f"params{n.removeprefix('layers')}": a for n, a in stack.arrays().items()}
    for name, array in (("x", x), *arrays.items()):
        if any(np.may_share_memory(array, own) for own in held):
            raise ValueError(f"{name}: expected memory apart from out, got a part of it; copy it")
    state = tuple(  # that of `out` is read before it is written
        s.copy() if any(np.may_share_memory(s, own) for own in held) else s
        for s in initial_state(runner.cell, stack, runner.rows.batch, given)
    )
    out._record(runner, stack, x, state, records)
    return out


def _directions(stack: Stack) -> tuple[int, ...]:
    """How many directions each layer has."""
    return tuple(map(len, stack.layers))
