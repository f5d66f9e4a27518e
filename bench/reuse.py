"""What it saves to write into the arrays of the call before: time and page faults of a call.

A page that is new to the process costs a fault when it is first written. What is freed, glibc keeps
for the next array of up to 32 MiB; a larger one has new pages each time, unless smaller ones, side
by side, have left room for it. So the shape with a y of more than that comes first.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bptt

from .cases import Case
from .problem import Problem, make_problem, run_bptt, run_bptt_again
from .records import Quartiles, quartiles

__all__ = ["Reuse", "reuse_rows"]

_SHAPES = ((128, 1000, 16, 96), (128, 1000, 16, 32), (64, 256, 32, 64))  # B, T, I, H
_CASES = tuple(Case("overhead", *shape) for shape in _SHAPES)
_CELL, _DTYPE = "tanh", "float32"


@dataclass(frozen=True)
class Cost:
    """Of one call: milliseconds, and minor page faults of the process."""

    milliseconds: Quartiles
    faults: Quartiles

    def __str__(self) -> str:
        time_, faults = self.milliseconds, self.faults.median
        return f"{time_.median:.2f} ms [{time_.low:.2f} - {time_.high:.2f}], {faults:.0f} faults"


@dataclass(frozen=True)
class Reuse:
    """One shape, with fresh outputs and with reused ones; `ratio` is fresh over reused time."""

    case: Case
    fresh: Cost
    reused: Cost
    ratio: Quartiles

    def __str__(self) -> str:
        return (
            f"      {_CELL} {self.case.name}, forward + backward, fresh vs reused outputs: "
            f"{self.fresh} vs {self.reused}; {self.ratio.median:.2f} x"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        costs = {
            name: {"milliseconds": cost.milliseconds._asdict(), "faults": cost.faults._asdict()}
            for name, cost in (("fresh", self.fresh), ("reused", self.reused))
        }
        return {
            "case": self.case.name,
            "cell": _CELL,
            "dtype": _DTYPE,
            **costs,
            "ratio": self.ratio._asdict(),
        }


def reuse_rows(
    rounds: int, min_time: float = 0.1, cases: Sequence[Case] = _CASES
) -> Iterator[Reuse]:
    """Time forward and backward of the backend that "auto" takes, both ways in alternation."""
    for case in cases:
        problem = make_problem(case, _CELL, _DTYPE)
        calls = _calls(problem)
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for round_ in range(rounds + 1):
            order = list(calls) if round_ % 2 else list(calls)[::-1]
            for name in order:
                samples[name].append(_sample(calls[name], min_time))
        # The first round brings everything into the caches, and the scratch to its size.
        fresh, reused = (samples[name][1:] for name in ("fresh", "reused"))
        ratio = [one[0] / other[0] for one, other in zip(fresh, reused, strict=True)]
        yield Reuse(case, _cost(fresh), _cost(reused), quartiles(ratio))


def _calls(problem: Problem) -> dict[str, Callable[[], object]]:
    tape = bptt.forward(problem.cell, problem.params, problem.x, problem.given_state)
    grads = bptt.Grads.zeros(problem.params, *problem.x.shape[:2])
    arrays = (problem.cell, problem.params, problem.x, problem.given_state, problem.dy)
    return {
        "fresh": lambda: run_bptt(*arrays, backend="auto"),
        "reused": lambda: run_bptt_again(*arrays, backend="auto", tape=tape, grads=grads),
    }


def _sample(call: Callable[[], object], min_time: float) -> tuple[float, float]:
    """(milliseconds, faults) of a call, the mean over calls of `min_time` in all."""
    call()
    calls, faults = 0, resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    begun = ended = time.perf_counter()
    while ended - begun < min_time:
        call()
        calls, ended = calls + 1, time.perf_counter()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return (ended - begun) / calls * 1e3, faults / calls


def _cost(samples: list[tuple[float, float]]) -> Cost:
    milliseconds, faults = zip(*samples, strict=True)
    return Cost(quartiles(milliseconds), quartiles(faults))
