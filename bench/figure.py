"""A measured figure beside its goal, and the file that many of them are written to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Figure", "write_figures"]


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
        mark = "pass" if self.is_met else "FAIL"
        return (
            f"{mark}  {self.name:<48} {self.median:8.2f} {self.unit} "
            f"[{self.low:.2f} - {self.high:.2f}], goal at most {self.goal:g}"
        )


def write_figures(
    out: Path, figures: Sequence[Figure], load: float, rounds: int, more: Mapping[str, Any]
) -> None:
    """Write them with the machine and the software that they were measured on."""
    import bptt

    from . import machine
    from .peers import all_peers

    own = [peer for peer in all_peers().values() if peer.is_own]
    document = {
        "begun": machine.now(),
        "load": load,
        "machine": machine.machine(),
        "software": machine.software(own),
        "rounds": rounds,
        "threads": bptt.get_num_threads(),
        "figures": [{**asdict(figure), "is_met": figure.is_met} for figure in figures],
        **more,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
