"""``bptt demo``: train six networks on real data and see how far back their gradients reach."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import bptt

from .digits import Digits, load_digits
from .distance import far_over_near, gradient_by_distance, gradient_by_loss_step
from .errors import CommandError
from .figures import FIGURES
from .folder import DEFAULT_FOLDER, open_folder, write_file
from .interrupt import Interrupt
from .plan import Network, Settings
from .progress import ProgressBar
from .report import write_report
from .results import History, Measured, NetworkResult, Results, spectral_radius
from .training import accuracy, steps_per_epoch, train

__all__ = ["add_parser", "run"]

# What the extra `demo` brings: the module that is imported, and the name pip knows.
_EXTRA = {
    "matplotlib.figure": "matplotlib",
    "sklearn.datasets": "scikit-learn",
    "tqdm": "tqdm",
}


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "demo",
        help="train small networks on real digits and see how their gradients fade",
        description="Trains tanh and linear networks on scikit-learn's digits, each image a "
        "sequence of 64 pixels, and writes a report of how their gradients depend on the "
        "distance in time: parameters, results.json, figures and report.html.",
    )
    parser.add_argument("--quick", action="store_true", help="train a tenth as long")
    parser.add_argument("--seed", type=_seed, default=0, help="an integer from 0 (default: 0)")
    parser.add_argument(
        "--out",
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
    _require_backend(args.backend)
    _require_extra()
    settings = Settings.make(seed=args.seed, backend=args.backend, quick=args.quick)
    folder = open_folder(args.out, force=args.force, names=file_names(settings))
    try:
        with Interrupt() as interrupt:
            results = _train_all(settings, folder, interrupt)
            write_report(results, folder)
    except OSError as error:
        raise CommandError(f"stopped: {error}", exit_code=1) from error
    print(_summary(results, folder))
    return 130 if interrupt.requested else 0


def file_names(settings: Settings) -> list[str]:
    """Every file that the demo writes, relative to its folder."""
    params = [network.params_file for network in settings.networks()]
    return ["results.json", "report.html", *FIGURES, *params]


def _train_all(settings: Settings, folder: Path, interrupt: Interrupt) -> Results:
    """Train the networks one by one, saving after each what is known so far."""
    data = load_digits(settings.test_images, settings.seed)
    networks, per_epoch = settings.networks(), steps_per_epoch(data, settings)
    results = Results(settings, _backend_used(settings), data.describe())
    with ProgressBar(len(networks), settings.epochs * per_epoch) as progress:
        for network in networks:
            if interrupt.requested:
                break
            progress.begin(network)
            params = settings.init_params(network)
            result = _train_network(network, params, settings, data, progress, interrupt)
            params.save(folder / network.params_file)
            results.networks.append(result)
            _save(results, folder)
            progress.finish(result, result.history.recent_loss(per_epoch))
    if interrupt.requested:
        print("Writing what is done so far (Ctrl-C again to stop at once) ...", file=sys.stderr)
    done = sum(result.finished for result in results.networks)
    results.status = "complete" if done == len(networks) else "interrupted"
    _save(results, folder)
    return results


def _train_network(
    network: Network,
    params: bptt.Params,
    settings: Settings,
    data: Digits,
    progress: ProgressBar,
    interrupt: Interrupt,
) -> NetworkResult:
    """Train `params` in place; measure its gradients before and after."""
    began = time.perf_counter()
    per_epoch = steps_per_epoch(data, settings)
    held_out = (network.cell, params, data.x_test, data.y_test)
    backend, loss_steps = settings.backend, np.array(settings.loss_steps)
    before = Measured(spectral_radius(params), gradient_by_distance(*held_out, backend=backend))
    by_loss_step = gradient_by_loss_step(*held_out, loss_steps=loss_steps, backend=backend)
    history = History()
    _evaluate(network.cell, params, data, backend, history)
    for step in train(network.cell, params, data, settings):
        history.add_step(step)
        if step.epoch_ends:
            _evaluate(network.cell, params, data, backend, history)
        progress.step(history.recent_loss(per_epoch), history.accuracy[-1])
        if interrupt.requested:
            break
    if history.evaluated[-1] < len(history.loss):
        _evaluate(network.cell, params, data, backend, history)
    after = Measured(spectral_radius(params), gradient_by_distance(*held_out, backend=backend))
    return NetworkResult(
        network=network,
        params_file=network.params_file,
        before=before,
        by_loss_step=by_loss_step,
        history=history,
        after=after,
        finished=len(history.loss) == settings.epochs * per_epoch,
        seconds=time.perf_counter() - began,
    )


def _evaluate(cell: str, params: bptt.Params, data: Digits, backend: str, history: History) -> None:
    """Add the held-out accuracy, and how far back the gradient reaches."""
    x, labels = data.x_test, data.y_test
    y = bptt.forward(cell, params, x, backend=backend).y
    history.add_evaluation(
        accuracy(params, y[-1], labels),
        far_over_near(cell, params, y, x, labels, backend=backend),
    )


def _backend_used(settings: Settings) -> str:
    """What ``auto`` stands for here."""
    network = settings.networks()[0]
    params = settings.init_params(network)
    nothing = np.zeros((0, 0, 1), params.dtype)
    return bptt.forward(network.cell, params, nothing, backend=settings.backend).backend


def _save(results: Results, folder: Path) -> None:
    write_file(folder / "results.json", results.to_json())


def _summary(results: Results, folder: Path) -> str:
    """What a person reads on the terminal at the end."""
    lines = ["Interrupted: what was done is kept."] if results.interrupted else []
    linear = results.of_cell("linear")
    if linear:
        far = results.data["steps"] - 1
        factors = ", ".join(f"{r.before.gradient.relative[-1]:.2g}" for r in linear)
        powers = ", ".join(f"{r.network.radius}^{far}" for r in linear)
        lines.append(
            f"Over {far} steps, the gradient of the untrained linear networks changed by factors "
            f"of {factors}; the formula says {powers}."
        )
    lines.append(f"Report: {folder / 'report.html'}")
    return "\n".join(lines)


def _require_backend(name: str) -> None:
    """Let an empty call say what is wrong before any work is done."""
    params = bptt.init_params("tanh", input_size=1, hidden_size=1)
    try:
        bptt.forward("tanh", params, np.empty((0, 0, 1), np.float32), backend=name)
    except (ImportError, RuntimeError, ValueError) as error:
        raise CommandError(f"--backend {name}: {error}") from None


def _require_extra() -> None:
    """Import what the demo needs beyond NumPy, before anything is created."""
    for module, package in _EXTRA.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise CommandError(
                f"needs {package}, which cannot be imported ({error}); "
                "install it with: pip install 'bptt[demo]'"
            ) from None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer from 0, got {text!r}")
    return int(text)
