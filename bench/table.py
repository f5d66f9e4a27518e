"""The results as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

from .cases import family_title
from .machine import cpu_name
from .records import Quartiles, Row, quartiles
from .summary import Block, Comparison, blocks
from .verdict import verdict

__all__ = ["count", "format_result", "format_table"]

_HEAD = (
    f"{'shape':<24} {'peer':<9} {'ms':>10} {'IQR':>6} {'GF/s':>7} {'% peak':>7} {'cores':>6} "
    f"{'waits':>6} {'ratio':>8}"
)


def format_table(document: dict[str, Any]) -> str:
    """Everything: head, one block for each family, cell and dtype, geometric means, verdict."""
    comparison = Comparison(document)
    lines = [*_preamble(document, comparison)]
    for block in blocks(comparison.rows):
        lines += ["", *_block(block, comparison, document)]
    lines += ["", *_geomeans(comparison), "", *verdict(comparison)]
    return "\n".join(lines)


def format_result(row: Row, peer: str) -> str:
    """A result in a few words."""
    result = row.results[peer]
    if result.is_timed:
        return f"{statistics.median(result.seconds) * 1e3:.4g} ms"
    return f"{result.status} ({result.reason})"


def _preamble(document: dict[str, Any], comparison: Comparison) -> Iterator[str]:
    found, software, settings = (document[n] for n in ("machine", "software", "settings"))
    caches = ", ".join(f"{name} {size}" for name, size in found["caches"].items())
    commit = (software["commit"] or "unknown")[:12] + (" + changes" if software["dirty"] else "")
    yield f"{cpu_name(found)}, {caches}; {count(settings['threads'], 'thread')}"
    yield f"bptt {software['bptt']} ({commit}), {document['begun']} to {document['ended']}"
    for name, peer in software["peers"].items():
        yield f"  {name:<9} {peer['version']}"
    yield f"Work: {document['work']}, the same for every peer; checked before it was timed."
    yield (
        f"Times: median of {settings['rounds']} rounds in alternation, each of at least "
        f"{settings['min_time']:g} s; IQR in % of the median."
    )
    yield "Cores: CPU time over wall time. Waits: time without a CPU over wall time."
    if found["isa"] is not None:
        yield (
            f"Peak: the most that fused multiply-adds (FMA) with {found['isa']}, the instruction "
            "set native uses, reach on these threads, measured"
        )
        yield "in every round. Peers use whatever the CPU has, and may pass it."
    if comparison.baseline is not None:
        yield (
            f"Ratio: time of the peer over time of {comparison.baseline} in the same round, with "
            "[quartiles]; ~ marks a range that straddles 1, < a range below 1."
        )
    yield from _warnings(document)


def _warnings(document: dict[str, Any]) -> Iterator[str]:
    threads = document["settings"]["threads"]
    busiest = max((row["load"] for row in document["rows"]), default=0.0)
    yield (
        f"Load average: {document['load'][0]:.2f} at the start, at most {busiest:.2f} later "
        f"(the run itself adds up to {threads})."
    )
    if document["interrupted"]:
        yield "INTERRUPTED: the rows below are all there is."
    if document["load"][0] > 0.5:
        yield "WARNING: the machine was not idle at the start."
    waits = [w for row in document["rows"] for r in row["results"].values() for w in r["waits"]]
    if waits and statistics.fmean(waits) > 0.02:
        yield (
            f"WARNING: threads waited for a CPU for {statistics.fmean(waits):.0%} of the time: "
            "other processes were running."
        )
    if document["settings"]["rounds"] < 7:
        yield "WARNING: fewer than 7 rounds: not for publication."
    if document["software"]["dirty"]:
        yield "WARNING: the working tree has changes that are not committed."
    if document["machine"]["isa"] is None:
        yield "WARNING: the native backend is not built; the FMA peak is not known."


def _block(block: Block, comparison: Comparison, document: dict[str, Any]) -> Iterator[str]:
    title = family_title(document, block.family)
    peak = quartiles([value for row in block.rows for value in row.peak] or [math.nan]).median
    yield f"== {block.cell} {block.dtype}: {title} =="
    if not math.isnan(peak):
        yield f"FMA peak with {document['machine']['isa']}: {peak / 1e9:.1f} GF/s"
    absent = {
        name: reason
        for name in block.rows[0].results
        if (reason := _absent(block, name)) is not None
    }
    yield from (f"{name}: {reason}" for name, reason in absent.items())
    yield _HEAD
    for row in block.rows:
        label = row.case.name
        for name in row.results:
            if name not in absent:
                yield f"{label:<24} {name:<9} {_cells(row, name, comparison.baseline)}"
                label = ""


def _absent(block: Block, name: str) -> str | None:
    """Why a peer has no place in a whole block; None if it has."""
    results = [row.results[name] for row in block.rows]
    if all(result.status in ("missing", "refused") for result in results):
        return results[0].reason
    return None


def count(number: int, noun: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _cells(row: Row, name: str, baseline: str | None) -> str:
    result = row.results[name]
    if not result.is_timed:
        status = result.status.upper() if result.status in ("wrong", "failed") else result.status
        return f"{status}: {result.reason}"
    times = quartiles(result.seconds)
    waits = f"{statistics.median(result.waits):.0%}" if result.waits else "-"
    spread = (times.high - times.low) / times.median
    fraction = row.peak_fraction(name)
    percent = "-" if fraction is None else f"{fraction.median:.1%}"
    ratio = None if baseline in (None, name) else row.ratio(name, str(baseline))
    return (
        f"{times.median * 1e3:>10.4g} {spread:>6.1%} {row.flops / times.median / 1e9:>7.2f} "
        f"{percent:>7} {statistics.median(result.cores):>6.2f} {waits:>6}{_ratio(ratio)}"
    )


def _ratio(ratio: Quartiles | None) -> str:
    if ratio is None:
        return ""
    mark = "~" if ratio.straddles(1) else "<" if ratio.median < 1 else " "
    return f" {ratio.median:>8.2f} {mark} [{ratio.low:.2f} - {ratio.high:.2f}]"


def _geomeans(comparison: Comparison) -> Iterator[str]:
    columns = comparison.columns()
    if comparison.baseline is None or not columns:
        return
    yield f"Geometric mean of the ratios to {comparison.baseline} (number of rows):"
    for block in blocks(comparison.rows):
        means = {title: comparison.geomean(block.rows, names) for title, names in columns.items()}
        texts = [f"{title} {m[0]:.2f} ({m[1]})" for title, m in means.items() if m is not None]
        yield f"  {block.title}: {'; '.join(texts) or 'nothing to compare with'}"
