"""Training through `bptt.value_and_grad`: minibatches, clipping by the global norm, Adam."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np

import bptt
from bptt.checks import Array

from .network import Course, Network
from .run import Run
from .tasks import Task

MONITORED = 16  # sequences of a minibatch on which the horizon is followed


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1), updating the arrays of `params` in place."""

    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

    def __init__(self, params: bptt.Params) -> None:
        self._arrays = params.arrays()
        self._m = {name: np.zeros_like(w) for name, w in self._arrays.items()}
        self._v = {name: np.zeros_like(w) for name, w in self._arrays.items()}
        self._steps = 0

    def update(self, grads: dict[str, Array], rate: float) -> None:
        """One step of size `rate` against `grads`, which are named as in `bptt.Params`."""
        self._steps += 1
        correct1, correct2 = 1 - self.BETA1**self._steps, 1 - self.BETA2**self._steps
        for name, w in self._arrays.items():
            m, v, g = self._m[name], self._v[name], grads[name]
            m += (1 - self.BETA1) * (g - m)
            v += (1 - self.BETA2) * (g * g - v)
            w -= rate / correct1 * m / (np.sqrt(v / correct2) + self.EPS)


def global_norm(grads: dict[str, Array]) -> float:
    """Norm of all gradients as one vector; float64, so that exploding ones do not overflow."""
    return math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in grads.values()))


def optimise(
    network: Network, task: Task, monitor: bptt.LagMonitor | None = None
) -> Iterator[tuple[float, float]]:
    """Train its parameters in place; after every step the loss before it, and the gradient's norm.

    The learning rate falls to zero along half a cosine (Loshchilov & Hutter 2017). A gradient
    that is not finite is reported but not applied; the norm is that before clipping.
    """
    cell, params, steps = network.cell, network.params, task.training_steps
    adam = Adam(params)
    for step, (x, target) in enumerate(islice(task.batches(network.steps), steps)):
        if monitor is not None:
            monitor.step(cell, params, x, target, loss=network.loss, at=network.at)
        value, grads = bptt.value_and_grad(
            cell, params, x, target, loss=network.loss, at=network.at, backend=task.backend
        )
        arrays = grads.arrays()
        norm = global_norm(arrays)
        if math.isfinite(norm):
            shrink = np.float32(min(1.0, task.clip_norm / max(norm, 1e-30)))
            rate = network.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            adam.update({name: g * shrink for name, g in arrays.items()}, rate)
        yield value, norm


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's products on one thread: its others spin after each for as long as tens of steps take,
    on the processors that these need."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"):
        yield


@one_blas_thread()
def train(network: Network, task: Task, run: Run, *, monitored: bool, evaluated: bool) -> None:
    """Train it in place, to the end unless the run is stopping; its `course` tells how it went.

    `monitored` follows the horizon, `evaluated` looks at the held-out sequences meanwhile.
    """
    network.course = course = Course()
    monitor = None
    if monitored:
        monitor = bptt.LagMonitor(sample=MONITORED, backend=task.backend, rng=task.seed)
        network.monitor = monitor
    if evaluated:
        course.add_evaluation(task.evaluate(network))
    began = time.perf_counter()
    for loss, norm in optimise(network, task, monitor):
        course.loss.append(loss)
        course.norm.append(norm)
        if evaluated and course.steps % task.steps_per_evaluation == 0:
            course.seconds.append(time.perf_counter() - began)
            course.add_evaluation(task.evaluate(network))
            began = time.perf_counter()
        scores = {"loss": course.recent_loss(task.steps_per_evaluation), **course.last}
        run.bar.set_postfix(scores, refresh=False)
        run.bar.update()
        if run.stopping:
            break
    if evaluated and course.evaluated[-1] < course.steps:
        course.add_evaluation(task.evaluate(network))
    network.finished = course.steps == task.training_steps
