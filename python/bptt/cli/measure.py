"""What the commands measure of a network: by `bptt.lag_gradients`, each for its own figures.

The state of an LSTM is the pair S_k = (h_k, c_k), and dL/dS_k the pair of both gradients: its norm
is that of the two as one vector. The last one is (dL/dh_t, 0), since the readout reads h alone.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

import bptt
from bptt.checks import Array

from .network import Moment, Network

# --- the demo: by distance from a loss at the last step


def measure_moment(network: Network, backend: str = "auto") -> Moment:
    """The network as it is now, with the loss at the last step."""
    question = network.question
    found = bptt.lag_gradients(*question, loss=network.loss, at="last", backend=backend)
    norms = _norms_by_sequence(question, loss=network.loss, backend=backend)
    low, median, high = np.percentile(norms, (10, 50, 90), axis=1)
    gate, product = None, None
    if network.gated:
        gates = memory_gate(*question[:3], backend=backend)
        gate, product = float(gates.mean()), float(gates[1:].prod(axis=0).mean())
    return Moment(
        radius=_spectral_radius(question[1]),
        gate=gate,
        gate_product=product,
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


def measure_loss_steps(
    network: Network, steps: Sequence[int], backend: str = "auto"
) -> dict[str, Array]:
    """What becomes of two gradients when the loss is read at other steps t.

    Returns
    -------
    dict of (N,)
        step: the `steps` t, counted from one; at least 2.
        oldest: norm of the oldest term of dL_t/dW_s that is not zero, that of step k = 2, a product
        of t - 2 Jacobians.
        w_ho: ||dL_t/dW_o||, no product, whatever t.
        state: root mean square over the sequences of ||S_t||, to which w_ho is proportional.
    """
    question = network.question
    asked: Any = {"loss": network.loss, "backend": backend}
    found = [bptt.lag_gradients(*question, at=t - 1, lags=[t - 2], **asked) for t in steps]
    y = bptt.forward(*question[:3], backend=backend).y[np.array(steps) - 1]
    return {
        "step": np.array(steps),
        "oldest": np.array([lags.norm["w_hh"][0] for lags in found]),
        "w_ho": np.array([np.linalg.norm(lags.total["w_ho"]) for lags in found]),
        "state": np.sqrt(np.mean(np.sum(y**2, axis=2), axis=1)),
    }


def far_over_near(network: Network, backend: str = "auto") -> float:
    """Median over the sequences of ||dL/dS_1|| / ||dL/dS_T||, in the dtype of x.

    A single number for how far back the gradient reaches, cheap enough to follow in training.
    """
    question = network.cell, network.params, network.x, network.target
    ends = sorted({0, network.steps - 1})
    norms = _norms_by_sequence(question, loss=network.loss, backend=backend, lags=ends)
    return float(_median_ratio(norms[-1], norms[0]))


def memory_gate(cell: str, params: bptt.Params, x: Array, *, backend: str = "auto") -> Array:
    """(T, B, H), the gate that keeps the memory of a gated cell at every step."""
    kind, y = bptt.CELLS[cell], bptt.forward(cell, params, x, backend=backend).y
    assert kind.keeps is not None
    gate = kind.gate_names.index(kind.keeps)
    w_ih, w_hh, b_ih, b_hh = (
        np.split(params.arrays()[name], kind.gates)[gate]
        for name in ("w_ih", "w_hh", "b_ih", "b_hh")
    )
    before = np.concatenate((np.zeros_like(y[:1]), y[:-1]))
    return np.asarray(1 / (1 + np.exp(-(x @ w_ih.T + before @ w_hh.T + b_ih + b_hh))))


def _norms_by_sequence(question: tuple[Any, ...], **asked: Any) -> Array:
    """(L, B), for each lag ||dL/dS_k|| of each sequence's own loss at the last step."""
    # With the sum, no sequence's loss is divided by their number.
    terms = bptt.lag_terms(*question, at="last", reduction="sum", **asked)
    states = (np.hstack([part[0] for part in term.dstates]) for term in terms)
    return np.array([np.linalg.norm(state.astype("float64"), axis=1) for state in states])


def _median_ratio(norms: Array, to: Array) -> Array:
    """Median of norms (..., B) / to (B,), without sequences whose gradient is rounded to zero."""
    held = to > 0
    if not held.any():
        return np.full(norms.shape[:-1], np.nan)
    return np.asarray(np.median(norms[..., held] / to[held], axis=-1))


def _spectral_radius(params: bptt.Params) -> float:
    """Largest modulus of the eigenvalues of W_s, of all gates."""
    hidden = params.hidden_size
    gates = params.w_hh.astype("float64").reshape(-1, hidden, hidden)
    return float(np.abs(np.linalg.eigvals(gates)).max())


# --- bptt lags

# All exponents of a large state on all sequences would take longer than everything else.
_MOST_EXPONENTS, _SEQUENCES = 128, 16


@dataclass(frozen=True)
class Options:
    """What `bptt.lag_gradients` is asked for, of each network."""

    seed: int = 0
    backend: str = "auto"
    max_lag: int | None = None
    lags: tuple[int, ...] | None = None
    sample: int | None = None


def check(network: Network, options: Options) -> None:
    """Raise what `measure_lags` would raise of wrong arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        bptt.lag_terms(*network.question, **_asked(network, options))


def measure_lags(network: Network, options: Options) -> None:
    """Add to `network` what is measured, under the names that it has there.

    Ctrl-C ends it with what is done, if that is one lag or more, and the network is not finished.
    """
    try:
        for name, measurement in _measurements(network, options):
            with warnings.catch_warnings():  # of overflow and Ctrl-C the result tells
                warnings.simplefilter("ignore", RuntimeWarning)
                found = measurement(progress=sys.stderr.isatty())
            setattr(network, name, found)
            if not found.complete:
                network.finished = False
                break
    except KeyboardInterrupt:
        if not hasattr(network, "lags"):
            raise
        network.finished = False
    if not hasattr(network, "every_step"):
        network.every_step = network.lags


def _measurements(network: Network, options: Options) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each with its name."""
    question, asked = network.question, _asked(network, options)
    cell, params, x, target = question
    yield "lags", partial(bptt.lag_gradients, *question, **asked)
    if network.at != "all":
        everywhere = np.ascontiguousarray(np.broadcast_to(target, (len(x), *target.shape)))
        all_steps = (cell, params, x, everywhere)
        yield ("every_step", partial(bptt.lag_gradients, *all_steps, **{**asked, "at": "all"}))
    if network.gated:
        for route in ("direct", "recurrent"):
            yield route, partial(bptt.lag_gradients, *question, **asked, route=route)
    if network.steps > 1:
        size = len(bptt.CELLS[cell].states) * network.hidden_size
        some = _whole_sequences(network, x)
        of_state: Any = {"k": min(size, _MOST_EXPONENTS), "rng": options.seed}
        of_state["backend"] = options.backend
        yield ("lyapunov", partial(bptt.lyapunov_exponents, cell, params, some, **of_state))


def _whole_sequences(network: Network, x: Array) -> Array:
    """Some that have all steps of x, or of the longest one."""
    if network.lengths is not None:
        steps = int(network.lengths.max())
        x = x[:steps, network.lengths == steps]
    return np.ascontiguousarray(x[:, :_SEQUENCES])


def _asked(network: Network, options: Options) -> dict[str, Any]:
    asked = {**asdict(options), "loss": network.loss, "at": network.at}
    if network.lengths is not None:
        asked["lengths"] = network.lengths
    return {"rng": asked.pop("seed"), **asked}
