"""`Probe`: the lags of a network's gradient, measured at some steps of its training."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np

from .. import checks
from ..backends import REGISTRY
from ..checks import Array
from ..initial import Seed, generator_of
from .gradients import measured
from .question import Question
from .result import LagGradients
from .schedule import Schedule

__all__ = ["Probe"]


class Probe(ABC):
    """What `LagMonitor`, which describes the parameters, and `AdaptiveHorizon` have in common."""

    _growth: ClassVar[float]  # of the steps at the start
    _gradual: ClassVar[bool] = False  # whether they grow so up to `every`, too

    def __init__(
        self,
        *,
        every: int | None = None,
        budget: float = 0.03,
        sample: int | None = None,
        backend: str = "auto",
        rng: Seed = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._schedule = Schedule(every, budget, clock, self._growth, gradual=self._gradual)
        self._sample = None if sample is None else checks.size("sample", sample)
        self._backend = checks.choice("backend", backend, ("auto", *REGISTRY))
        self._rng = generator_of(rng)

    @property
    def every(self) -> int | None:
        return self._schedule.every

    @property
    def budget(self) -> float:
        return self._schedule.budget

    @property
    def steps(self) -> int:
        """Steps of training so far."""
        return self._schedule.steps

    @property
    def overhead(self) -> float:
        """Time spent here over the time between the calls; nan before the second call."""
        return self._schedule.overhead

    @abstractmethod
    def _narrowed(self, question: Question) -> Question:
        """The question about the lags that are measured."""

    def _step(self, ask: Callable[[], Question]) -> LagGradients | None:
        """One step of training: what was measured, or None. `ask` is only called if that is due."""
        return self._schedule.step(lambda: self._measure(ask()))

    def _measure(self, question: Question) -> LagGradients:
        question = question.as_dense()
        x = checks.as_array("x", question.x)
        checks.expect_shape("x", x, ("T", "B", "I"))
        asked = self._narrowed(self._drawn(replace(question, x=x, backend=self._backend)))
        with warnings.catch_warnings():
            # Of a term that overflows, and of Ctrl-C: the result says both.
            warnings.simplefilter("ignore", RuntimeWarning)
            found = measured(asked)
        if not found.complete:
            raise KeyboardInterrupt  # the training is to stop, not this measurement alone
        return found

    def _drawn(self, question: Question) -> Question:
        """The question about the sequences that are measured."""
        batch = question.x.shape[1]
        if self._sample is None or batch <= self._sample:
            return question
        rows = _with_a_loss(question, batch)
        if len(rows) > self._sample:
            rows = np.sort(self._rng.choice(rows, self._sample, replace=False))
        return question.of_sequences(rows)


def _with_a_loss(question: Question, batch: int) -> Array:
    """The sequences of a batch that have a loss: not those of weight 0 throughout."""
    every = np.arange(batch)
    if not question.weighted:
        return every
    weights = checks.as_array("at", question.at)
    if weights.ndim != 2 or weights.shape[1] != batch or not weights.any():
        return every  # the error is `lag_gradients`'s
    return np.flatnonzero(weights.any(axis=0))
