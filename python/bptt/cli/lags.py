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
    expecting,
    open_folder,
    path,
    require,
)
from .own_network import read_network
from .results import Results
from .run import Run
from .tasks import TASKS, Task
from .training import train

DEFAULT_FOLDER = "bptt-lags"
_CELLS = ("tanh", "gru", "lstm")
_NAMES = ",".join(_CELLS)
# Options of one of the two kinds of networks.
_OF_FILES = ("cell", "data", "lengths", "loss", "at")
_OF_TASKS = ("task", "cells", "quick", "untrained")


_cells = expecting(
    f"some of {_NAMES}",
    lambda text: tuple(text.split(",")),
    lambda cells: set(cells) <= set(_CELLS) and len(set(cells)) == len(cells),
)
_integers = expecting(
    "integers such as 0,1,2,5", lambda text: tuple(int(part) for part in text.split(","))
)
_at = expecting("all, last or a step", lambda text: text if text in ("all", "last") else int(text))


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "lags",
        help="resolve the gradient of a network by lag: figures and a report",
        description="Computes each term of the gradient's sum over lags, of a network of your own "
        "or of small ones that are trained first, and writes results.json, figures and "
        "report.html. With a built-in task it takes a quarter of a minute (digits) or one and a "
        "half (adding) on two cores that do nothing else.",
    )
    _add_networks(parser)
    lags = parser.add_mutually_exclusive_group()
    lags.add_argument("--max-lag", type=int, metavar="N", help="the largest lag (default: T - 1)")
    lags.add_argument("--lags", type=_integers, metavar="0,1,2,5", help="these lags alone")
    sample = "measure N of the sequences, drawn at random"
    parser.add_argument("--sample", type=int, metavar="N", help=sample)
    add_common_options(parser, DEFAULT_FOLDER, "report")
    parser.set_defaults(run=run)


def _add_networks(parser: argparse.ArgumentParser) -> None:
    """What is measured; each option is None, or False, where it is not given."""
    tasks = parser.add_argument_group("networks of a built-in task")
    add = tasks.add_argument
    add("--task", choices=tuple(TASKS), help="those of `bptt demo` (default: digits)")
    add("--cells", type=_cells, metavar="A,B", help=f"some of {_NAMES} (default: all)")
    add = tasks.add_mutually_exclusive_group().add_argument
    add("--quick", action="store_true", help="train a tenth as long")
    add("--untrained", action="store_true", help="do not train")
    add = parser.add_argument_group("a network of your own").add_argument
    add("--params", type=path, metavar="FILE.npz", help="what bptt.Params.save wrote")
    saved = "default: the one saved with the parameters"
    add("--cell", choices=tuple(bptt.CELLS), help=saved)
    arrays = "arrays x (T, B, I) and target, as value_and_grad has it"
    add("--data", type=path, metavar="FILE.npz", help=arrays)
    lengths = "the data have an array lengths (B,), too: how many steps each sequence has"
    add("--lengths", action="store_true", help=lengths)
    default = "default: cross_entropy for a target of integers, else squared_error"
    add("--loss", choices=("squared_error", "cross_entropy"), help=default)
    add("--at", type=_at, help="all (the default), last, or a step: where the loss is read")


def run(args: argparse.Namespace) -> int:
    """Check everything that can fail, train, measure, write. Exit code 130 if interrupted."""
    require(TRAINING if args.params is None else DRAWING)
    from .reports import LAGS, conclude

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
    current = Run(Results(options, used, data, len(networks)), folder)
    trained = None if args.untrained else task
    steps = 0 if trained is None else trained.training_steps * len(networks)
    with suppress(KeyboardInterrupt):  # between two networks, or before the first lag of one
        current.each(networks, partial(_train_and_measure, trained, options, current), steps)
    return conclude(LAGS, current)


def _networks(args: argparse.Namespace) -> tuple[Task | None, list[Network]]:
    """The networks that are asked for, and the task that they belong to, if any."""
    foreign, where = (_OF_TASKS, "with") if args.params is not None else (_OF_FILES, "without")
    for name in foreign:
        given = getattr(args, name)
        if given is not None and given is not False:  # 0 is a step
            raise CommandError(f"--{name}: has no meaning {where} --params")
    if args.params is not None:
        if args.data is None:
            raise CommandError("--data: expected it beside --params")
        return None, [read_network(args)]
    kind = TASKS[args.task or "digits"]
    task = kind.make(seed=args.seed, backend=args.backend, quick=args.quick)
    of_cell = {network.cell: network for network in task.networks() if network.compared}
    networks = [of_cell[cell] for cell in args.cells or _CELLS]
    for network in networks:
        network.title = network.cell  # one network a cell
        task.prepare(network)
    return task, networks


def _train_and_measure(task: Task | None, options: Options, run: Run, network: Network) -> str:
    """Train it if there is a `task`, and measure it; the line that is printed of it."""
    if task is not None:
        with run.listen():
            train(network, task, run, monitored=True, evaluated=False)
        network.finished &= not run.stopping
    began = time.perf_counter()
    measure_lags(network, options)
    network.seconds = time.perf_counter() - began
    horizon = network.lags.horizon()
    line = f"{network.cell:<6}  horizon {'beyond' if horizon is None else horizon:>6}   "
    line += f"half-life {network.half_life:6.3g}   measured in {network.seconds:.1f} s"
    if task is not None:
        line += f", after {network.monitor.steps} steps of training, "
        line += f"{network.monitor.overhead:.1%} of it for the monitor"
    return line
