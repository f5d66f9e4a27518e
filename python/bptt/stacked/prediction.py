"""`predict` of a stack of layers: outputs and final states, without a gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import memory
from ..backends import Backend, for_rows, resolve
from ..backends.protocol import State
from ..cells import Cell
from ..checks import Array
from ..losses import read_step
from ..row_map import RowMap
from ..stack import Stack
from ..states import GivenState, as_given
from .inputs import initial_state, read_stack_inputs
from .passes import Runner
from .readout import expect_readout, readout_of
from .tape import tape_nbytes

__all__ = ["predict"]


def predict(
    kind: Cell,
    params: object,
    x: Array,
    state: GivenState | None,
    how: Mapping[str, object],
    *,
    at: str | int,
    backend: str,
) -> tuple[Array, GivenState]:
    """`bptt.predict` of a list of layers. The states of two layers at a time are kept."""
    stack, array, given, rows = read_stack_inputs(kind, params, x, state, how)
    expect_readout(stack, "predict")
    step = read_step(at, rows.steps)
    if at == "last" and step is None:
        raise ValueError('at: there are no steps (x has T = 0), got "last"')
    chosen = for_rows(resolve(backend, kind, array.dtype), rows.offsets)
    needed = _nbytes(chosen, kind, stack, rows)
    memory.require_memory(needed, f"predict over {rows.steps} steps of {len(stack.layers)} layers")
    runner = Runner.of(chosen, kind, "minimal", stack, rows)
    initial = initial_state(kind, stack, rows.batch, given)
    y, last = _last_layer(runner, stack, array, initial)
    network = readout_of(stack.top)
    if step is None:
        return rows.scatter(chosen.read_out(network, y)), as_given(last)
    sequence, source = rows.rows_at(None if at == "last" else step)
    picked = y.reshape(-1, y.shape[-1])[rows.place(source)]
    outputs = np.zeros((rows.batch, stack.top[0].output_size or 0), array.dtype)
    outputs[sequence] = chosen.read_out(network, picked)
    return outputs, as_given(last)


def _last_layer(runner: Runner, stack: Stack, x: Array, initial: State) -> tuple[Array, State]:
    """y of the top layer in the layers' rows, and all final states as the caller has them."""
    final: list[State] = []
    top = None
    for passes in runner.run(stack, runner.rows.gather(x), runner.entering(stack, initial)):
        final += [record.state for _, record in passes]
        top = passes
    assert top is not None
    return runner.y(top), runner.leaving(stack, final)


def _nbytes(backend: Backend, cell: Cell, stack: Stack, rows: RowMap) -> int:
    """Two layers at most, and the outputs of all rows."""
    layers = [Stack((layer,)) for layer in stack.layers]
    largest = max(tape_nbytes(backend, cell, layer, rows, "minimal") for layer in layers)
    steps, batch = rows.extent
    outputs = steps * batch * (stack.top[0].output_size or 0) * stack.dtype.itemsize
    return 2 * largest + (2 + backend.beside(cell, "minimal").outputs) * outputs
