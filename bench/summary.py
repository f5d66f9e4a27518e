"""What a run comes to: mean ratios by family, rows where somebody else is faster, goals, noise."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        yield from _comparison(results)
    goals = [record.meets_goal for record in records if record.goal is not None]
    if goals and head["quick"]:
        yield "Quick: samples are too short and too few to judge anything."
    elif goals:
        yield f"{sum(goals)} of {len(goals)} goals are met, by the third quartile, unrounded."
    if means := head.get("means"):
        yield from _means(results.rows, {} if head["quick"] else means)
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


def _means(rows: Iterable[Row], goals: Mapping[str, float]) -> Iterator[str]:
    """The geometric mean of the ratios of each block of `goals`, which that shall not exceed."""
    for block in blocks(rows):
        found = [r.ratio for row in block.rows for r in row.records.values() if r.ratio]
        if found and block.work in goals:
            mean, goal = _geomean(found), goals[block.work]
            verdict = "met" if mean <= goal else "MISSED"
            yield f"Geometric mean of {block.work}: {mean:.3f}, at most {goal:.3f}: {verdict}"


def _comparison(results: Results) -> Iterator[str]:
    """The baseline, to which ratios refer, against all other peers that were timed: means; then how
    often it is faster, with the rows that are exceptions."""
    rows = results.rows
    baseline = rows[0].baseline if rows else None
    timed = {name for row in rows for name in row.timed()}
    own, others = ([n for n in results.head[who] if n in timed] for who in ("own", "others"))
    groups = {f"fastest of {', '.join(others)}": others} if len(others) > 1 else {}
    groups.update({name: [name] for name in (*others, *own)})
    if baseline is None:
        yield "No backend of this package was timed."
    elif not groups:
        yield f"{baseline} alone was timed: there is nothing to compare it with."
    else:
        yield f"Geometric mean of the ratios to {baseline} (number of rows):"
        for block in blocks(rows):
            means = filter(None, (_mean(block, title, names) for title, names in groups.items()))
            found = "; ".join(means) or "nothing to compare with"
            yield f"  {block.work}, {block.family}: {found}"
        yield ""
        for names in filter(None, (others, own)):
            yield from _against(rows, baseline, names)


def _mean(block: Block, title: str, names: Sequence[str]) -> str:
    """The mean ratio of the fastest of `names`, and of how many rows; empty if of none."""
    ratios = [best[1] for row in block.rows if (best := _fastest(row, names))]
    return f"{title} {_geomean(ratios):.2f} ({len(ratios)})" if ratios else ""


def _fastest(row: Row, names: Sequence[str]) -> tuple[str, Quartiles] | None:
    """The fastest of `names` in `row`, and its time over the baseline's."""
    known = ((name, row.timed().get(name)) for name in names)
    found = [(r.value.median, name, r.ratio) for name, r in known if r and r.value and r.ratio]
    return min(found)[1:] if found else None


def _against(rows: Sequence[Row], baseline: str, names: Sequence[str]) -> Iterator[str]:
    exceptions, total = [], 0
    for row in rows:
        if baseline not in row.timed():
            text = f"{baseline} was not timed ({row.records[baseline].reason})"
        elif best := _fastest(row, names):
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
    share = f"{total - len(exceptions)} of {total} rows. Not in:"
    yield f"{claim} in {share if exceptions else f'all of {total} rows.'}"
    yield from exceptions
