"""Training through `bptt.value_and_grad`: minibatches, clipping by the global norm, Adam."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import bptt
from bptt.checks import Array

from .digits import Digits
from .plan import Settings

__all__ = ["Adam", "TrainingStep", "accuracy", "global_norm", "steps_per_epoch", "train"]


@dataclass(frozen=True)
class TrainingStep:
    """What one step of the optimiser saw.

    Attributes
    ----------
    loss : float
        Mean cross-entropy of the minibatch before the step, in nats.
    norm : float
        Norm of the whole gradient before clipping.
    epoch_ends : bool
        Whether every training image has been seen once more.
    """

    loss: float
    norm: float
    epoch_ends: bool


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


def steps_per_epoch(data: Digits, settings: Settings) -> int:
    """Full minibatches in the training images."""
    return len(data.y_train) // settings.batch_size


def train(
    cell: str, params: bptt.Params, data: Digits, settings: Settings
) -> Iterator[TrainingStep]:
    """Train `params` in place, yielding after every step; stop iterating to stop training.

    The learning rate falls to zero along half a cosine (Loshchilov & Hutter 2017). A gradient
    that is not finite is reported but not applied.
    """
    order = np.random.default_rng(settings.seed)
    adam = Adam(params)
    per_epoch = steps_per_epoch(data, settings)
    total = settings.epochs * per_epoch
    for step in range(total):
        at = step % per_epoch
        if at == 0:
            images = order.permutation(len(data.y_train))
        rows = images[at * settings.batch_size : (at + 1) * settings.batch_size]
        loss, grads = bptt.value_and_grad(
            cell,
            params,
            data.x_train.take(rows, axis=1),
            data.y_train[rows],
            loss="cross_entropy",
            at="last",
            backend=settings.backend,
        )
        arrays = grads.arrays()
        norm = global_norm(arrays)
        if math.isfinite(norm):
            shrink = np.float32(min(1.0, settings.clip_norm / max(norm, 1e-30)))
            rate = settings.learning_rate * (1 + math.cos(math.pi * step / total)) / 2
            adam.update({name: g * shrink for name, g in arrays.items()}, rate)
        yield TrainingStep(loss, norm, at == per_epoch - 1)


def accuracy(params: bptt.Params, last: Array, labels: Array) -> float:
    """Share of the rows of `last` (B, H), the last states, whose largest output is the label."""
    assert params.w_ho is not None
    assert params.b_o is not None
    chosen = np.argmax(last @ params.w_ho.T + params.b_o, axis=1)
    return float(np.mean(chosen == labels))
