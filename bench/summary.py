"""What a run comes to: mean ratios by family, rows where somebody else is faster, goals, noise."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .records import Quartiles, Results, Row

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
    head, records = results.head, results.records()
    if "others" in head:
        yield from Comparison(results).sentences()
    goals = [record.meets_goal for record in records if record.goal is not None]
    if goals and head["quick"]:
        yield "Quick: samples are too short and too few to judge anything."
    elif goals:
        yield f"{sum(goals)} of {len(goals)} goals are met, by the third quartile, unrounded."
    compared = [(r.ratio, r.interval) for r in records if r.ratio and r.interval]
    if compared:
        widths = [most - least for _, (least, most) in compared]
        noise = f"a difference below {statistics.median(widths) / 2:.1%} is not seen"
        yield f"Geometric mean of the ratios: {_geomean(ratio for ratio, _ in compared):.3f}"
        if head["rounds"] >= FEWEST:
            yield f"Noise: {noise} at a typical row."
        else:
            yield f"Too few rounds to tell the noise: it takes {FEWEST}."


def _geomean(ratios: Iterable[Quartiles]) -> float:
    return statistics.geometric_mean(ratio.median for ratio in ratios)


class Comparison:
    """The baseline of a run, to which its ratios refer, against all other peers that were timed:
    the package's `own` and the `others`."""

    def __init__(self, results: Results) -> None:
        self.rows = results.rows
        self.baseline = self.rows[0].baseline if self.rows else None
        timed = {name for row in self.rows for name in row.timed()}
        self.own = [name for name in results.head["own"] if name in timed]
        self.others = [name for name in results.head["others"] if name in timed]

    def best_ratio(self, row: Row, names: Sequence[str]) -> tuple[str, Quartiles] | None:
        """The fastest of `names` in `row`, and its time over the baseline's."""
        found = [(r.value, name, r.ratio) for name, r in row.timed().items() if name in names]
        known = [(value.median, name, ratio) for value, name, ratio in found if value and ratio]
        return min(known)[1:] if known else None

    def geomean(self, rows: Sequence[Row], names: Sequence[str]) -> tuple[float, int] | None:
        """Geometric mean over `rows` of the ratio of the fastest of `names`, and their number."""
        found = [best[1] for row in rows if (best := self.best_ratio(row, names))]
        return (_geomean(found), len(found)) if found else None

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Groups of peers by title, for a table of geometric means."""
        single = {name: (name,) for name in (*self.others, *self.own)}
        together = {f"fastest of {', '.join(self.others)}": tuple(self.others)}
        return {**together, **single} if len(self.others) > 1 else {**single}

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
