"""`value_and_grad` that keeps the states of one segment at a time, by a backend's own passes.

S_{K-1}, S_{2K-1}, ... once forward; then from the last segment on: S_t of the segment again from
the state before it, and BPTT through it, whose dL/dS goes into the segment before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..budget import Budget, from_the_last, segments_of
from ..grads import Grads, grads_of
from ..holdings import Beside
from ..losses import Objective
from ..outputs import deliver
from .parts import PlainParts, of_rows
from .protocol import Backend, Incoming, Layer, Request, Sizes, State

__all__ = ["kept_by_parts", "kept_in_segments", "value_and_grad_in_segments"]


def kept_in_segments(sizes: Sizes, beside: Beside, budget: Budget) -> int:
    """``Backend.kept_nbytes``: a segment's states, gates and outputs, what its passes hold beside,
    and the state before each segment; new gradients, of x those of all steps."""
    cell, params, steps, batch, offsets, _ = sizes
    kept = min(steps, budget.segment_steps or steps)
    rows = kept * batch if offsets is None else int(offsets[kept])  # the first ones are the most
    states, inputs, outputs = len(cell.states), params.input_size, params.output_size or 0
    # With dL/dS_t, and x's gradient of the segment.
    units = 2 * states + cell.saved + beside.forward + beside.backward + beside.fused
    width = units * params.hidden_size + inputs + (2 + beside.outputs) * outputs
    borders = -(-steps // max(1, kept)) * batch * states * params.hidden_size
    dx = (steps * batch if offsets is None else int(offsets[-1])) * inputs
    return (rows * width + borders + dx) * params.dtype.itemsize + 4 * params.nbytes


def kept_by_parts(
    sizes: Sizes, beside: Beside, most_rows: int, per_row: str | None
) -> tuple[int, int]:
    """``Backend.parts_nbytes``: the states and gates of a part, what its passes hold beside, and
    sums of gradients; those of a part and, where they are new, those that are returned."""
    cell, params = sizes.cell, sizes.params
    inputs, outputs = params.input_size, params.output_size or 0
    units = 2 * len(cell.states) + cell.saved + beside.forward + beside.backward + beside.fused
    width = units * params.hidden_size + inputs + (2 + beside.outputs) * outputs
    of_each = 1 if per_row is None else sizes.batch
    sums = of_each * params.nbytes
    return most_rows * width * params.dtype.itemsize + sums, params.nbytes + sums


def value_and_grad_in_segments(
    backend: Backend, layer: Layer, objective: Objective, request: Request, last: State | None
) -> tuple[float, Grads]:
    """``Backend.value_and_grad``; groups of segments are not made."""
    steps = layer.steps if objective.step is None else objective.step + 1
    segments = segments_of(replace(request.budget, group_segments=0), np.arange(steps + 1))
    out = request.out
    dx = np.zeros_like(layer.x) if "x" in request.wanted else None
    parts = PlainParts(backend, replace(request, out=None, accumulate=False))

    def run(start: int, stop: int, state: State) -> State:
        after = parts.forward(start, layer.part(start, stop, state), "minimal").state
        return tuple(s.copy() for s in after)

    for start, stop, state in from_the_last(segments, layer.state, run):
        part, rows = layer.part(start, stop, state), layer.rows(start, stop)
        record = parts.forward(start, part, "gates")
        if stop == steps:
            for target, s in zip(last or (), record.state, strict=False):
                np.copyto(target, s)
        nothing = Incoming(tuple(None for _ in layer.state))
        into = None if dx is None else dx[rows]
        parts.backward(start, part, record, nothing, into, of_rows(objective, rows))
    loss, grads = parts.end()
    found = grads_of({"x": dx, "state": grads.state, **grads.arrays()})
    return loss, deliver(found, out, request.accumulate, request.wanted)
