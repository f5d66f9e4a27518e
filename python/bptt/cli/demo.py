"""``bptt demo``: train small networks and see how far back their gradients reach."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import bptt

from . import task_adding, task_digits
from .arguments import path
from .backend_choice import backends_used
from .extra import TRAINING, require
from .folder import DEFAULT_FOLDER, open_folder
from .interrupt import Interrupt

__all__ = ["add_parser", "run"]

# Each is a module with CELLS, Settings, file_names, train_all, write_report and summary.
_TASKS = {"digits": task_digits, "adding": task_adding}


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "demo",
        help="train small networks and see how their gradients fade",
        description="Trains small recurrent networks and writes a report of how their gradients "
        "depend on the distance in time: parameters, results.json, figures and report.html. On two "
        "cores that do nothing else it takes about a minute.",
    )
    parser.add_argument(
        "--task",
        choices=tuple(_TASKS),
        default="digits",
        help="digits: linear, tanh, GRU and LSTM networks on scikit-learn's digits, each image a "
        "sequence of 64 pixels (the default); adding: tanh, GRU and LSTM on the adding problem of "
        "Hochreiter & Schmidhuber, over 50, 100 and 200 steps",
    )
    parser.add_argument("--quick", action="store_true", help="train a tenth as long")
    parser.add_argument("--seed", type=_seed, default=0, help="an integer from 0 (default: 0)")
    parser.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        help=f"a new or empty folder (default: {DEFAULT_FOLDER}, numbered if it exists)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the files of an earlier demo in the folder"
    )
    parser.add_argument(
        "--backend", choices=("auto", *bptt.backends()), default="auto", help="default: auto"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check everything that can fail, train, measure, write. Exit code 130 if interrupted."""
    task = _TASKS[args.task]
    backends_used(args.backend, task.CELLS)
    require(TRAINING)
    settings = task.Settings.make(seed=args.seed, backend=args.backend, quick=args.quick)
    names = [name for each in _TASKS.values() for name in each.file_names()]
    folder = open_folder(args.out, force=args.force, names=names)
    with Interrupt() as interrupt:
        results = task.train_all(settings, folder, interrupt)
        if interrupt.requested:
            print("Writing what is done so far (Ctrl-C again to stop at once) ...", file=sys.stderr)
        task.write_report(results, folder)
    kept = "Interrupted: what was done is kept." if interrupt.requested else ""
    report = f"Report: {folder / 'report.html'}"
    print("\n".join(filter(None, (kept, task.summary(results), report))))
    return 130 if interrupt.requested else 0


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer from 0, got {text!r}")
    return int(text)
