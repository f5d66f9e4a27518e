"""`Schedule`: at which steps of a training to measure, and what that may cost and has cost.

    time spent  <=  1 s + budget · time of training

in which the second is for the beginning. See `Schedule.step` for where the measurements lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .. import checks

__all__ = ["Cost", "Schedule"]

# At most once in so large a part of the steps so far, so that the number of measurements in a
# training of any length stays small.
_SPACING = 1 / 500
_CAUTION = 2  # how much longer than before a measurement may take on a busy machine
# Beyond the budget, in seconds, for measurements at steps that grow geometrically: a short training
# is measured as well, and a long one does not notice.
_ALLOWANCE = 1.0

Found = TypeVar("Found")


@dataclass(frozen=True)
class Cost:
    """One measurement: the step that it was made at, its seconds, those of the training before."""

    step: int
    seconds: float
    trained: float


class Schedule:
    """The steps at which something is measured while a network is trained.

    Its parameters are those of `LagMonitor`, and `growth`: the factor by which the steps of the
    measurements at the start grow from one to the next; `gradual`: whether they do so too where
    `every` is given, until so many steps lie between two of them.

    Attributes
    ----------
    steps : int
        Calls of `step` so far.
    count : int
        Measurements so far.
    last : Cost or None
        The last one.
    spent, trained : float
        Seconds within the calls of `step`, and between them.
    """

    def __init__(
        self,
        every: int | None,
        budget: float,
        clock: Callable[[], float],
        growth: float,
        *,
        gradual: bool = False,
    ) -> None:
        self.every = None if every is None else checks.size("every", every)
        self.budget = checks.finite("budget", budget)
        if self.budget <= 0:
            raise ValueError(f"budget: expected a positive number, got {budget!r}")
        if not callable(clock):
            raise TypeError(f"clock: expected a function, got {type(clock).__name__}")
        self._clock, self._growth, self._gradual = clock, growth, gradual
        self.steps = self.count = 0
        self.last: Cost | None = None
        self.spent = self.trained = 0.0
        self._left: float | None = None  # when the last call returned

    @property
    def overhead(self) -> float:
        """Time spent here over the time between the calls; nan before the second call."""
        return self.spent / self.trained if self.trained else math.nan

    def step(self, measure: Callable[[], Found]) -> Found | None:
        """One step of training: what `measure` returns if a measurement is due, None if not.

        The first step always has one. With `every`, others follow at every so many steps, whatever
        they cost; without, as soon as the budget allows. One that raises an error is due again at
        the next call, which is the same step.
        """
        entered = self._clock()
        if self._left is not None:
            self.trained += entered - self._left
        due, found = self._due(), None
        try:
            if due:
                found = measure()
        finally:
            self._left = self._clock()
            self.spent += self._left - entered
        if due:
            self.last = Cost(self.steps, self._left - entered, self.trained)
            self.count += 1
        self.steps += 1
        return found

    def _due(self) -> bool:
        if self.last is None:
            return True
        since = self.steps - self.last.step
        if self.every is not None:
            grown = self._gradual and self._has_grown(since, self.last)
            return grown or since >= self.every
        return self._early(since, self.last) or self._within_budget(since, self.last)

    def _early(self, since: int, last: Cost) -> bool:
        """Whether the steps have grown enough, and the allowance has room for one more."""
        trained = self.trained - last.trained >= last.seconds
        affordable = self.spent + last.seconds <= _ALLOWANCE + self.budget * self.trained
        return self._has_grown(since, last) and trained and affordable

    def _has_grown(self, since: int, last: Cost) -> bool:
        return since >= max(1.0, (self._growth - 1) * last.step)

    def _within_budget(self, since: int, last: Cost) -> bool:
        paid_for = last.seconds <= self.budget * (self.trained - last.trained)
        # The first one takes longer than those that follow, and says little of them.
        expected = _CAUTION * last.seconds if self.count > 1 else 0.0
        affordable = self.spent + expected <= self.budget * self.trained
        return paid_for and affordable and since >= _SPACING * self.steps
