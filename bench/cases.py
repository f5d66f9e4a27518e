"""The shapes of `cases.toml`, and how much work each one is.

The floating-point operations of one call, forward pass and all gradients, with G gates:

    forward    2 G T B H (I + H)     x_t W_x^T  and  S_{t-1} W_s^T
    dx, dS     2 G T B H (I + H)     da_t W_x   and  da_t W_s
    dW         2 G T B H (I + H)     da_t^T x_t and  da_t^T S_{t-1}

so 6 G T B H (I + H) in all. Activations, biases and the sums over steps are not counted: every
peer gets the same number, however it does the work.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

__all__ = ["Case", "Family", "load_families", "select", "titles"]


@dataclass(frozen=True)
class Case:
    """One shape: x is (T, B, I), the hidden state (B, H)."""

    family: str
    batch: int
    steps: int
    input_size: int
    hidden_size: int

    @classmethod
    def named(cls, name: str, family: str = "") -> Case:
        """The inverse of `name`."""
        return cls(family, *map(int, re.findall(r"\d+", name)))

    @property
    def name(self) -> str:
        """What ``--case`` matches, for example ``B1-T1000-I1-H64``."""
        return f"B{self.batch}-T{self.steps}-I{self.input_size}-H{self.hidden_size}"

    def flops(self, gates: int) -> int:
        """Operations of a forward pass with all gradients: 6 G T B H (I + H)."""
        rows, h = self.steps * self.batch, self.hidden_size
        return 6 * gates * rows * h * (self.input_size + h)


@dataclass(frozen=True)
class Family:
    """Shapes that belong together; `is_grid` if they are every hidden size with every batch."""

    title: str
    cases: tuple[Case, ...]
    is_grid: bool


def load_families() -> dict[str, Family]:
    """Read `cases.toml`."""
    with open(Path(__file__).with_name("cases.toml"), "rb") as file:
        tables = tomllib.load(file)
    return {name: _family(name, table) for name, table in tables.items()}


def select(families: Iterable[Family], patterns: Iterable[str] = ()) -> list[Case]:
    """The cases of `families` whose name matches one of `patterns` (all of them without any)."""
    wanted = tuple(patterns) or ("*",)
    cases = [case for family in families for case in family.cases]
    return [case for case in cases if any(fnmatchcase(case.name, p) for p in wanted)]


def titles(cases: Iterable[Case]) -> dict[str, str]:
    """The title of each family that one of `cases` is from."""
    families = load_families()
    return {case.family: families[case.family].title for case in cases}


def _family(name: str, table: dict[str, Any]) -> Family:
    is_grid = "shapes" not in table
    shapes = [*_grid(**table)] if is_grid else table["shapes"]
    return Family(table["title"], tuple(Case(name, *shape) for shape in shapes), is_grid)


def _grid(
    title: str, hidden: list[int], batch: list[int], steps: list[list[int]]
) -> Iterator[tuple[int, int, int, int]]:
    """(B, T, I, H) for every pair of H and B, with I = H."""
    for h, row in zip(hidden, steps, strict=True):
        yield from ((b, t, h, h) for b, t in zip(batch, row, strict=True))
