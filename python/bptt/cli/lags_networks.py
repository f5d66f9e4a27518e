"""What ``bptt lags`` measures: networks of the built-in tasks, or one that was saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

import bptt
from bptt import files
from bptt.checks import Array

from . import task_adding, task_digits
from .digits import load_digits
from .errors import CommandError
from .training import TrainingStep

__all__ = ["TASKS", "Network", "network_of_file", "networks_of_task"]

_ADDING_STEPS = 100


@dataclass(frozen=True, eq=False)
class Network:
    """One network, the data that it is measured on, and how it is trained before.

    Attributes
    ----------
    about : str
        What the data are.
    train : callable or None
        Trains `params` in place, step by step, with a monitor.
    training_steps : int
    """

    cell: str
    params: bptt.Params
    x: Array
    target: Array
    loss: str
    at: str | int
    about: str
    train: Callable[[bptt.LagMonitor], Iterator[TrainingStep]] | None = None
    training_steps: int = 0


def networks_of_task(
    task: str, cells: Sequence[str], seed: int, backend: str, *, quick: bool, untrained: bool
) -> list[Network]:
    """Networks of as many parameters, on sequences that are held out of their training."""
    found = TASKS[task](cells, seed, backend, quick)
    if untrained:
        return [Network(**{**vars(n), "train": None, "training_steps": 0}) for n in found]
    return found


def _digits(cells: Sequence[str], seed: int, backend: str, quick: bool) -> list[Network]:
    settings = task_digits.Settings.make(seed=seed, backend=backend, quick=quick)
    data = load_digits(settings.test_images, seed)
    networks = {n.cell: n for n in settings.networks() if n.radius == settings.compared_radius}
    found = []
    for cell in cells:
        params = settings.init_params(networks[cell])
        train = partial(task_digits.training, networks[cell], params, settings, data)
        found.append(
            Network(
                cell,
                params,
                data.x_test,
                data.y_test,
                "cross_entropy",
                "last",
                f"{len(data.y_test)} held-out digits, read pixel by pixel",
                train,
                task_digits.training_steps(data, settings),
            )
        )
    return found


def _adding(cells: Sequence[str], seed: int, backend: str, quick: bool) -> list[Network]:
    settings = task_adding.Settings.make(seed=seed, backend=backend, quick=quick)
    x, sums = task_adding.held_out_sequences(_ADDING_STEPS, settings)
    networks = {n.cell: n for n in settings.networks() if n.steps == _ADDING_STEPS}
    found = []
    for cell in cells:
        params = settings.init_params(networks[cell])
        train = partial(task_adding.training, networks[cell], params, settings)
        about = f"{len(sums)} held-out sequences of the adding problem"
        found.append(
            Network(
                cell,
                params,
                x,
                sums,
                "squared_error",
                "last",
                about,
                train,
                settings.training_steps,
            )
        )
    return found


TASKS: dict[str, Callable[[Sequence[str], int, str, bool], list[Network]]] = {
    "digits": _digits,
    "adding": _adding,
}


def network_of_file(
    params: str, data: str, cell: str | None, loss: str | None, at: str | int | None
) -> Network:
    """The network and the data in two files.

    Raises
    ------
    CommandError
        If they cannot be read, or do not hold what they should.
    """
    with _read_of("--params", params):
        loaded, saved_cell = bptt.Params.load(params), bptt.Params.saved_cell(params)
    with _read_of("--data", data):
        arrays = files.read_arrays(data)
    if not {"x", "target"} <= set(arrays):
        raise CommandError(
            f"--data: {data!r} holds {sorted(arrays)}, expected the arrays x and target"
        )
    x, target = arrays["x"], arrays["target"]
    if x.dtype.kind != "f" or x.ndim != 3:
        raise CommandError(
            f"--data: {data!r}: x: expected floats of shape (T, B, I), got {x.dtype} {x.shape}"
        )
    if not np.isfinite(x).all():
        raise CommandError(f"--data: {data!r}: x: expected finite numbers, got inf or nan")
    if loss is None:
        loss = "cross_entropy" if target.dtype.kind in "iu" else "squared_error"
    cell = _cell_of(params, saved_cell, cell)
    return Network(cell, loaded, x, target, loss, "all" if at is None else at, "data of a file")


@contextmanager
def _read_of(option: str, name: str) -> Iterator[None]:
    """What reading a file raises, as an error of the option that named it."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{option}: cannot read {name}: {error.strerror or error}") from None
    except (ValueError, TypeError, MemoryError) as error:
        raise CommandError(f"{option}: {str(error).removeprefix('path: ')}") from None


def _cell_of(params: str, saved: str | None, given: str | None) -> str:
    """The cell of a file of parameters: that which it was saved with, or else the one given."""
    cell = given or saved
    if cell is None:
        raise CommandError(f"--cell: expected it, since {params} was saved without a cell")
    if saved not in (None, cell):
        raise CommandError(f"--cell: {params} was saved with cell {saved!r}, got {cell!r}")
    if cell not in bptt.CELLS:
        raise CommandError(f"--params: {params} is for cell {cell!r}, which is no cell of bptt's")
    return cell
