"""``bptt lags``: how far back the gradient of a network reaches, as figures and a report."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from functools import partial
from typing import Any

import bptt

from .measure import Options, check, measure_lags
from .network import Network
from .options import (
    DRAWING,
    TRAINING,
    CommandError,
    add_common_options,
    backends_used,
    open_folder,
    path,
    require,
)
from .own_network import read_network
from .reports.lags import LAGS
from .reports.page import write_report
from .results import Results, run_each
from .tasks import TASKS, Task
from .terminal import Interrupt, ProgressBar
from .training import train

DEFAULT_FOLDER = "bptt-lags"
_CELLS = ("tanh", "gru", "lstm")
# Options of one of the two kinds of networks, by their names in argparse.
_OF_FILES = {"cell": "--cell", "data": "--data", "loss": "--loss", "at": "--at"}
_OF_TASKS = {"task": "--task", "cells": "--cells", "quick": "--quick", "untrained": "--untrained"}


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "lags",
        help="resolve the gradient of a network by lag: figures and a report",
        description="Computes each term of the gradient's sum over lags, of a network of your own "
        "or of small ones that are trained first, and writes results.json, figures and "
        "report.html. With a built-in task it takes about half a minute on two cores that do "
        "nothing else.",
    )
    tasks = parser.add_argument_group("networks of a built-in task")
    tasks.add_argument(
        "--task", choices=tuple(TASKS), help="those of `bptt demo` (default: digits)"
    )
    tasks.add_argument(
        "--cells", type=_cells, metavar="A,B", help=f"some of {','.join(_CELLS)} (default: all)"
    )
    length = tasks.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="train a tenth as long")
    length.add_argument("--untrained", action="store_true", help="do not train")
    files = parser.add_argument_group("a network of your own")
    files.add_argument(
        "--params", type=path, metavar="FILE.npz", help="what bptt.Params.save wrote"
    )
    files.add_argument(
        "--cell", choices=tuple(bptt.CELLS), help="default: the one saved with the parameters"
    )
    files.add_argument(
        "--data",
        type=path,
        metavar="FILE.npz",
        help="arrays x (T, B, I) and target, as value_and_grad has it",
    )
    files.add_argument(
        "--loss",
        choices=("squared_error", "cross_entropy"),
        help="default: cross_entropy for a target of integers, else squared_error",
    )
    files.add_argument(
        "--at", type=_at, help="all (the default), last, or a step: where the loss is read"
    )
    lags = parser.add_mutually_exclusive_group()
    lags.add_argument("--max-lag", type=int, metavar="N", help="the largest lag (default: T - 1)")
    lags.add_argument("--lags", type=_integers, metavar="0,1,2,5", help="these lags alone")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="measure N of the sequences, drawn at random"
    )
    add_common_options(parser, DEFAULT_FOLDER, "report")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check everything that can fail, train, measure, write. Exit code 130 if interrupted."""
    require(TRAINING if args.params is None else DRAWING)
    task, networks = _networks(args)
    used = backends_used(args.backend, [network.cell for network in networks])
    options = Options(args.seed, args.backend, args.max_lag, args.lags, args.sample)
    first = networks[0]
    try:
        check(first, options)
    except (TypeError, ValueError, MemoryError) as error:
        raise CommandError(str(error)) from None
    folder = open_folder(args.out, force=args.force, names=LAGS.files(), default=DEFAULT_FOLDER)
    about = "data of a file" if task is None else f"{len(first.target)} {task.about}"
    data = {"about": about, "loss": first.loss, "at": first.at}
    results, interrupt = Results(options, used, data, len(networks)), Interrupt()
    trained = None if args.untrained else task
    steps = 0 if trained is None else trained.training_steps * len(networks)
    work = partial(_train_and_measure, trained, options, interrupt)
    with suppress(KeyboardInterrupt):  # between two networks, or before the first lag of one
        run_each(networks, work, results, folder, interrupt, steps=steps)
    results.close(folder)
    write_report(LAGS, results, folder)
    return results.conclude(folder)


def _networks(args: argparse.Namespace) -> tuple[Task | None, list[Network]]:
    """The networks that are asked for, and the task that they belong to, if any."""
    foreign, where = (_OF_TASKS, "with") if args.params is not None else (_OF_FILES, "without")
    for name, option in foreign.items():
        given = getattr(args, name)
        if given is not None and given is not False:  # 0 is a step
            raise CommandError(f"{option}: has no meaning {where} --params")
    if args.params is not None:
        if args.data is None:
            raise CommandError("--data: expected it beside --params")
        return None, [read_network(args.params, args.data, args.cell, args.loss, args.at)]
    kind = TASKS[args.task or "digits"]
    task = kind.make(seed=args.seed, backend=args.backend, quick=args.quick)
    of_cell = {network.cell: network for network in task.networks() if network.compared}
    networks = [of_cell[cell] for cell in args.cells or _CELLS]
    for network in networks:
        network.title = network.cell  # one network a cell
        task.prepare(network)
    return task, networks


def _train_and_measure(
    task: Task | None,
    options: Options,
    interrupt: Interrupt,
    network: Network,
    progress: ProgressBar,
) -> str:
    """Train it if there is a `task`, and measure it; the line that is printed of it."""
    if task is not None:
        with interrupt.listen():
            train(network, task, progress, interrupt, monitored=True, evaluated=False)
        network.finished &= not interrupt.requested
    began = time.perf_counter()
    measure_lags(network, options)
    network.seconds = time.perf_counter() - began
    horizon = network.lags.horizon()
    line = f"{network.cell:<6}  horizon {'beyond' if horizon is None else horizon:>6}   "
    line += f"half-life {network.lags.half_life():6.3g}   measured in {network.seconds:.1f} s"
    if task is not None:
        line += f", after {network.monitor.steps} steps of training, "
        line += f"{network.monitor.overhead:.1%} of it for the monitor"
    return line


def _cells(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if not set(found) <= set(_CELLS) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(_CELLS)}, got {text!r}")
    return found


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        expected = "expected integers such as 0,1,2,5"
        raise argparse.ArgumentTypeError(f"{expected}, got {text!r}") from None


def _at(text: str) -> str | int:
    try:
        return text if text in ("all", "last") else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected all, last or a step, got {text!r}") from None
