"""How much of a pass is kept at a time, for a limit on its memory.

A pass that may not keep all its states keeps those of a segment of time, and at each border of
segments the state before it; on the way back each segment is computed again from its border. T
steps in segments of K cost K + T / K states and one more forward pass. If that is still too much,
borders are kept of groups of G segments and of the segments of one group, K + G + T / (K G) states
and two more forward passes (Griewank and Walther, 2000, ACM TOMS 26(1), algorithm 799, has the
general case).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from . import checks
from .checks import Array

__all__ = [
    "WHOLE",
    "Budget",
    "Segments",
    "budget_for",
    "from_the_last",
    "read_budget",
    "segments_of",
]


@dataclass(frozen=True)
class Budget:
    """What is kept of a pass.

    Attributes
    ----------
    segment_steps : int
        Steps of a segment, at least; 0 if all states are kept.
    group_segments : int
        Segments of a group; 0 if all are one group.
    """

    segment_steps: int = 0
    group_segments: int = 0


WHOLE = Budget()

# What is kept at a border.
At = TypeVar("At")

# The bytes that a call would hold with a budget.
Held = Callable[[Budget], int]


def read_budget(memory_limit: object, checkpoint_every: object) -> tuple[int | None, Budget]:
    """Check the two keywords, of which one may be given: the limit in bytes, or the budget."""
    if memory_limit is not None and checkpoint_every is not None:
        raise ValueError("memory_limit, checkpoint_every: expected one of them, got both")
    if checkpoint_every is not None:
        return None, Budget(checks.size("checkpoint_every", checkpoint_every))
    if memory_limit is None:
        return None, WHOLE
    return checks.size("memory_limit", memory_limit), WHOLE


@dataclass(frozen=True)
class Segments:
    """How a pass is cut.

    Attributes
    ----------
    begins : (segments + 1,) int64
        The first step of each, and the end.
    group : int
        Segments of a group.
    """

    begins: Array
    group: int

    @property
    def count(self) -> int:
        return len(self.begins) - 1

    @property
    def borders(self) -> int:
        """How many are kept at a time: of all groups, and of the segments of one."""
        return -(-self.count // self.group) + self.group

    def most_rows(self, batch: int, offsets: Array | None) -> int:
        """Of a segment, of so many rows a step or of those that `offsets` tell."""
        rows = self.begins * batch if offsets is None else offsets[self.begins]
        return int(np.diff(rows).max(initial=0))


def segments_of(budget: Budget, borders: Array) -> Segments:
    """Segments of at least as many steps as the budget has, from one of `borders` to another."""
    begins = borders[[0, -1]]
    if budget.segment_steps:
        steps = np.diff(borders)
        if len(steps) and (steps[:-1] == steps[0]).all():  # but the last one is as long
            begins = borders[:: -(-budget.segment_steps // int(steps[0]))]
        else:
            begins = _spaced(borders, budget.segment_steps)
        if len(begins) < 2 or begins[-1] != borders[-1]:
            begins = np.append(begins, borders[-1])
    count = max(1, len(begins) - 1)
    return Segments(begins, min(budget.group_segments or count, count))


def _spaced(borders: Array, steps: int) -> Array:
    """Those that are so many steps apart, or more."""
    at = [0]
    while (later := int(np.searchsorted(borders, borders[at[-1]] + steps))) < len(borders):
        at.append(later)
    found: Array = borders[at]
    return found


def from_the_last(
    segments: Segments, first: At, run: Callable[[int, int, At], At]
) -> Iterator[tuple[int, int, At]]:
    """From the last segment on, its steps [start, stop) and what is kept at its start.

    `first` is kept at step 0; ``run(start, stop, at_start)`` gives what is kept at `stop`.
    """
    begins = segments.begins.tolist()
    groups, kept_now = [first], first
    for n in range((segments.count - 1) // segments.group * segments.group):
        kept_now = run(begins[n], begins[n + 1], kept_now)
        if (n + 1) % segments.group == 0:
            groups.append(kept_now)
    while groups:
        start = (len(groups) - 1) * segments.group
        kept = [groups.pop()]
        for n in range(start, min(start + segments.group, segments.count) - 1):
            kept.append(run(begins[n], begins[n + 1], kept[-1]))
        while kept:
            n = start + len(kept) - 1
            yield begins[n], begins[n + 1], kept.pop()


def budget_for(limit: int, steps: int, grain: int, held: Held) -> Budget:
    """What keeps most of a pass within `limit` bytes; segments have multiples of `grain` steps.

    Raises
    ------
    ValueError
        If nothing does; it names the least.
    """
    if held(WHOLE) <= limit:
        return WHOLE
    least = held(WHOLE)
    for levels in (1, 2):
        found = None
        for budget in _candidates(steps, grain, levels):
            needed = held(budget)
            least = min(least, needed)
            if needed <= limit:
                found = budget
        if found is not None:
            return _longest(found, limit, steps, grain, held)
    raise ValueError(
        f"memory_limit: expected at least {least} bytes, the least that this call can hold, "
        f"got {limit}"
    )


def _candidates(steps: int, grain: int, levels: int) -> Iterator[Budget]:
    """Budgets with segments of 1, 2, 4, ... grains."""
    segment = grain
    while segment < steps:
        yield _budget(segment, steps, grouped=levels > 1)
        segment *= 2


def _budget(segment: int, steps: int, *, grouped: bool) -> Budget:
    return Budget(segment, math.isqrt(-(-steps // segment) - 1) + 1 if grouped else 0)


def _longest(found: Budget, limit: int, steps: int, grain: int, held: Held) -> Budget:
    """The longest segments that fit, between those found and twice as many steps."""
    fits, too_long = found.segment_steps // grain, 2 * found.segment_steps // grain
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        tried = _budget(middle * grain, steps, grouped=found.group_segments > 0)
        if held(tried) <= limit:
            fits, found = middle, tried
        else:
            too_long = middle
    return found
