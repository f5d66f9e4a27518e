"""Measure one task after the other; print, and write what is finished after each."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import machine
from .options import make_parser, parse
from .peers import versions
from .records import Results
from .report import show
from .table import one_line
from .timing import Task


def command(
    name: str,
    text: str | None,
    title: str,
    tasks: Callable[[Namespace], Iterable[Task]],
    *peers: str,
    **defaults: Any,
) -> Callable[[Sequence[str] | None], int]:
    """The `main` of a command that has only the options of all, with these `defaults`."""

    def main(arguments: Sequence[str] | None = None) -> int:
        options = parse(make_parser(name, text, **defaults), arguments)
        return run(options, tasks(options), titles={name: title}, versions=versions(*peers))

    return main


def run(options: Namespace, tasks: Iterable[Task], *, count: int | None = None, **head: Any) -> int:
    """Measure `tasks`; return the exit status. `head` has the families' titles, and versions.

    0; 1 if a peer's outputs were wrong, if it failed, or if a goal was missed (unless ``--quick``);
    130 if it was interrupted.
    """
    results = Results(machine.describe(options, **head))
    of = f"/{count}" if count else ""

    def update(*, interrupted: bool) -> None:
        results.head.update(interrupted=interrupted, ended=machine.now())
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            results.write(options.out)

    interrupted, load = False, machine.load_average()
    try:
        for task in tasks:
            task.row.load = load
            results.rows.append(task.measure())
            load = machine.load_average()
            place = f"[{len(results.rows)}{of}]"
            print(f"{place} {one_line(results.rows[-1])}", file=sys.stderr, flush=True)
            update(interrupted=True)  # so it stays if the process is killed
    except KeyboardInterrupt:
        interrupted = True
    update(interrupted=interrupted)
    # As the file has it: a number that is rounded once more may end in another digit.
    show(results if options.out is None else Results.read(options.out), options.out)
    return 130 if interrupted else int(not _is_good(results))


def _is_good(results: Results) -> bool:
    quick, records = results.head["quick"], results.records()
    bad = any(record.status in ("wrong", "failed") for record in records)
    return not bad and (quick or all(record.meets_goal for record in records))
