"""Plain sentences about a run: where somebody else is faster than native."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .records import Row
from .summary import FRAMEWORKS, Comparison

__all__ = ["verdict"]

# The bar of issue 4 for each row: so much faster than the frameworks, or so near to the peak.
_RATIO_BAR, _PEAK_BAR = 1.5, 0.8


def verdict(comparison: Comparison) -> Iterator[str]:
    """Each sentence is followed by the rows that are exceptions to it.

    The last sentence is about the package's own backends.
    """
    if comparison.baseline is None:
        yield "No backend of this package was timed."
        return
    if comparison.others:
        yield from _against(comparison, comparison.others, "any peer")
        yield from _below_the_bar(comparison)
    yield from _against(comparison, comparison.own, "the package's other backends")


def _against(comparison: Comparison, names: Sequence[str], title: str) -> Iterator[str]:
    """How often the baseline is faster than the fastest of `names`."""
    baseline = str(comparison.baseline)
    if not names:
        yield f"{baseline} alone was timed: nothing to say about {title}."
        return
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
        exceptions += [f"{_name(row)}: {text}"] if text else []
    yield from _sentence(
        f"{baseline} is faster than {title} ({', '.join(names)})", total, exceptions
    )


def _below_the_bar(comparison: Comparison) -> Iterator[str]:
    """How often the baseline is 1.5 times as fast as the frameworks, or at 80 % of the peak."""
    baseline = str(comparison.baseline)
    frameworks = [name for name in FRAMEWORKS if name in comparison.others]
    exceptions, total = [], 0
    for row in comparison.rows:
        best = comparison.best_ratio(row, frameworks)
        if best is None:
            continue
        total += 1
        fraction = row.peak_fraction(baseline)
        if best[1].low < _RATIO_BAR and (fraction is None or fraction.low < _PEAK_BAR):
            percent = "unknown" if fraction is None else f"{fraction.median:.0%}"
            exceptions.append(f"{_name(row)}: {best[0]} {best[1].median:.2f}, peak {percent}")
    if total:
        yield from _sentence(
            f"{baseline} is {_RATIO_BAR} times as fast as {' and '.join(frameworks)}, or at "
            f"{_PEAK_BAR:.0%} of the FMA peak (both by the first quartile),",
            total,
            exceptions,
        )


def _sentence(claim: str, total: int, exceptions: Sequence[str]) -> Iterator[str]:
    if not exceptions:
        yield f"{claim} in all of {total} rows."
        return
    yield f"{claim} in {total - len(exceptions)} of {total} rows. Not in:"
    yield from (f"  {line}" for line in exceptions)


def _name(row: Row) -> str:
    return f"{row.cell} {row.dtype} {row.case.family} {row.case.name}"
