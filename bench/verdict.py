"""Plain sentences about a run: where somebody else is faster than native."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .summary import Comparison

__all__ = ["verdict"]


def verdict(comparison: Comparison) -> Iterator[str]:
    """How often the baseline is faster than peers from elsewhere, and than its own kind.

    Each sentence is followed by the rows that are exceptions to it.
    """
    if comparison.baseline is None:
        yield "No backend of this package was timed."
        return
    yield from _against(comparison, comparison.baseline, comparison.others)
    yield from _against(comparison, comparison.baseline, comparison.own)
    if not (comparison.others or comparison.own):
        yield f"{comparison.baseline} alone was timed: there is nothing to compare it with."


def _against(comparison: Comparison, baseline: str, names: Sequence[str]) -> Iterator[str]:
    exceptions, total = [], 0
    for row in comparison.rows:
        if baseline not in row.timed():
            text = f"{baseline} was not timed ({row.results[baseline].reason})"
        elif best := comparison.best_ratio(row, names):
            name, (low, median, high) = best
            text = f"{name} {median:.2f} [{low:.2f} - {high:.2f}]"
            if low > 1:
                text = ""
            elif high >= 1:
                text += ", too close to call"
        else:
            continue  # none of them was timed here: the table says why
        total += 1
        if text:
            place = f"{row.cell} {row.dtype} {row.case.family} {row.case.name}"
            exceptions.append(f"  {place}: {text}")
    if not names:
        return
    claim = f"{baseline} is faster than {'each of ' if len(names) > 1 else ''}{', '.join(names)}"
    if not exceptions:
        yield f"{claim} in all of {total} rows."
        return
    yield f"{claim} in {total - len(exceptions)} of {total} rows. Not in:"
    yield from exceptions
