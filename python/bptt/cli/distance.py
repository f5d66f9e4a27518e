"""The measurement behind the demo: the gradient of a loss at one step, resolved by distance.

For a loss at the last step t of a sequence, the text's sum is

    dL_t/dW_s = sum_{k=1..t} dL_t/dO_t · dO_t/dS_t · ( prod_{j=k+1..t} dS_j/dS_{j-1} ) · dS_k/dW_s

`gradient_by_distance` computes every term of it, `gradient_by_loss_step` what becomes of the
oldest term when the loss moves away, and `far_over_near` one number for both ends. They walk the
sequence in segments with the public `bptt.forward` and ``Tape.backward``: the segment that is
step k alone, given dL/dS_k, returns the term of step k as its ``w_hh`` gradient and dL/dS_{k-1} as
its ``state`` gradient. This module is the only place that knows how the figures are measured.

The state of an LSTM is the pair S_k = (h_k, c_k), and dL/dS_k the pair of both gradients: its norm
is that of the two as one vector. The last one is (dL/dh_t, 0), since the readout reads h alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import bptt
from bptt.checks import Array

__all__ = [
    "ByDistance",
    "ByLossStep",
    "far_over_near",
    "gradient_by_distance",
    "gradient_by_loss_step",
]

# One (B, H) array, or the pair (h, c) of an LSTM.
State = Any


@dataclass(frozen=True, eq=False)
class ByDistance:
    """The gradient of a loss at the last of T steps; index d of an array is the distance t - k.

    Attributes
    ----------
    state : (T,)
        Median over the sequences of ||dL/dS_k||, each one's own loss, by unit of state.
    state_low, state_high : (T,)
        Its 10th and 90th percentile over the sequences.
    relative : (T,)
        Median over the sequences of ||dL/dS_k|| / ||dL/dS_T||.
    w_hh : (T,)
        Frobenius norm of the term of step k in dL/dW_s, L being the mean loss of the sequences. The
        last entry is zero: it multiplies S_0 = 0.
    w_hh_error : (T,)
        || sum of the terms up to distance d  -  dL/dW_s || / || dL/dW_s ||.
    w_hh_whole : float
        ||dL/dW_s||, the norm of the whole sum.
    w_ho : float
        ||dL/dW_o||, a single term without a product.
    check : float
        Relative difference between the sum of all terms and the gradient that
        `bptt.value_and_grad` returns: rounding, if the measurement is right.
    """

    state: Array
    state_low: Array
    state_high: Array
    relative: Array
    w_hh: Array
    w_hh_error: Array
    w_hh_whole: float
    w_ho: float
    check: float


@dataclass(frozen=True, eq=False)
class ByLossStep:
    """What becomes of two gradients when the loss is read at other steps t.

    Attributes
    ----------
    step : (N,)
        The steps t of the loss, counted from one; at least 2.
    oldest : (N,)
        Norm of the oldest term of dL_t/dW_s that is not zero, that of step k = 2: a product of
        t - 2 Jacobians.
    w_ho : (N,)
        ||dL_t/dW_o||: no product, whatever t.
    state : (N,)
        Root mean square over the sequences of ||S_t||, which dL_t/dW_o is proportional to.
    """

    step: Array
    oldest: Array
    w_ho: Array
    state: Array


def far_over_near(
    cell: str,
    params: bptt.Params,
    tape: bptt.Tape,
    x: Array,
    target: Array,
    *,
    backend: str = "auto",
) -> float:
    """Median over the sequences of ||dL/dS_1|| / ||dL/dS_T||, given the tape of x (T, B, I).

    A single number for how far back the gradient reaches, cheap enough to follow in training:
    one pass over steps 2..T, and none of their terms.
    """
    near = _gradient_at_state(cell, params, tape.y[-1], target, backend)
    with bptt.forward(cell, params, x[1:], _state(tape, 0), backend=backend) as rest:
        far = rest.backward(dstate=near).state
    return float(_median_ratio(_norm(far), _norm(near)))


def gradient_by_distance(
    cell: str,
    params: bptt.Params,
    x: Array,
    target: Array,
    *,
    loss: str = "cross_entropy",
    backend: str = "auto",
) -> ByDistance:
    """Every term of dL/dW_s for the mean loss at the last step of x (T, B, I).

    It is computed in float64, so that terms many decades apart are exact in the figures.
    """
    params, x = params.astype("float64"), x.astype("float64")
    if target.dtype.kind == "f":  # not the ids of classes
        target = target.astype("float64")
    tape = bptt.forward(cell, params, x, backend=backend)
    steps, batch, _ = x.shape
    ds = _gradient_at_state(cell, params, tape.y[-1], target, backend, loss)
    norms = np.empty((steps, batch))
    terms = np.empty((steps, *params.w_hh.shape))
    for distance in range(steps):
        norms[distance] = _norm(ds)
        terms[distance], ds = _step_back(params, x, tape, steps - 1 - distance, ds)
    partial = np.cumsum(terms, axis=0)
    _, grads = bptt.value_and_grad(cell, params, x, target, loss=loss, at="last", backend=backend)
    whole = np.linalg.norm(grads.w_hh)
    low, median, high = np.percentile(norms, (10, 50, 90), axis=1)
    return ByDistance(
        state=median,
        state_low=low,
        state_high=high,
        relative=_median_ratio(norms, norms[0]),
        w_hh=np.linalg.norm(terms, axis=(1, 2)),
        w_hh_error=np.linalg.norm(partial - grads.w_hh, axis=(1, 2)) / whole,
        w_hh_whole=float(whole),
        w_ho=float(np.linalg.norm(grads.w_ho)),  # type: ignore[arg-type]
        check=float(np.linalg.norm(partial[-1] - grads.w_hh) / whole),
    )


def gradient_by_loss_step(
    cell: str,
    params: bptt.Params,
    x: Array,
    target: Array,
    *,
    loss_steps: Array,
    backend: str = "auto",
) -> ByLossStep:
    """The oldest term of dL_t/dW_s, and dL_t/dW_o, for the loss at each t of `loss_steps`."""
    params, x = params.astype("float64"), x.astype("float64")
    tape = bptt.forward(cell, params, x, backend=backend)
    oldest, w_ho = np.empty(len(loss_steps)), np.empty(len(loss_steps))
    for n, t in enumerate(loss_steps):
        # The last step alone for W_o, and steps 3..t for dL_t/dS_2.
        _, last = bptt.value_and_grad(
            cell,
            params,
            x[t - 1 : t],
            target,
            loss="cross_entropy",
            at="last",
            state=_state(tape, t - 2),
            backend=backend,
        )
        w_ho[n] = np.linalg.norm(last.w_ho)  # type: ignore[arg-type]
        ds = _gradient_at_state(cell, params, tape.y[t - 1], target, backend)
        with bptt.forward(cell, params, x[2:t], _state(tape, 1), backend=backend) as segment:
            ds = segment.backward(dstate=ds).state
        oldest[n] = np.linalg.norm(_step_back(params, x, tape, 1, ds)[0])
    state = np.sqrt(np.mean(np.sum(tape.y[loss_steps - 1] ** 2, axis=2), axis=1))
    return ByLossStep(step=loss_steps, oldest=oldest, w_ho=w_ho, state=state)


def _gradient_at_state(
    cell: str,
    params: bptt.Params,
    h: Array,
    target: Array,
    backend: str,
    loss: str = "cross_entropy",
) -> State:
    """dL/dS of each sequence's own loss, read from the hidden state `h` (B, H): dL/dO · dO/dS.

    It is the ``state`` gradient of one step of the identity network, whose Jacobian is one.
    """
    hidden, dtype = params.hidden_size, params.dtype
    identity = bptt.Params(
        np.zeros((hidden, 1), dtype), np.eye(hidden, dtype=dtype), w_ho=params.w_ho, b_o=params.b_o
    )
    nothing = np.zeros((1, len(h), 1), dtype)
    _, grads = bptt.value_and_grad(
        "linear",
        identity,
        nothing,
        target,
        loss=loss,
        at="last",
        reduction="sum",
        state=h,
        backend=backend,
    )
    dh = grads.state
    return (dh, np.zeros_like(dh)) if _has_memory(cell) else dh


def _state(tape: bptt.Tape, index: int) -> State:
    """The state after step `index`, counted from zero."""
    return (tape.y[index], tape.c[index]) if _has_memory(tape.cell) else tape.y[index]


def _has_memory(cell: str) -> bool:
    """Whether a state has the part c beside h."""
    return len(bptt.CELLS[cell].states) > 1


def _norm(ds: State) -> Array:
    """(B,), for each sequence the norm of its gradient, with all parts of the state as one."""
    whole = np.hstack(ds) if isinstance(ds, tuple) else ds
    return np.asarray(np.linalg.norm(whole.astype("float64"), axis=1))


def _median_ratio(norms: Array, to: Array) -> Array:
    """Median of norms (..., B) / to (B,), without sequences whose gradient is rounded to zero."""
    held = to > 0
    if not held.any():
        return np.full(norms.shape[:-1], np.nan)
    return np.asarray(np.median(norms[..., held] / to[held], axis=-1))


def _step_back(
    params: bptt.Params, x: Array, tape: bptt.Tape, index: int, ds: State
) -> tuple[Array, State]:
    """Step `index` of the tape, alone: its term of the mean dL/dW_s, and dL/dS before it."""
    before = _state(tape, index - 1) if index > 0 else None
    step = x[index : index + 1]
    with bptt.forward(tape.cell, params, step, before, backend=tape.backend) as segment:
        grads = segment.backward(dstate=ds)
    return grads.w_hh / x.shape[1], grads.state
