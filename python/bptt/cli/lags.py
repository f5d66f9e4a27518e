"""``bptt lags``: how far back the gradient of a network reaches, as figures and a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bptt
from bptt import files

from .arguments import path
from .backend_choice import backends_used
from .errors import CommandError
from .extra import DRAWING, TRAINING, require
from .folder import open_folder
from .interrupt import Interrupt
from .json_text import to_json
from .lags_figures import FIGURES
from .lags_measured import Measured, Options, Results, check, measure
from .lags_networks import TASKS, Network, network_of_file, networks_of_task
from .lags_report import write_report
from .progress import ProgressBar
from .training import MONITORED

__all__ = ["add_parser", "run"]

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
    parser.add_argument("--seed", type=int, default=0, help="an integer from 0 (default: 0)")
    parser.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        help=f"a new or empty folder (default: {DEFAULT_FOLDER}, numbered if it exists)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the files of an earlier report in the folder"
    )
    parser.add_argument(
        "--backend", choices=("auto", *bptt.backends()), default="auto", help="default: auto"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check everything that can fail, train, measure, write. Exit code 130 if interrupted."""
    if args.seed < 0:
        raise CommandError(f"--seed: expected an integer from 0, got {args.seed}")
    require(TRAINING if args.params is None else DRAWING)
    networks = _networks(args)
    used = backends_used(args.backend, [network.cell for network in networks])
    options = Options(args.backend, args.max_lag, args.lags, args.sample, args.seed)
    try:
        check(networks[0], options)
    except (TypeError, ValueError, MemoryError) as error:
        raise CommandError(str(error)) from None
    names = ["results.json", "report.html", *FIGURES]
    folder = open_folder(args.out, force=args.force, names=names, default=DEFAULT_FOLDER)
    first = networks[0]
    results = Results(options, used, first.about, first.loss, first.at, len(networks))
    _measure_all(networks, options, results, folder)
    write_report(results, folder)
    if results.interrupted:
        print("Interrupted: what was done is kept.")
    print(f"Report: {folder / 'report.html'}")
    return 130 if results.interrupted else 0


def _networks(args: argparse.Namespace) -> list[Network]:
    foreign, where = (_OF_TASKS, "with") if args.params is not None else (_OF_FILES, "without")
    for name, option in foreign.items():
        given = getattr(args, name)
        if given is not None and given is not False:  # 0 is a step
            raise CommandError(f"{option}: has no meaning {where} --params")
    if args.params is None:
        task = args.task or "digits"
        cells = args.cells or _CELLS
        return networks_of_task(
            task, cells, args.seed, args.backend, quick=args.quick, untrained=args.untrained
        )
    if args.data is None:
        raise CommandError("--data: expected it beside --params")
    return [network_of_file(args.params, args.data, args.cell, args.loss, args.at)]


def _measure_all(networks: list[Network], options: Options, results: Results, folder: Path) -> None:
    """Train and measure the networks one by one, saving after each what is known so far."""
    steps = sum(network.training_steps for network in networks)
    try:
        with ProgressBar(len(networks), steps) as progress:
            for network in networks:
                progress.begin(network.cell)
                monitor, stopped = _train(network, options, progress)
                found = measure(network, monitor, options)
                found.finished &= not stopped
                results.networks.append(found)
                _save(results, folder)
                progress.finish(_line(found))
                if not found.finished:
                    break
    except KeyboardInterrupt:
        pass  # between two networks, or before the first lag of one
    done = sum(found.finished for found in results.networks)
    results.status = "complete" if done == len(networks) else "interrupted"
    _save(results, folder)


def _train(
    network: Network, options: Options, progress: ProgressBar
) -> tuple[bptt.LagMonitor | None, bool]:
    """Train it in place if it is to be; whether Ctrl-C ended that."""
    if network.train is None:
        return None, False
    monitor = bptt.LagMonitor(sample=MONITORED, backend=options.backend, rng=options.seed)
    with Interrupt() as interrupt:
        for step in network.train(monitor):
            progress.step(f"loss {step.loss:<8.3g}")
            if interrupt.requested:
                return monitor, True
    return monitor, False


def _line(found: Measured) -> str:
    """What is printed of a network that was measured."""
    horizon = found.lags.horizon()
    line = f"{found.cell:<6}  horizon {'beyond' if horizon is None else horizon:>6}   "
    line += f"half-life {found.lags.half_life():6.3g}   measured in {found.seconds:.1f} s"
    if found.training is not None:
        line += f", after {found.training.steps} steps of training, "
        line += f"{found.training.overhead:.1%} of it for the monitor"
    return line + ("" if found.finished else "   (interrupted)")


def _save(results: Results, folder: Path) -> None:
    files.write(folder / "results.json", to_json(results))


def _cells(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if not set(found) <= set(_CELLS) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(_CELLS)}, got {text!r}")
    return found


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected integers such as 0,1,2,5, got {text!r}"
        ) from None


def _at(text: str) -> str | int:
    if text in ("all", "last"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected all, last or a step, got {text!r}") from None
