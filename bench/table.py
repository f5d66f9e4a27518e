"""Results as text: where and how it was measured, a block for each kind of work, conclusions."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .machine import cpu_name
from .records import Record, Results, Row
from .summary import FEWEST, Block, blocks, conclusions

_UNITS = {"ms": 1e-3, "us": 1e-6, "MB": 1e6}
_WORDS = ("shape", "peer", "[quartiles]", "goal", "difference", "note")  # to the left
_FIGURES = (*_UNITS, "IQR", "GF/s", "% peak", "plan", "cores", "waits", "ratio")  # to the right
_COLUMNS = (*_WORDS[:2], *_FIGURES, *_WORDS[2:])


def format_table(results: Results) -> str:
    """Everything that there is to read of `results`."""
    lines = [*_preamble(results), *_conditions(results), *_warnings(results)]
    for block in blocks(results.rows):
        lines += ["", *_block(block, results.head)]
    return "\n".join([*lines, "", *conclusions(results)]).rstrip()


def one_line(row: Row) -> str:
    """A row in a few words."""
    found = (
        f"{name} {record.value.median / _UNITS[row.unit]:.4g} {row.unit}"
        if record.value
        else f"{name} {record.status} ({record.reason})"
        for name, record in row.records.items()
    )
    return f"{row.work} {row.name}: {'   '.join(found)}"


def count(number: int | str, noun: str) -> str:
    """ "1 thread", "2 threads", "1,2 threads"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _preamble(results: Results) -> Iterator[str]:
    head, software = results.head, results.head["software"]
    caches = ", ".join(f"{name} {size}" for name, size in head["machine"]["caches"].items())
    commit = (software["commit"] or "unknown")[:12] + (" + changes" if software["dirty"] else "")
    when = " to ".join(filter(None, (head["begun"], head["ended"])))
    yield f"{cpu_name(head['machine'])}, {caches}; {count(head['threads'], 'thread')}"
    yield ", ".join(filter(None, (f"bptt {software['bptt']} ({commit})", when)))
    width = max(map(len, head["versions"]), default=0)
    yield from (f"  {name:<{width}} {version}" for name, version in head["versions"].items())
    yield f"Command: {head['command']}"


def _conditions(results: Results) -> Iterator[str]:
    head, rows = results.head, results.rows
    if any(row.flops and row.family != "kernels" for row in rows):
        yield (
            "Work: y and all gradients: 6 G T B H (I + H) flop a call, the same for every peer; "
            "checked before it was timed."
        )
    least = f", each of at least {head['min_time']:g} s" if head["min_time"] else ""
    yield f"Times: median of {head['rounds']} rounds in alternation{least}; IQR in % of the median."
    if any(record.cores for record in results.records()):
        yield "Cores: CPU time over wall time. Waits: time without a CPU over wall time."
    if any(row.peak for row in rows):
        isa = head["machine"]["isa"]
        yield (
            f"Peak: the most that fused multiply-adds (FMA) with {isa}, the instruction set "
            "native uses, reach on these threads, measured\n"
            "in every round. Peers use whatever the CPU has, and may pass it."
        )
    if any(row.peak_loads for row in rows):
        yield (
            "Peak with loads: the same in the register tile of native's products, whose operands "
            "come from the first-level cache."
        )
    if any(record.predicted for record in results.records()):
        yield "Plan: what bptt.plan predicts, without the call from Python, over the median."
    if baselines := dict.fromkeys(row.baseline for row in rows if row.baseline):
        yield (
            f"Ratio: time of the peer over time of {' or '.join(baselines)} in the same round, "
            "with [quartiles]; ~ marks a range that straddles 1, < a range below 1."
        )


