"""`value_and_grad` that keeps the states of one segment at a time, by a backend's own passes.

S_{K-1}, S_{2K-1}, ... once forward; then from the last segment on: S_t of the segment again from
the state before it, and BPTT through it, whose dL/dS goes into the segment before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..budget import Budget
from ..checks import Array
from ..grads import Grads, grads_of
from ..holdings import Beside
from ..losses import Objective
from ..outputs import deliver
from ..states import as_given, as_tuple
from .protocol import Backend, Incoming, Layer, Request, Sizes, State

__all__ = ["kept_in_segments", "value_and_grad_in_segments"]


def kept_in_segments(sizes: Sizes, beside: Beside, budget: Budget) -> int:
    """``Backend.kept_nbytes``: a segment's states, gates and outputs, what its passes hold beside,
    and the state before each segment; new gradients, of x those of all steps."""
    cell, params, steps, batch, offsets = sizes
    kept = min(steps, budget.segment_steps or steps)
    rows = kept * batch if offsets is None else int(offsets[kept])  # the first ones are the most
    states, inputs, outputs = len(cell.states), params.input_size, params.output_size or 0
    # With dL/dS_t, and x's gradient of the segment.
    units = 2 * states + cell.saved + beside.forward + beside.backward + beside.fused
    width = units * params.hidden_size + inputs + (2 + beside.outputs) * outputs
    borders = -(-steps // max(1, kept)) * batch * states * params.hidden_size
    dx = (steps * batch if offsets is None else int(offsets[-1])) * inputs
    return (rows * width + borders + dx) * params.dtype.itemsize + 4 * params.nbytes


def value_and_grad_in_segments(
    backend: Backend, layer: Layer, objective: Objective, request: Request, last: State | None
) -> tuple[float, Grads]:
    """``Backend.value_and_grad``; groups of segments are not made."""
    steps = layer.steps if objective.step is None else objective.step + 1
    segments = _forward(backend, layer, steps, request.budget.segment_steps)
    sums = {"x": np.zeros_like(layer.x)} if "x" in request.wanted else {}
    through_time = Request(wanted=request.wanted | {"state"})
    loss, dstate = 0.0, None
    for start, segment in reversed(segments):
        record = backend.forward(segment, "gates")
        if dstate is None:
            for target, s in zip(last or (), record.state, strict=False):
                np.copyto(target, s)
        term, dy, readout = _loss(
            backend, segment, record.y, _part(objective, layer, start, segment)
        )
        histories = (dy, *(None,) * (len(layer.state) - 1))
        found = backend.backward(segment, record, Incoming(histories, dstate), through_time)
        dstate = as_tuple(found.state)
        loss += term
        if "x" in sums:
            sums["x"][layer.rows(start, start + segment.steps)] = found.x
        for name, g in {**found.arrays(), **readout}.items():
            sums[name] = sums[name] + g if name in sums else g
    assert dstate is not None
    fresh = grads_of({**sums, "state": as_given(dstate)})
    return loss, deliver(fresh, request.out, request.accumulate, request.wanted)


def _forward(
    backend: Backend, layer: Layer, steps: int, segment_steps: int
) -> list[tuple[int, Layer]]:
    """The first step of each segment, and the segment with the state before it."""
    segments = []
    state = layer.state
    for start in range(0, steps, segment_steps) or range(1):
        segment = layer.part(start, min(start + segment_steps, steps), state)
        segments.append((start, segment))
        if start + segment_steps < steps:
            after = backend.forward(segment, "minimal").state
            state = tuple(s.copy() for s in after)
    return segments


def _part(objective: Objective, layer: Layer, start: int, segment: Layer) -> Objective | None:
    """The loss of a segment's steps; None if it has none."""
    steps = layer.rows(start, start + segment.steps)
    if objective.step is not None:
        within = start <= objective.step < start + segment.steps
        return replace(objective, step=objective.step - start) if within else None
    weights = objective.weights
    return replace(
        objective,
        target=objective.target[steps],
        weights=None if weights is None else weights[steps],
    )


def _loss(
    backend: Backend, segment: Layer, y: Array, objective: Objective | None
) -> tuple[float, Array, dict[str, Array]]:
    """The loss of a segment, dL/dS_t of its own steps' losses, and the readout's gradients."""
    if objective is None:
        return 0.0, np.zeros_like(y), {}
    loss, dy, readout = backend.readout_gradient(segment, y, objective)
    if objective.step is not None:
        of_step, dy = dy, np.zeros_like(y)
        dy[objective.step] = of_step
    return loss, dy, readout
