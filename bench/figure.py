"""Measured figures beside their goals, and the file that they are written to."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .records import quartiles

__all__ = ["Figure", "ratio", "run_figures"]


@dataclass(frozen=True)
class Figure:
    """A measured figure and its goal, which is an upper bound.

    The goal is met only if the third quartile meets it.
    """

    name: str
    unit: str
    low: float
    median: float
    high: float
    goal: float

    @property
    def is_met(self) -> bool:
        return self.high <= self.goal

    def __str__(self) -> str:
        return (
            f"{self.name:<74} {self.median:8.2f} {self.unit} "
            f"[{self.low:.2f} - {self.high:.2f}], goal at most {self.goal:g}"
        )


def ratio(
    name: str, goal: float, rounds: int, one: Callable[[], Any], other: Callable[[], Any]
) -> Figure:
    """Time of `one` over that of `other`, in alternation."""
    ratios = []
    for round_ in range(rounds + 1):
        begun = time.perf_counter()
        one()
        between = time.perf_counter()
        other()
        if round_:  # the first brings everything into the caches
            ratios.append((between - begun) / (time.perf_counter() - between))
    return Figure(name, "x ", *quartiles(ratios), goal=goal)


def run_figures(options: argparse.Namespace, figures: Iterable[Figure]) -> int:
    """Measure, print, write to `options.out`; 1 if a goal is missed, unless `options.quick`."""
    import bptt

    from . import machine
    from .peers import all_peers

    begun, load, threads = machine.now(), machine.load_average(), bptt.get_num_threads()
    found = machine.machine()
    print(f"{machine.cpu_name(found)}, {found['isa'] or 'no native backend'}, threads: {threads}")
    measured = []
    for figure in figures:
        measured.append(figure)
        mark = "quick" if options.quick else "pass " if figure.is_met else "FAIL "
        print(f"{mark} {figure}", flush=True)
    print(f"(medians of {options.rounds} rounds [quartiles]; load average {load:.2f} at the start;")
    print(" a figure passes if its third quartile, unrounded, meets the goal)")
    if options.quick:
        print("Quick: samples are too short and too few to judge anything.")
    if options.out is not None:
        own = [peer for peer in all_peers().values() if peer.is_own]
        document = {
            "begun": begun,
            "load": load,
            "machine": found,
            "software": machine.software(own),
            "rounds": options.rounds,
            "threads": threads,
            "figures": [{**asdict(figure), "is_met": figure.is_met} for figure in measured],
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(not options.quick and not all(figure.is_met for figure in measured))
