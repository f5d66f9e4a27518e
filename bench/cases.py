"""The shapes of `cases.toml`, and how much work each one is.

The floating-point operations of one call, forward pass and all gradients, with G gates:

    forward    2 G T B H (I + H)     x_t W_x^T  and  S_{t-1} W_s^T
    dx, dS     2 G T B H (I + H)     da_t W_x   and  da_t W_s
    dW         2 G T B H (I + H)     da_t^T x_t and  da_t^T S_{t-1}

so 6 G T B H (I + H) in all. Activations, biases and the sums over steps are not counted: every
peer gets the same number, however it does the work.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from math import log2
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

__all__ = ["Case", "Family", "family_title", "load_families", "select"]


@dataclass(frozen=True)
class Case:
    """One shape: x is (T, B, I), the hidden state (B, H)."""

    family: str
    batch: int
    steps: int
    input_size: int
    hidden_size: int

    @property
    def name(self) -> str:
        """What ``--case`` matches, for example ``B1-T1000-I1-H64``."""
        return f"B{self.batch}-T{self.steps}-I{self.input_size}-H{self.hidden_size}"

    def flops(self, gates: int) -> int:
        """Operations of a forward pass with all gradients: 6 G T B H (I + H)."""
        rows, h = self.steps * self.batch, self.hidden_size
        return 6 * gates * rows * h * (self.input_size + h)

    def to_dict(self) -> dict[str, Any]:
        """The name and the sizes, for JSON."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Family:
    """Shapes that belong together; `is_grid` if they are every hidden size with every batch."""

    name: str
    title: str
    cases: tuple[Case, ...]
    is_grid: bool


def load_families(path: Path | None = None) -> dict[str, Family]:
    """Read `cases.toml`."""
    with open(path or Path(__file__).with_name("cases.toml"), "rb") as file:
        tables = tomllib.load(file)
    return {name: _family(name, table) for name, table in tables.items()}


def family_title(document: dict[str, Any], name: str) -> str:
    """Of a family of a results file, which may have another name by now."""
    family = load_families().get(name)
    return family.title if family else str(document["settings"]["families"][name])


def select(families: Iterable[Family], patterns: Iterable[str] = ()) -> list[Case]:
    """The cases of `families` whose name matches one of `patterns` (all of them without any)."""
    wanted = tuple(patterns) or ("*",)
    cases = [case for family in families for case in family.cases]
    return [case for case in cases if any(fnmatchcase(case.name, p) for p in wanted)]


def _family(name: str, table: dict[str, Any]) -> Family:
    is_grid = "shapes" not in table
    shapes = (
        _grid(**{k: v for k, v in table.items() if k != "title"}) if is_grid else table["shapes"]
    )
    cases = tuple(Case(name, *shape) for shape in shapes)
    return Family(name, table["title"], cases, is_grid)


def _grid(
    hidden: list[int], batch: list[int], steps: list[int], gflop: float
) -> Iterator[tuple[int, int, int, int]]:
    """(B, T, I, H) for every pair of H and B, with I = H and T chosen for the work of a call."""
    shortest, longest = steps
    for h in hidden:
        for b in batch:
            work_of_step = Case("", b, 1, h, h).flops(gates=1)
            t = 2 ** round(log2(gflop * 1e9 / work_of_step))
            yield b, min(max(t, shortest), longest), h, h
