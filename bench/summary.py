"""What a run comes to: mean ratios by family, and the rows where somebody else is faster."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .records import Quartiles, Row, rows_of

__all__ = ["Block", "Comparison", "blocks"]


@dataclass(frozen=True)
class Block:
    """The rows of one family, cell and dtype."""

    family: str
    cell: str
    dtype: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        return f"{self.cell} {self.dtype}, {self.family}"


def blocks(rows: Iterable[Row]) -> Iterator[Block]:
    """`rows` in blocks, in the order in which they were measured."""

    def key(row: Row) -> tuple[str, str, str]:
        return row.case.family, row.cell, row.dtype

    for (family, cell, dtype), group in itertools.groupby(rows, key):
        yield Block(family, cell, dtype, tuple(group))


class Comparison:
    """The baseline of a document against everybody else.

    Attributes
    ----------
    baseline : str or None
        The first of the package's backends that was timed anywhere: native where it is built.
    own, others : list of str
        The package's other backends, and the peers from elsewhere, as far as they were timed.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.rows = rows_of(document)
        timed = {name for row in self.rows for name in row.timed()}
        described = document["software"]["peers"]
        own = [name for name, peer in described.items() if peer["is_own"] and name in timed]
        self.baseline = own[0] if own else None
        # Another way to call the baseline, as native-reuse is, is no other backend.
        self.own = [name for name in own[1:] if not name.startswith(f"{self.baseline}-")]
        self.others = [n for n, peer in described.items() if not peer["is_own"] and n in timed]

    @property
    def rivals(self) -> list[str]:
        """Peers from elsewhere; where none was timed, the package's own."""
        return self.others or self.own

    def best(self, row: Row, names: Sequence[str]) -> str | None:
        """Who of `names` has the smallest median time in `row`."""
        medians = {
            name: statistics.median(result.seconds)
            for name, result in row.timed().items()
            if name in names
        }
        return min(medians, key=lambda name: medians[name], default=None)

    def best_ratio(self, row: Row, names: Sequence[str]) -> tuple[str, Quartiles] | None:
        """The fastest of `names` in `row`, and its time over the baseline's."""
        best = self.best(row, names)
        if best is None or self.baseline is None:
            return None
        ratio = row.ratio(best, self.baseline)
        return None if ratio is None else (best, ratio)

    def geomean(self, rows: Sequence[Row], names: Sequence[str]) -> tuple[float, int] | None:
        """Geometric mean over `rows` of the ratio of the fastest of `names`, and their number."""
        found = [self.best_ratio(row, names) for row in rows]
        ratios = [ratio.median for _, ratio in filter(None, found)]
        if not ratios:
            return None
        return math.exp(statistics.fmean(map(math.log, ratios))), len(ratios)

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Groups of peers by title, for a table of geometric means."""
        groups: dict[str, tuple[str, ...]] = {name: (name,) for name in (*self.others, *self.own)}
        if len(self.others) < 2:
            return groups
        return {f"fastest of {', '.join(self.others)}": tuple(self.others), **groups}
