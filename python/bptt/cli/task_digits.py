"""``bptt demo --task digits``: eight networks that read digits, and how far back they learn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import bptt
from bptt import files

from .backend_choice import backends_used
from .digits import Digits, load_digits
from .distance import far_over_near, gradient_by_distance, gradient_by_loss_step
from .figures import FIGURES
from .gates import direct_route
from .interrupt import Interrupt
from .json_text import to_json
from .plan import Network, Settings
from .progress import ProgressBar
from .report import write_report
from .results import History, Measured, NetworkResult, Results, spectral_radius
from .training import MONITORED, TrainingStep, accuracy, train

__all__ = [
    "CELLS",
    "Settings",
    "file_names",
    "summary",
    "train_all",
    "training",
    "training_steps",
    "write_report",
]

CELLS = (*Settings.cells, *Settings.gated_cells)


def file_names() -> list[str]:
    """Every file that the demo writes, relative to its folder."""
    params = [network.params_file for network in Settings().networks()]
    return ["results.json", "report.html", *FIGURES, *params]


def train_all(settings: Settings, folder: Path, interrupt: Interrupt) -> Results:
    """Train the networks one by one, saving after each what is known so far."""
    data = load_digits(settings.test_images, settings.seed)
    networks = settings.networks()
    per_epoch = _steps_per_epoch(data, settings)
    results = Results(settings, backends_used(settings.backend, CELLS), data.describe())
    with ProgressBar(len(networks), len(networks) * settings.epochs * per_epoch) as progress:
        for network in networks:
            if interrupt.requested:
                break
            progress.begin(f"{network.cell}, radius {network.radius}")
            params = settings.init_params(network)
            result = _train_network(network, params, settings, data, progress, interrupt)
            params.save(folder / network.params_file, cell=network.cell)
            results.networks.append(result)
            _save(results, folder)
            progress.finish(_line(result, per_epoch))
    done = sum(result.finished for result in results.networks)
    results.status = "complete" if done == len(networks) else "interrupted"
    _save(results, folder)
    return results


def summary(results: Results) -> str:
    """What a person reads on the terminal at the end."""
    linear = results.of_cell("linear")
    if not linear:
        return ""
    far = results.data["steps"] - 1
    factors = ", ".join(f"{r.before.gradient.relative[-1]:.2g}" for r in linear)
    powers = ", ".join(f"{r.network.radius}^{far}" for r in linear)
    return (
        f"Over {far} steps, the gradient of the untrained linear networks changed by factors "
        f"of {factors}; the formula says {powers}."
    )


def training(
    network: Network,
    params: bptt.Params,
    settings: Settings,
    data: Digits,
    monitor: bptt.LagMonitor | None = None,
) -> Iterator[TrainingStep]:
    """Train `params` in place, step by step."""
    return train(
        network.cell,
        params,
        data.minibatches(settings.batch_size, settings.seed),
        loss="cross_entropy",
        steps=training_steps(data, settings),
        learning_rate=settings.rate(network),
        clip_norm=settings.clip_norm,
        backend=settings.backend,
        monitor=monitor,
    )


def training_steps(data: Digits, settings: Settings) -> int:
    """How many steps a training has."""
    return settings.epochs * _steps_per_epoch(data, settings)


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
    before, loss_steps = _measure(network, params, data, settings), np.array(settings.loss_steps)
    by_loss_step = gradient_by_loss_step(
        network.cell,
        params,
        data.x_test,
        data.y_test,
        loss_steps=loss_steps,
        backend=settings.backend,
    )
    monitor = bptt.LagMonitor(sample=MONITORED, backend=settings.backend, rng=settings.seed)
    history = _follow(network, params, settings, data, monitor, progress, interrupt)
    return NetworkResult(
        network=network,
        params_file=network.params_file,
        parameters=sum(array.size for array in params.arrays().values()),
        before=before,
        by_loss_step=by_loss_step,
        history=history,
        monitor=monitor,
        after=_measure(network, params, data, settings),
        finished=len(history.loss) == training_steps(data, settings),
        seconds=time.perf_counter() - began,
    )


def _follow(
    network: Network,
    params: bptt.Params,
    settings: Settings,
    data: Digits,
    monitor: bptt.LagMonitor,
    progress: ProgressBar,
    interrupt: Interrupt,
) -> History:
    """The course of training `params`, which ends early if it is interrupted."""
    per_epoch, history = _steps_per_epoch(data, settings), History()
    _evaluate(network, params, data, settings, history)
    began = time.perf_counter()
    for step in training(network, params, settings, data, monitor):
        history.add_step(step)
        if len(history.loss) % per_epoch == 0:
            history.epoch_seconds.append(time.perf_counter() - began)
            _evaluate(network, params, data, settings, history)
            began = time.perf_counter()
        loss = history.recent_loss(per_epoch)
        progress.step(f"loss {loss:<8.3g} accuracy {history.accuracy[-1]:4.0%}")
        if interrupt.requested:
            break
    if history.evaluated[-1] < len(history.loss):
        _evaluate(network, params, data, settings, history)
    return history


def _evaluate(
    network: Network, params: bptt.Params, data: Digits, settings: Settings, history: History
) -> None:
    """Add the held-out accuracy, and how far back the gradient reaches."""
    cell, x, labels, backend = network.cell, data.x_test, data.y_test, settings.backend
    with bptt.forward(cell, params, x, backend=backend) as tape:
        history.add_evaluation(
            accuracy(params, tape.y[-1], labels),
            far_over_near(cell, params, tape, x, labels, backend=backend),
        )


def _measure(network: Network, params: bptt.Params, data: Digits, settings: Settings) -> Measured:
    """The network as it is now, on the held-out images."""
    cell, x, backend = network.cell, data.x_test, settings.backend
    return Measured(
        spectral_radius(params),
        gradient_by_distance(cell, params, x, data.y_test, backend=backend),
        direct_route(cell, params, x, backend=backend),
    )


def _steps_per_epoch(data: Digits, settings: Settings) -> int:
    """Full minibatches in the training images."""
    return len(data.y_train) // settings.batch_size


def _line(result: NetworkResult, per_epoch: int) -> str:
    """What is printed of a network when its training ends."""
    network, history = result.network, result.history
    loss = history.recent_loss(per_epoch)
    before, after = history.far_over_near[0], history.far_over_near[-1]
    return (
        f"{network.cell:<6}  radius {network.radius}   loss {loss:8.3g}   "
        f"held-out accuracy {history.accuracy[-1]:6.1%}   first/last gradient {before:7.2g} -> "
        f"{after:<7.2g} {len(history.loss):4d} steps in {result.seconds:.1f} s"
        f"{'' if result.finished else '   (interrupted)'}"
    )


def _save(results: Results, folder: Path) -> None:
    files.write(folder / "results.json", to_json(results))
