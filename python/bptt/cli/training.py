"""Training through `bptt.value_and_grad`: minibatches, clipping by the global norm, Adam."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

import bptt
from bptt.checks import Array

__all__ = ["MONITORED", "Adam", "TrainingStep", "accuracy", "global_norm", "read_out", "train"]

MONITORED = 16  # sequences of a minibatch on which the horizon is followed


@dataclass(frozen=True)
class TrainingStep:
    """What one step of the optimiser saw.

    Attributes
    ----------
    loss : float
        Mean loss of the minibatch before the step.
    norm : float
        Norm of the whole gradient before clipping.
    """

    loss: float
    norm: float


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1), updating the arrays of `params` in place."""

    def __init__(
        self, params: bptt.Params, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self._arrays = params.arrays()
        self._m = {name: np.zeros_like(w) for name, w in self._arrays.items()}
        self._v = {name: np.zeros_like(w) for name, w in self._arrays.items()}
        self._beta1, self._beta2, self._eps = beta1, beta2, eps
        self._steps = 0

    def update(self, grads: dict[str, Array], rate: float) -> None:
        """One step of size `rate` against `grads`, which are named as in `bptt.Params`."""
        self._steps += 1
        correct1 = 1 - self._beta1**self._steps
        correct2 = 1 - self._beta2**self._steps
        for name, w in self._arrays.items():
            m, v, g = self._m[name], self._v[name], grads[name]
            m += (1 - self._beta1) * (g - m)
            v += (1 - self._beta2) * (g * g - v)
            w -= rate / correct1 * m / (np.sqrt(v / correct2) + self._eps)


def global_norm(grads: dict[str, Array]) -> float:
    """Norm of all gradients as one vector; float64, so that exploding ones do not overflow."""
    return math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in grads.values()))


def train(
    cell: str,
    params: bptt.Params,
    batches: Iterable[tuple[Array, Array]],
    *,
    loss: str,
    steps: int,
    learning_rate: float,
    clip_norm: float,
    backend: str = "auto",
    monitor: bptt.LagMonitor | None = None,
) -> Iterator[TrainingStep]:
    """Train `params` in place, yielding after every step; stop iterating to stop training.

    `batches` gives x and target of each step; the loss is read at the last step of a sequence.
    The learning rate falls to zero along half a cosine (Loshchilov & Hutter 2017). A gradient
    that is not finite is reported but not applied. `monitor` looks on.
    """
    adam = Adam(params)
    for step, (x, target) in enumerate(islice(batches, steps)):
        if monitor is not None:
            monitor.step(cell, params, x, target, loss=loss, at="last")
        value, grads = bptt.value_and_grad(
            cell, params, x, target, loss=loss, at="last", backend=backend
        )
        arrays = grads.arrays()
        norm = global_norm(arrays)
        if math.isfinite(norm):
            shrink = np.float32(min(1.0, clip_norm / max(norm, 1e-30)))
            rate = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            adam.update({name: g * shrink for name, g in arrays.items()}, rate)
        yield TrainingStep(value, norm)


def read_out(params: bptt.Params, last: Array) -> Array:
    """(B, O), the outputs W_o S + b_2 of the states `last` (B, H)."""
    assert params.w_ho is not None
    assert params.b_o is not None
    return np.asarray(last @ params.w_ho.T + params.b_o)


def accuracy(params: bptt.Params, last: Array, labels: Array) -> float:
    """Share of the rows of `last` (B, H), the last states, whose largest output is the label."""
    return float(np.mean(np.argmax(read_out(params, last), axis=1) == labels))
