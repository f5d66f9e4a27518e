"""The measurement behind the demo: the gradient of a loss at one step, resolved by distance.

For a loss at the last step t of a sequence, the text's sum is

    dL_t/dW_s = sum_{k=1..t} dL_t/dO_t · dO_t/dS_t · ( prod_{j=k+1..t} dS_j/dS_{j-1} ) · dS_k/dW_s

and `bptt.lag_gradients` has each term of it, by the lag t - k. The functions here ask for what the
demo's figures show: `gradient_by_distance` for all terms, `gradient_by_loss_step` for what becomes
of the oldest term when the loss moves away, and `far_over_near` for one number of both ends.

The state of an LSTM is the pair S_k = (h_k, c_k), and dL/dS_k the pair of both gradients: its norm
is that of the two as one vector. The last one is (dL/dh_t, 0), since the readout reads h alone.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        ``LagGradients.check``: the relative difference between the sum of all terms and the
        gradient, which is rounding if the measurement is right.
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
    loss, last = "cross_entropy", _state(tape, len(x) - 2)
    (near,) = _norms_by_sequence(cell, params, x[-1:], target, loss, backend, last)
    _, grads = bptt.value_and_grad(
        cell,
        params,
        x[1:],
        target,
        loss=loss,
        at="last",
        reduction="sum",
        state=_state(tape, 0),
        backend=backend,
    )
    parts = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    return float(_median_ratio(_norm(parts), near))


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
    found = bptt.lag_gradients(cell, params, x, target, loss=loss, at="last", backend=backend)
    norms = np.array(list(_norms_by_sequence(cell, params, x, target, loss, backend)))
    low, median, high = np.percentile(norms, (10, 50, 90), axis=1)
    return ByDistance(
        state=median,
        state_low=low,
        state_high=high,
        relative=_median_ratio(norms, norms[0]),
        w_hh=found.norm["w_hh"],
        w_hh_error=found.error["w_hh"],
        w_hh_whole=float(np.linalg.norm(found.total["w_hh"])),
        w_ho=float(np.linalg.norm(found.total["w_ho"])),
        check=found.check,
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
    oldest, w_ho = np.empty(len(loss_steps)), np.empty(len(loss_steps))
    for n, t in enumerate(loss_steps.tolist()):
        found = bptt.lag_gradients(
            cell,
            params,
            x,
            target,
            loss="cross_entropy",
            at=t - 1,  # steps of the text are counted from one
            lags=[t - 2],
            backend=backend,
        )
        oldest[n] = found.norm["w_hh"][0]
        w_ho[n] = np.linalg.norm(found.total["w_ho"])
    y = bptt.forward(cell, params, x, backend=backend).y
    state = np.sqrt(np.mean(np.sum(y[loss_steps - 1] ** 2, axis=2), axis=1))
    return ByLossStep(step=loss_steps, oldest=oldest, w_ho=w_ho, state=state)


def _norms_by_sequence(
    cell: str,
    params: bptt.Params,
    x: Array,
    target: Array,
    loss: str,
    backend: str,
    state: Any = None,
) -> Iterator[Array]:
    """(B,) for each lag: ||dL/dS_k|| of each sequence's own loss at the last step."""
    terms = bptt.lag_terms(
        cell,
        params,
        x,
        target,
        loss=loss,
        at="last",
        reduction="sum",  # no sequence's loss is divided by their number
        state=state,
        backend=backend,
    )
    return (_norm(tuple(part[0] for part in term.dstates)) for term in terms)


def _norm(ds: tuple[Array, ...]) -> Array:
    """(B,), for each sequence the norm of its gradient, with all parts of the state as one."""
    return np.asarray(np.linalg.norm(np.hstack(ds).astype("float64"), axis=1))


def _state(tape: bptt.Tape, index: int) -> Any:
    """The state after step `index`, counted from zero."""
    has_memory = len(bptt.CELLS[tape.cell].states) > 1
    return (tape.y[index], tape.c[index]) if has_memory else tape.y[index]


def _median_ratio(norms: Array, to: Array) -> Array:
    """Median of norms (..., B) / to (B,), without sequences whose gradient is rounded to zero."""
    held = to > 0
    if not held.any():
        return np.full(norms.shape[:-1], np.nan)
    return np.asarray(np.median(norms[..., held] / to[held], axis=-1))
