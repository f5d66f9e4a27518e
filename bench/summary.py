"""What a run comes to: mean ratios by family, rows where somebody else is faster, goals, noise."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .records import Quartiles, Record, Results, Row

__all__ = ["FEWEST", "Block", "Comparison", "blocks", "conclusions"]

FEWEST = 6  # rounds that give an interval of 95 % confidence


class Block(NamedTuple):
    """The rows of one family that do the same work."""

    family: str
    work: str
    rows: tuple[Row, ...]


def blocks(rows: Iterable[Row]) -> Iterator[Block]:
    """`rows` in blocks, in the order in which they were measured."""
    for key, group in itertools.groupby(rows, lambda row: (row.family, row.work)):
        yield Block(*key, tuple(group))


def conclusions(results: Results) -> Iterator[str]:
    """The sentences below the table: of peers, of goals and of intervals, where there are any."""
    if "others" in results.head:
        yield from Comparison(results).sentences()
    records = [record for row in results.rows for record in row.records.values()]
    goals = [record.meets_goal for record in records if record.goal is not None]
    if goals and results.head["quick"]:
        yield "Quick: samples are too short and too few to judge anything."
    elif goals:
        yield f"{sum(goals)} of {len(goals)} goals are met, by the third quartile, unrounded."
    if compared := [record for record in records if record.interval]:
        yield from _noise(compared, results.head["rounds"])


def _noise(records: Sequence[Record], rounds: int) -> Iterator[str]:
    yield f"Geometric mean of the ratios: {_geomean(r.ratio for r in records if r.ratio):.3f}"
    if rounds < FEWEST:
        yield f"Too few rounds to tell the noise: it takes {FEWEST}."
        return
    noise = statistics.median((r.interval[1] - r.interval[0]) / 2 for r in records if r.interval)
    yield f"Noise: a difference below {noise:.1%} is not seen at a typical row."


def _geomean(ratios: Iterable[Quartiles]) -> float:
    return math.exp(statistics.fmean(math.log(ratio.median) for ratio in ratios))


class Comparison:
    """The baseline of a run, to which its ratios refer, against all other peers.

    Attributes
    ----------
    own, others : list of str
        The package's other backends, and the peers from elsewhere, as far as they were timed.
    """

    def __init__(self, results: Results) -> None:
        self.rows = results.rows
        self.baseline = self.rows[0].baseline if self.rows else None
        timed = {name for row in self.rows for name in row.timed()}
        self.own = [name for name in results.head["own"] if name in timed]
        self.others = [name for name in results.head["others"] if name in timed]

    @property
    def rivals(self) -> list[str]:
        """Peers from elsewhere; where none was timed, the package's own."""
        return self.others or self.own

    def best_ratio(self, row: Row, names: Sequence[str]) -> tuple[str, Quartiles] | None:
        """The fastest of `names` in `row`, and its time over the baseline's."""
        found = [
            (record.value.median, name, record.ratio)
            for name, record in row.timed().items()
            if name in names and record.value
        ]
        _, best, ratio = min(found, default=(0.0, "", None))
        return None if ratio is None else (best, ratio)

    def geomean(self, rows: Sequence[Row], names: Sequence[str]) -> tuple[float, int] | None:
        """Geometric mean over `rows` of the ratio of the fastest of `names`, and their number."""
        found = [best[1] for row in rows if (best := self.best_ratio(row, names))]
        return (_geomean(found), len(found)) if found else None

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Groups of peers by title, for a table of geometric means."""
        groups: dict[str, tuple[str, ...]] = {name: (name,) for name in (*self.others, *self.own)}
        if len(self.others) < 2:
            return groups
        return {f"fastest of {', '.join(self.others)}": tuple(self.others), **groups}

    def sentences(self) -> Iterator[str]:
        """Means; then how often the baseline is faster, with the rows that are exceptions."""
        if self.baseline is None:
            yield "No backend of this package was timed."
        elif not self.columns():
            yield f"{self.baseline} alone was timed: there is nothing to compare it with."
        else:
            yield f"Geometric mean of the ratios to {self.baseline} (number of rows):"
            for block in blocks(self.rows):
                means = {title: self.geomean(block.rows, n) for title, n in self.columns().items()}
                texts = [f"{title} {m[0]:.2f} ({m[1]})" for title, m in means.items() if m]
                found = "; ".join(texts) or "nothing to compare with"
                yield f"  {block.work}, {block.family}: {found}"
            yield ""
            for names in filter(None, (self.others, self.own)):
                yield from self._against(self.baseline, names)

    def _against(self, baseline: str, names: Sequence[str]) -> Iterator[str]:
        exceptions, total = [], 0
        for row in self.rows:
            if baseline not in row.timed():
                text = f"{baseline} was not timed ({row.records[baseline].reason})"
            elif best := self.best_ratio(row, names):
                name, (low, median, high) = best
                close = ", too close to call" if high >= 1 else ""
                text = "" if low > 1 else f"{name} {median:.2f} [{low:.2f} - {high:.2f}]{close}"
            else:
                continue  # none of them was timed here: the table says why
            total += 1
            if text:
                exceptions.append(f"  {row.work} {row.family} {row.name}: {text}")
        each = "each of " if len(names) > 1 else ""
        claim = f"{baseline} is faster than {each}{', '.join(names)}"
        rows = f"{total - len(exceptions)} of {total} rows. Not in:"
        yield f"{claim} in {rows if exceptions else f'all of {total} rows.'}"
        yield from exceptions
