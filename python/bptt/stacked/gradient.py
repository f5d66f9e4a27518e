"""`value_and_grad` of a stack of layers.

The lower layers run forward; the top one is the fused call that a single layer is, whose dx is the
gradient that the layer below gets. A top in both directions runs forward, and back from its
readout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .. import checks, memory
from ..backends import Backend, for_rows, resolve
from ..backends.protocol import Layer, Request, State
from ..cells import Cell
from ..checks import Array
from ..grads import EVERYTHING, Grads, StackGrads
from ..holdings import backward_nbytes, value_and_grad_nbytes
from ..losses import Objective, make_objective
from ..row_map import RowMap
from ..stack import Stack
from ..states import GivenState, as_given, by_part
from ..stream import state_after
from .inputs import check_grads, initial_state, read_stack_inputs, refuse
from .passes import Runner, deliver, pull_back, targets
from .readout import expect_readout, put, readout_gradient
from .tape import tape_nbytes

__all__ = ["value_and_grad"]


def value_and_grad(
    kind: Cell,
    params: object,
    x: Array,
    target: Array,
    how: Mapping[str, object],
    *,
    loss: str,
    at: Any,
    reduction: str,
    state: GivenState | None,
    backend: str,
    out: StackGrads | None,
    accumulate: bool,
    return_state: bool,
    **of_one_layer: object,
) -> tuple[Any, ...]:
    """`bptt.value_and_grad` of a list of layers."""
    stack, array, given, rows = read_stack_inputs(kind, params, x, state, how)
    expect_readout(stack, "value_and_grad")
    refuse(**of_one_layer)
    return_state = checks.boolean("return_state", return_state)
    # The top's outputs and the lowest layer's inputs: what a caller sees.
    seen = replace(stack.bottom, w_ho=stack.top[0].w_ho, b_o=stack.top[0].b_o)
    objective = make_objective(seen, rows, target, loss, at, reduction)
    chosen = for_rows(resolve(backend, kind, array.dtype), rows.offsets)
    needed = _nbytes(chosen, kind, stack, rows, out is not None)
    memory.require_memory(
        needed, f"value_and_grad over {rows.steps} steps of {len(stack.layers)} layers"
    )
    initial = initial_state(kind, stack, rows.batch, given)
    if out is not None or accumulate is not False:
        read = {
            "x": array,
            **by_part("state", initial),
            "target": objective.target,
            "at": objective.weights,
        }
        check_grads(out, accumulate, stack, initial, read, readout=True)
    into = StackGrads.like(stack, array, initial, np.empty_like) if out is None else out
    runner = Runner.of(chosen, kind, "gates", stack, rows)
    ask = _Ask(objective, into, bool(accumulate))
    states = runner.entering(stack, initial)
    value, last = _run(runner, stack, rows.gather(array), states, ask, return_state)
    if last is None:
        return float(value), into
    return float(value), into, as_given(runner.leaving(stack, last))


class _Ask(NamedTuple):
    """The loss, and where its gradients go."""

    objective: Objective
    into: StackGrads
    accumulate: bool


def _run(
    runner: Runner, stack: Stack, x: Array, initial: list[State], ask: _Ask, return_state: bool
) -> tuple[float, list[State] | None]:
    """The loss, and the final state of each direction if they are asked for."""
    count = len(stack.top)
    below = list(runner.run(Stack(stack.layers[:-1]), x, initial[:-count]))
    read = runner.y(below[-1]) if below else x
    xs = [*(passes[0].layer.x for passes in below), read]
    outs = targets(runner, stack, ask.into, xs, ask.accumulate)
    top = list(runner.layers(stack.top, read, initial[-count:]))
    through = _fused if count == 1 else _in_both_directions
    value, final = through(runner, top, outs[-count:], ask, return_state)
    pull_back(runner, below, outs[-count].x, None, outs[:-count], ask.accumulate)
    deliver(runner, stack, ask.into, outs, ask.accumulate)
    if final is None:
        return value, None
    return value, [*(record.state for passes in below for _, record in passes), *final]


def _fused(
    runner: Runner, top: list[Layer], outs: Sequence[Grads], ask: _Ask, return_state: bool
) -> tuple[float, list[State] | None]:
    """A top in one direction: readout, loss and BPTT in the call of a single layer."""
    (layer,), (out,), step = top, outs, ask.objective.step
    last = tuple(map(np.empty_like, layer.state)) if return_state else None
    request = Request(out, ask.accumulate)
    value, _ = runner.backend.value_and_grad(layer, ask.objective, request, last)
    if last is None:
        return value, None
    if step is not None:  # the steps behind it, which were not run
        last = state_after(runner.backend, replace(layer, x=layer.x[step + 1 :], state=last))
    return value, [last]


def _in_both_directions(
    runner: Runner, top: list[Layer], outs: Sequence[Grads], ask: _Ask, return_state: bool
) -> tuple[float, list[State] | None]:
    """A top in both directions: forward, then the readout of both, then BPTT."""
    passes = runner.forward(top)
    found = readout_gradient(runner.backend, top, runner.y(passes), ask.objective)
    put(found, outs, ask.accumulate)
    runner.back(passes, found.dy, None, outs, ask.accumulate)
    return found.loss, [record.state for _, record in passes] if return_state else None


def _nbytes(backend: Backend, cell: Cell, stack: Stack, rows: RowMap, out: bool) -> int:
    """The lower layers' tapes and the way back through one; the top, fused or also a tape.

    Every layer above the lowest has a dx of its own.
    """
    beside = backend.beside(cell, "gates")
    steps, batch = rows.extent
    fused = len(stack.top) == 1
    taped = Stack(stack.layers[:-1]) if fused else stack
    needed = tape_nbytes(backend, cell, taped, rows, "gates") if taped.layers else 0
    if fused:
        needed += value_and_grad_nbytes(
            cell,
            stack.top[0],
            steps,
            batch,
            beside,
            kept=steps,
            read=steps,
            wanted=EVERYTHING,
            out=out,
        )
    for params in taped.directions:
        given = out and params is stack.bottom
        needed += backward_nbytes(
            cell, params, steps, batch, "gates", beside, wanted=EVERYTHING, out=given
        )
    return needed