def _warnings(results: Results) -> Iterator[str]:
    head, at_start = results.head, results.head.get("load")
    if at_start is not None:
        later = [row.load for row in results.rows if row.load is not None]
        at_most = f", at most {max(later):.2f} later" if later else ""
        own = f"(the run itself adds up to {str(head['threads']).split(',')[-1]})"
        yield f"Load average: {at_start:.2f} at the start{at_most} {own}."
    waits = [row.waits for row in results.rows for _ in row.timed() if row.waits is not None]
    waited = statistics.fmean(waits) if waits else 0
    others = f"threads waited for a CPU for {waited:.0%} of the time: other processes were running."
    remarks = {
        "INTERRUPTED: the rows below are all there is.": head["interrupted"],
        "WARNING: the machine was not idle at the start.": (at_start or 0) > 0.5,
        f"WARNING: {others}": waited > 0.02,
        "WARNING: fewer than 7 rounds: not for publication.": head["rounds"] < 7,
        "WARNING: the working tree has changes that are not committed.": head["software"]["dirty"],
        "WARNING: the native backend is not built; the FMA peak is not known.": (
            head["machine"]["isa"] is None
        ),
    }
    yield from (text for text, holds in remarks.items() if holds)


def _block(block: Block, head: Mapping[str, Any]) -> Iterator[str]:
    """A title, who is absent and why, and one line for each contestant of each row."""
    yield f"== {block.work}: {head['titles'][block.family]} =="
    if peaks := [row.peak for row in block.rows if row.peak]:
        isa, peak = head["machine"]["isa"], statistics.median(peaks)
        loads = [row.peak_loads for row in block.rows if row.peak_loads]
        with_loads = f"; with loads {statistics.median(loads) / 1e9:.1f}" if loads else ""
        yield f"FMA peak with {isa}: {peak / 1e9:.1f} GF/s{with_loads}"
    absent = {
        name: record.reason
        for name, record in block.rows[0].records.items()
        if all(row.records[name].status in ("missing", "refused") for row in block.rows)
    }
    yield from (f"{name}: {reason}" for name, reason in absent.items())
    lines = []
    for row in block.rows:
        present = [name for name in row.records if name not in absent]
        for name in present:
            label = {"shape": row.name if name == present[0] else "", "peer": name}
            lines.append({**label, **_cells(row, row.records[name], head)})
    yield from _aligned(lines)


def _aligned(lines: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Lines of cells by column, below their titles; columns that all are without are left out.

    A line's "reason" stands in the place of figures, and widens no column.
    """
    columns = [column for column in _COLUMNS if any(line.get(column) for line in lines)]
    titles = {column: column for column in columns}
    widths = {c: max(len(line.get(c, "")) for line in (titles, *lines)) for c in columns}
    for line in (titles, *lines):
        shown = [column for column in columns if column in line or "reason" not in line]
        cells = (
            f"{line.get(column, ''):{'<' if column in _WORDS else '>'}{widths[column]}}"
            for column in shown
        )
        yield " ".join([*cells, line.get("reason", "")]).rstrip()


def _cells(row: Row, record: Record, head: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a record, by column."""
    if not record.is_timed:
        loud = record.status.upper() if record.status in ("wrong", "failed") else record.status
        return {"reason": f"{loud}: {record.reason}"}
    unit, value = _UNITS[row.unit], record.value
    median = value.median if value else None
    cells = {
        row.unit: _number(median and median / unit, ".4g"),
        "IQR": _number(value and (value.high - value.low) / value.median, ".1%"),
        "GF/s": _number(median and row.flops and row.flops / median / 1e9, ".2f"),
        "% peak": _number(record.share and record.share.median, ".1%"),
        "plan": _number(median and record.predicted and record.predicted / median, ".2f"),
        "cores": _number(record.cores, ".2f"),
        "waits": _number(record.waits, ".0%"),
        "note": record.note,
    }
    if record.ratio is not None:
        low, ratio, high = record.ratio
        digits = ".3f" if record.interval or ratio < 0.2 else ".2f"
        mark = "~" if low <= 1 <= high else "<" if ratio < 1 else " "
        cells["ratio"] = f"{ratio:{digits}}"
        cells["[quartiles]"] = f"{mark} [{low:{digits}} - {high:{digits}}]"
    if record.goal is not None:
        verdict = "" if head["quick"] else ": met" if record.meets_goal else ": MISSED"
        cells["goal"] = f"at most {record.goal / (1 if record.ratio else unit):g}{verdict}"
    if record.interval is not None:
        least, most = record.interval
        seen = "same" if least <= 1 <= most else "FASTER" if most < 1 else "SLOWER"
        seen = seen if head["rounds"] >= FEWEST else "too few rounds"
        cells["difference"] = f"{seen} ({least:.3f} to {most:.3f})"
    return cells


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
