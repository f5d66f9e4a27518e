"""Truncated BPTT: what is cut off the gradient's sum over lags, and how the rest is computed.

    dL/dW = sum_t sum_{k <= t} dL_t/dS_t · ( prod_{j=k+1..t} dS_j/dS_{j-1} ) · dS_k/dW

``truncate=K`` keeps the terms of lag t - k <= K of each loss: of the last K + 1 steps up to it.
``detach_every=K`` cuts time into segments of K steps and keeps the terms within each of them: lag 0
alone for a loss at a segment's first step, all up to K - 1 for one at its last.

Where few losses are truncated, each has a sweep through its own K + 1 steps. Where many are, their
sweeps would overlap, and all steps go back by one lag at a time (`Recorded.pull_back`):

    D_k = sum_{lag <= K} delta_k^(lag)        dL/dW = sum_k D_k · dS_k/dW
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import checks
from .backends import Backend
from .backends.protocol import Incoming, Layer, Request, State
from .checks import Array
from .grads import EVERYTHING, Grads, grads_of, present, some_of
from .losses import Objective
from .recorded import Recorded
from .row_map import RowMap
from .states import as_given, as_tuple
from .stream import state_after

__all__ = ["Truncation", "read_truncation", "truncated_backward", "truncated_value_and_grad"]

# What comes in at all steps, for each part of the state: (T, B, H), or None.
History = tuple[Array | None, ...]


@dataclass(frozen=True)
class Truncation:
    """How far back a loss reaches: `steps` lags, or to the start of its segment of `steps`."""

    steps: int
    detach: bool

    def first(self, step: int) -> int:
        """The first step that a loss at `step` reaches."""
        start = step // self.steps * self.steps if self.detach else step - self.steps
        return max(start, 0)

    def cuts(self, steps: int, batch: int) -> bool:
        """Whether it takes anything from the gradient of so many steps."""
        return batch > 0 and self.first(steps - 1) > 0

    def kept(self, steps: int) -> int:
        """How many steps of so many, with a loss at each, are kept at a time."""
        return min(steps, self.steps) if self.detach else steps

    @property
    def histories(self) -> int:
        """Arrays like all states that it takes at most beside them: see `_add_lags`."""
        return 0 if self.detach else 6

    def sweeps(self, loss_steps: list[int], steps: int) -> list[tuple[int, int]] | None:
        """Where to sweep, from the first step to behind the last; None if lag by lag is better."""
        if self.detach:
            starts = sorted({self.first(step) for step in loss_steps})
            return [(start, min(start + self.steps, steps)) for start in starts]
        windows = [(self.first(step), step + 1) for step in loss_steps]
        return windows if sum(stop - start for start, stop in windows) <= steps else None


def read_truncation(truncate: object, detach_every: object, rows: RowMap) -> Truncation | None:
    """The two arguments, checked: at most one of them is given, and it goes with `rows`."""
    if truncate is not None and detach_every is not None:
        raise ValueError("truncate: expected either truncate or detach_every, got both")
    for name, value in (("truncate", truncate), ("detach_every", detach_every)):
        if value is not None and not rows.whole:
            raise ValueError(
                f"{name}: expected None, or sequences of one length and without resets, got {value}"
            )
    if truncate is not None:
        return Truncation(checks.size("truncate", truncate, least=0), detach=False)
    if detach_every is not None:
        return Truncation(checks.size("detach_every", detach_every), detach=True)
    return None


def truncated_backward(
    cut: Truncation, recorded: Recorded, incoming: Incoming, request: Request
) -> Grads:
    """Backend.backward, of the terms that `cut` leaves; it cuts something."""
    grads = _to_add_to(recorded.layer, request)
    steps = len(recorded.x)
    dhistory, dstate = incoming.history, incoming.state
    loss_steps = _loss_steps(dhistory, dstate, steps)
    sweeps = cut.sweeps(loss_steps, steps)
    if sweeps is None:
        _add_lags(cut.steps, recorded, _dense(dhistory, dstate, recorded), grads)
        return grads if request.out is None else request.out
    for start, stop in sweeps:
        final = dstate if stop == steps else None
        some: History = tuple(d if d is None else d[start:stop] for d in dhistory)
        if not cut.detach:  # of the losses within the window, the last one alone
            final = _at_step(stop - 1, dhistory, final, recorded)
            some = (None,) * len(dhistory)
        part = _part(grads, start, stop)
        recorded.part(start, stop).add_gradients(Incoming(some, final), part)
    return grads if request.out is None else request.out


def truncated_value_and_grad(
    cut: Truncation,
    backend: Backend,
    layer: Layer,
    objective: Objective,
    request: Request,
    last: State | None = None,
) -> tuple[float, Grads]:
    """Backend.value_and_grad, of the terms that `cut` leaves; it cuts something."""
    grads = _to_add_to(layer, request, readout=True)
    x, state = layer.x, layer.state
    step, after = objective.step, last or tuple(map(np.empty_like, state))
    if step is None and not cut.detach:
        recorded = Recorded(backend, layer)
        loss, dy, of_readout = recorded.readout_gradient(objective)
        incoming = Incoming((dy, *(None for _ in state[1:])))
        truncated_backward(cut, recorded, incoming, Request(grads, True, wanted=present(grads)))
        for name in of_readout.keys() & present(grads):
            getattr(grads, name)[...] += of_readout[name]
        for target, states in zip(after, recorded.after, strict=True):
            target[:] = states[-1]
        return loss, grads if request.out is None else request.out
    # One fused call for each segment, or for the only one that a loss reaches.
    start, end = (0, len(x)) if step is None else (cut.first(step), step + 1)
    state = state_after(backend, replace(layer, x=x[:start]))
    loss = 0.0
    while start < end:
        stop = end if step is not None else min(start + cut.steps, end)
        some = _steps_of(objective, start, stop)
        part = _part(grads, start, stop)
        into = Request(part, True, wanted=present(part))
        segment = replace(layer, x=x[start:stop], state=state)
        loss += backend.value_and_grad(segment, some, into, after)[0]
        state, start = tuple(s.copy() for s in after), stop
    return loss, grads if request.out is None else request.out


def _to_add_to(layer: Layer, request: Request, *, readout: bool = False) -> Grads:
    """The request's arrays or new ones, zero unless they shall accumulate."""
    wanted = request.wanted if readout else request.wanted - {"w_ho", "b_o"}
    if request.out is None:
        likes = {"x": layer.x, **layer.params.arrays()}
        grads = grads_of({name: np.zeros_like(likes[name]) for name in likes.keys() & wanted})
        if "state" in wanted:
            grads.state = as_given(tuple(map(np.zeros_like, layer.state)))
        return grads
    grads = some_of(request.out, wanted)
    for name in () if request.accumulate else present(grads):
        for array in as_tuple(getattr(grads, name)):
            array[...] = 0
    return grads


