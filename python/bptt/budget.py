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

from . import checks

__all__ = ["WHOLE", "Budget", "budget_for", "read_budget"]


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
