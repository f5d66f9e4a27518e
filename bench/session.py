"""Measure one task after the other; print, and write what is finished after each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import machine
from .records import Results, Row
from .report import write
from .table import format_table, one_line
from .threads import load_average
from .timing import Task

__all__ = ["run"]


def run(
    options: argparse.Namespace,
    tasks: Iterable[Task],
    *,
    titles: Mapping[str, str],
    versions: Mapping[str, str],
    count: int | None = None,
    **head: Any,
) -> int:
    """Measure `tasks`, which `titles` head; return the exit status.

    0; 1 if a peer's outputs were wrong, if it failed, or if a goal was missed (unless ``--quick``);
    130 if it was interrupted.
    """
    results = Results({**machine.describe(options, titles, versions), **head})
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    interrupted = False
    try:
        for row in _measured(tasks):
            results.rows.append(row)
            place = f"[{len(results.rows)}/{count}]" if count else f"[{len(results.rows)}]"
            print(f"{place} {one_line(row)}", file=sys.stderr, flush=True)
            _update(results, options, interrupted=True)  # so it stays if the process is killed
    except KeyboardInterrupt:
        interrupted = True
    _update(results, options, interrupted=interrupted)
    print(format_table(results))
    if options.out is not None:
        write(results, options.out)
    return 130 if interrupted else int(not _is_good(results.rows, options.quick))


def _measured(tasks: Iterable[Task]) -> Iterable[Row]:
    load = load_average()
    for task in tasks:
        task.row.load = load
        yield task.measure()
        load = load_average()


def _update(results: Results, options: argparse.Namespace, *, interrupted: bool) -> None:
    results.head.update(interrupted=interrupted, ended=machine.now())
    if options.out is not None:
        results.write(options.out)


def _is_good(rows: Sequence[Row], quick: bool) -> bool:
    records = [record for row in rows for record in row.records.values()]
    bad = any(record.status in ("wrong", "failed") for record in records)
    return not bad and (quick or all(record.meets_goal for record in records))