def _steps_of(objective: Objective, start: int, stop: int) -> Objective:
    """The loss at some steps, the only one among them if there is one."""
    if objective.step is not None:
        return replace(objective, step=objective.step - start)
    weights = objective.weights
    return replace(
        objective,
        target=objective.target[start:stop],
        weights=None if weights is None else weights[start:stop],
    )


def _part(grads: Grads, start: int, stop: int) -> Grads:
    """Those of some steps; what reaches the state before them is not wanted, but for S_0."""
    part = some_of(grads, EVERYTHING - {"state"} if start else EVERYTHING)
    if grads.x is not None:
        part.x = grads.x[start:stop]
    return part


def _loss_steps(dhistory: History, dstate: History | None, steps: int) -> list[int]:
    """The steps at which a gradient comes in."""
    found = np.zeros(steps, bool)
    for d in dhistory:
        if d is not None:
            found |= d.reshape(steps, -1).any(axis=1)
    found[-1] |= dstate is not None
    return [int(step) for step in np.flatnonzero(found)]


def _at_step(step: int, dhistory: History, dstate: History | None, recorded: Recorded) -> State:
    """What comes in at one step, as the gradient of a final state."""
    parts = []
    for n, (d, like) in enumerate(zip(dhistory, recorded.initial, strict=True)):
        part = np.zeros_like(like) if d is None else d[step]
        of_last = None if dstate is None else dstate[n]
        parts.append(part if of_last is None else part + of_last)
    return tuple(parts)


def _dense(dhistory: History, dstate: History | None, recorded: Recorded) -> State:
    """delta^(0), all that comes in at each step, in arrays of its own."""
    parts = tuple(
        np.zeros_like(like) if d is None else d.copy()
        for d, like in zip(dhistory, recorded.after, strict=True)
    )
    for part, d in zip(parts, dstate or (), strict=False):
        if d is not None:
            part[-1] += d
    return parts


def _add_lags(lags: int, recorded: Recorded, incoming: State, into: Grads) -> None:
    """Add the gradients of the lags up to `lags`, of losses at any number of steps."""
    total = tuple(d.copy() for d in incoming)
    delta = incoming
    written = [tuple(map(np.empty_like, incoming)) for _ in range(2)]
    for lag in range(1, lags + 1):
        _, before = recorded.pull_back(delta, weights=False, into=written[lag % 2])
        delta = tuple(d[1:] for d in before)
        for sums, d in zip(total, delta, strict=True):
            sums[: len(d)] += d
    recorded.add_step_gradients(total, into)
