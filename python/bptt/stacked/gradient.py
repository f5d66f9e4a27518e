"""`value_and_grad` of a stack of layers.

The lower layers run forward; the top one is the fused call that a single layer is, whose dx is the
gradient that the layer below gets. A top in both directions runs forward, and back from its
readout. Layers below the lowest of which a gradient is wanted run forward alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .. import checks, memory
from ..backends import for_rows, resolve
from ..backends.protocol import Layer, Request, State
from ..budget import read_budget
from ..cells import Cell
from ..checks import Array
from ..grads import StackGrads
from ..holdings import value_and_grad_nbytes
from ..losses import Objective, make_objective
from ..stack import Stack
from ..states import GivenState, as_given, by_part
from ..stream import state_after
from .inputs import check_grads, initial_state, new_grads, read_stack_inputs, refuse
from .passes import Pass, Runner, deliver, pull_back, targets, with_dx
from .readout import expect_readout, readout_gradient
from .segments import read_cut
from .tape import pull_back_nbytes, tape_nbytes
from .wanted import READOUT, Asked, read_asked

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
    wanted: object,
    per_row: object,
    memory_limit: object,
    checkpoint_every: object,
    **of_one_layer: object,
) -> tuple[Any, ...]:
    """`bptt.value_and_grad` of a list of layers."""
    stack, array, given, rows = read_stack_inputs(kind, params, x, state, how)
    expect_readout(stack, "value_and_grad")
    refuse(**of_one_layer)
    asked = read_asked(
        stack, rows, wanted=wanted, per_row=per_row, accumulate=accumulate, readout=True
    )
    limit, budget = read_budget(memory_limit, checkpoint_every)
    if asked.per_row is not None and limit is not None:
        raise ValueError("per_row: expected no memory_limit with it, but checkpoint_every")
    return_state = checks.boolean("return_state", return_state)
    # The top's outputs and the lowest layer's inputs: what a caller sees.
    seen = replace(stack.bottom, w_ho=stack.top[0].w_ho, b_o=stack.top[0].b_o)
    objective = make_objective(seen, rows, target, loss, at, reduction)
    chosen = for_rows(resolve(backend, kind, array.dtype), rows.offsets)
    runner = Runner.of(chosen, kind, "gates", stack, rows)
    cut = read_cut(runner, stack, objective, limit, budget, asked.per_row)
    if cut is None:
        needed = _nbytes(runner, stack, asked, out=out is not None)
    else:
        results = sum(p.nbytes_of(n) for p, n in zip(stack.directions, asked.names, strict=True))
        needed = cut.nbytes + (array.nbytes + results if out is None else 0)
    memory.require_memory(
        needed, f"value_and_grad over {rows.steps} steps of {len(stack.layers)} layers"
    )
    initial = initial_state(kind, stack, rows.batch, given)
    if out is not None or accumulate is not False:
        read = {
            **by_part("state", initial),
            "target": objective.target,
            "at": objective.weights,
        }
        check_grads(out, stack, array, initial, asked, read)
    into = new_grads(stack, array, initial, asked) if out is None else out
    requests = targets(runner, stack, into, asked)
    states = runner.entering(stack, initial)
    gathered, last = rows.gather(array), None
    if cut is None:
        value, last = _run(runner, stack, gathered, states, objective, requests, return_state)
    else:
        value, last = cut.run(runner, gathered, states, objective, requests)
    deliver(runner, stack, into, requests)
    if last is None or not return_state:
        return float(value), into
    return float(value), into, as_given(runner.leaving(stack, last))


def _run(
    runner: Runner,
    stack: Stack,
    x: Array,
    initial: list[State],
    objective: Objective,
    requests: Sequence[Request],
    return_state: bool,
) -> tuple[float, list[State] | None]:
    """The loss, and the final state of each direction if they are asked for."""
    count = len(stack.top)
    below, read, final = _run_below(runner, stack, x, initial, requests)
    top = list(runner.layers(stack.top, read, initial[-count:]))
    through = _fused if count == 1 else _in_both_directions
    value, of_top, dx = through(runner, top, requests[-count:], objective, return_state)
    pull_back(runner, below, dx, None, requests[:-count])
    return value, None if of_top is None else [*final, *of_top]


def _run_below(
    runner: Runner, stack: Stack, x: Array, initial: list[State], requests: Sequence[Request]
) -> tuple[list[tuple[Pass, ...]], Array, list[State]]:
    """Run all layers but the top: the passes of those that are pulled back, what the top reads,
    and the final states. Of other layers nothing is kept."""
    kept: list[tuple[Pass, ...]] = []
    final: list[State] = []
    for directions in stack.layers[:-1]:
        there = slice(len(final), len(final) + len(directions))
        layers = list(runner.layers(directions, x, initial[there]))
        passes = runner.keeping(requests[there]).forward(layers)
        x = runner.y(passes)
        final += [record.state for _, record in passes]
        if any(request.wanted for request in requests[there]):
            kept.append(passes)
    return kept, x, final


class _Through(NamedTuple):
    """What the top leaves: the loss, its final states if they are asked for, and dL/dx."""

    loss: float
    final: list[State] | None
    dx: Array | None


def _fused(
    runner: Runner,
    top: list[Layer],
    requests: Sequence[Request],
    objective: Objective,
    return_state: bool,
) -> _Through:
    """A top in one direction: readout, loss and BPTT in the call of a single layer."""
    (layer,), (request,), step = top, requests, objective.step
    out = with_dx(request, layer)
    last = tuple(map(np.empty_like, layer.state)) if return_state else None
    value, _ = runner.backend.value_and_grad(layer, objective, replace(request, out=out), last)
    if last is None:
        return _Through(value, None, out.x)
    if step is not None:  # the steps behind it, which were not run
        last = state_after(runner.backend, replace(layer, x=layer.x[step + 1 :], state=last))
    return _Through(value, [last], out.x)


def _in_both_directions(
    runner: Runner,
    top: list[Layer],
    requests: Sequence[Request],
    objective: Objective,
    return_state: bool,
) -> _Through:
    """A top in both directions: forward, then the readout of both, then BPTT."""
    through_time = [replace(request, wanted=request.wanted - READOUT) for request in requests]
    passes = runner.keeping(through_time).forward(top)
    loss, dy = readout_gradient(runner.backend, top, runner.y(passes), objective, requests)
    dx = runner.back(passes, dy, None, through_time)
    return _Through(loss, [record.state for _, record in passes] if return_state else None, dx)


def _nbytes(runner: Runner, stack: Stack, asked: Asked, *, out: bool) -> int:
    """The tapes of the layers that are pulled back, and the ways through them; the top, fused or
    also a tape. Of layers below, as in `predict`, the states of two at a time."""
    backend, cell, rows = runner.backend, runner.cell, runner.rows
    fused = len(stack.top) == 1
    run = Stack(stack.layers[:-1] if fused else stack.layers)
    pulled = list(map(any, stack.nested(asked.names)))
    taped = Stack(tuple(layer for layer, is_ in zip(run.layers, pulled, strict=False) if is_))
    passed = [Stack((layer,)) for layer in run.layers[: len(run.layers) - len(taped.layers)]]
    needed = tape_nbytes(backend, cell, taped, rows, "gates") if taped.layers else 0
    needed += 2 * max(
        (tape_nbytes(backend, cell, layer, rows, "minimal") for layer in passed), default=0
    )
    if fused:
        steps, batch = rows.extent
        needed += value_and_grad_nbytes(
            cell,
            stack.top[0],
            steps,
            batch,
            backend.beside(cell, "gates"),
            kept=steps,
            read=steps,
            wanted=asked.names[-1],
            per_row=asked.per_row,
            out=out,
        )
    return needed + pull_back_nbytes(runner, run, asked, out=out)
