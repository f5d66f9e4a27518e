"""``bptt demo --task adding``: tanh, GRU and LSTM on the adding problem, for several T."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import bptt
from bptt import files
from bptt.checks import Array

from .adding import draw, sequences
from .adding_report import FIGURES, write_report
from .adding_results import Course, Network, NetworkResult, Results, Settings
from .backend_choice import backends_used
from .distance import gradient_by_distance
from .interrupt import Interrupt
from .json_text import to_json
from .progress import ProgressBar
from .training import TrainingStep, read_out, train

__all__ = [
    "CELLS",
    "Settings",
    "file_names",
    "held_out_sequences",
    "summary",
    "train_all",
    "training",
    "write_report",
]

CELLS = Settings.cells

_HeldOut = tuple[Array, Array]


def file_names() -> list[str]:
    """Every file that the demo writes, relative to its folder."""
    params = [network.params_file for network in Settings().networks()]
    return ["results.json", "report.html", *FIGURES, *params]


def train_all(settings: Settings, folder: Path, interrupt: Interrupt) -> Results:
    """Train the networks one by one, saving after each what is known so far."""
    held_out = {steps: held_out_sequences(steps, settings) for steps in settings.lengths}
    answering_one = {steps: float(np.mean((1 - y) ** 2)) for steps, (_, y) in held_out.items()}
    results = Results(settings, backends_used(settings.backend, CELLS), answering_one)
    networks = settings.networks()
    with ProgressBar(len(networks), len(networks) * settings.training_steps) as progress:
        for network in networks:
            if interrupt.requested:
                break
            progress.begin(f"{network.cell}, T = {network.steps}")
            params = settings.init_params(network)
            known = held_out[network.steps]
            result = _train_network(network, params, settings, known, progress, interrupt)
            params.save(folder / network.params_file, cell=network.cell)
            results.networks.append(result)
            _save(results, folder)
            progress.finish(_line(result))
    done = sum(result.finished for result in results.networks)
    results.status = "complete" if done == len(networks) else "interrupted"
    _save(results, folder)
    return results


def summary(results: Results) -> str:
    """What a person reads on the terminal at the end."""
    lines = []
    for steps in results.lengths:
        errors = ", ".join(
            f"{r.network.cell} {r.course.mse[-1]:.2g}" for r in results.of_length(steps)
        )
        lines.append(
            f"T = {steps}: mean squared error {errors}; answering 1: "
            f"{results.answering_one[steps]:.2g}."
        )
    return "\n".join(lines)


def training(
    network: Network,
    params: bptt.Params,
    settings: Settings,
    monitor: bptt.LagMonitor | None = None,
) -> Iterator[TrainingStep]:
    """Train `params` in place, step by step."""
    return train(
        network.cell,
        params,
        sequences(network.steps, settings.batch_size, settings.seed),
        loss="squared_error",
        steps=settings.training_steps,
        learning_rate=settings.learning_rate,
        clip_norm=settings.clip_norm,
        backend=settings.backend,
        monitor=monitor,
    )


def held_out_sequences(steps: int, settings: Settings) -> _HeldOut:
    """Sequences of their own stream of random numbers, so that no batch has them."""
    return draw(steps, settings.held_out, np.random.default_rng((settings.seed, steps)))


def _train_network(
    network: Network,
    params: bptt.Params,
    settings: Settings,
    held_out: _HeldOut,
    progress: ProgressBar,
    interrupt: Interrupt,
) -> NetworkResult:
    """Train `params` in place; measure its gradients before and after."""
    began = time.perf_counter()
    before = gradient_by_distance(
        network.cell, params, *held_out, loss="squared_error", backend=settings.backend
    )
    course = _follow(network, params, settings, held_out, progress, interrupt)
    after = gradient_by_distance(
        network.cell, params, *held_out, loss="squared_error", backend=settings.backend
    )
    return NetworkResult(
        network=network,
        params_file=network.params_file,
        parameters=sum(array.size for array in params.arrays().values()),
        before=before,
        course=course,
        after=after,
        finished=len(course.loss) == settings.training_steps,
        seconds=time.perf_counter() - began,
    )


def _follow(
    network: Network,
    params: bptt.Params,
    settings: Settings,
    held_out: _HeldOut,
    progress: ProgressBar,
    interrupt: Interrupt,
) -> Course:
    """The course of training `params`, which ends early if it is interrupted."""
    course = Course()
    course.add_evaluation(_mse(network, params, held_out, settings.backend))
    for step in training(network, params, settings):
        course.loss.append(step.loss)
        if len(course.loss) % settings.steps_per_evaluation == 0:
            course.add_evaluation(_mse(network, params, held_out, settings.backend))
        progress.step(f"mean squared error {course.mse[-1]:<8.3g}")
        if interrupt.requested:
            break
    if course.evaluated[-1] < len(course.loss):
        course.add_evaluation(_mse(network, params, held_out, settings.backend))
    return course


def _mse(network: Network, params: bptt.Params, held_out: _HeldOut, backend: str) -> float:
    x, sums = held_out
    with bptt.forward(network.cell, params, x, backend=backend) as tape:
        return float(np.mean((read_out(params, tape.y[-1]) - sums) ** 2))


def _line(result: NetworkResult) -> str:
    """What is printed of a network when its training ends."""
    network, course = result.network, result.course
    return (
        f"T = {network.steps:<3}  {network.cell:<4}   {result.parameters} parameters   "
        f"mean squared error {course.mse[0]:.3f} -> {course.mse[-1]:<8.2g} "
        f"{len(course.loss):5d} steps in {result.seconds:.1f} s"
        f"{'' if result.finished else '   (interrupted)'}"
    )


def _save(results: Results, folder: Path) -> None:
    files.write(folder / "results.json", to_json(results))
