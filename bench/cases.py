"""The shapes of `cases.toml`, and how much work each one is."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]


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
        """Operations of the products: 2 G T B H (I + H) forward, and as many for dx and dS, and
        for dW. Every peer gets the same number, however it does the work."""
        rows, h = self.steps * self.batch, self.hidden_size
        return 6 * gates * rows * h * (self.input_size + h)


@dataclass(frozen=True)
class Family:
    """Shapes that belong together."""

    title: str
    cases: tuple[Case, ...]


def load_families() -> dict[str, Family]:
    """Read `cases.toml`."""
    tables = tomllib.loads(Path(__file__).with_name("cases.toml").read_text("utf-8"))
    return {
        name: Family(table["title"], tuple(Case(name, *shape) for shape in table["shapes"]))
        for name, table in tables.items()
    }


def select(families: Iterable[Family], patterns: Iterable[str] = ()) -> list[Case]:
    """The cases of `families` whose name matches one of `patterns` (all of them without any)."""
    wanted = tuple(patterns) or ("*",)
    cases = [case for family in families for case in family.cases]
    return [case for case in cases if any(fnmatchcase(case.name, p) for p in wanted)]
