"""What the demo found, and ``results.json``, which holds all of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

import bptt

from .distance import ByDistance, ByLossStep
from .plan import Network, Settings
from .training import TrainingStep

__all__ = ["History", "Measured", "NetworkResult", "Results", "spectral_radius"]


@dataclass
class History:
    """The course of one training.

    Attributes
    ----------
    loss, norm : list of float
        For each step: mean loss of the minibatch in nats; gradient norm before clipping.
    evaluated : list of int
        After how many steps the held-out images were looked at; 0 is before training.
    accuracy : list of float
        Share of the held-out images that are classified right.
    far_over_near : list of float
        Median over the held-out images of ||dL/dS_1|| / ||dL/dS_T||, L the loss at the last step.
    """

    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    far_over_near: list[float] = field(default_factory=list)

    def add_step(self, step: TrainingStep) -> None:
        self.loss.append(step.loss)
        self.norm.append(step.norm)

    def add_evaluation(self, accuracy: float, far_over_near: float) -> None:
        self.evaluated.append(len(self.loss))
        self.accuracy.append(accuracy)
        self.far_over_near.append(far_over_near)

    def recent_loss(self, steps: int) -> float:
        """Mean loss of the last `steps` steps; NaN before the first."""
        recent = self.loss[-steps:]
        return sum(recent) / len(recent) if recent else math.nan


@dataclass
class Measured:
    """One network at one moment: the spectral radius of its W_s, and its gradient by distance."""

    radius: float
    gradient: ByDistance


@dataclass
class NetworkResult:
    """Everything measured on one network.

    Attributes
    ----------
    params_file : str
        The trained parameters, relative to the demo's folder.
    before, after : Measured
        Early (before the first step) and late (after the last).
    by_loss_step : ByLossStep
        Before training, with the loss read at other steps.
    finished : bool
        False if training was interrupted; the numbers are of the moment it stopped.
    """

    network: Network
    params_file: str
    before: Measured
    by_loss_step: ByLossStep
    history: History
    after: Measured
    finished: bool
    seconds: float


@dataclass
class Results:
    """All networks of one run.

    Attributes
    ----------
    settings : Settings
    backend : str
        The backend that ran; ``settings.backend`` is the one that was asked for.
    data : dict
        What was trained on.
    networks : list of NetworkResult
        Those that training has come to, in the order of ``settings.networks()``.
    status : str
        "running", "complete" or "interrupted".
    """

    settings: Settings
    backend: str
    data: dict[str, Any]
    networks: list[NetworkResult] = field(default_factory=list)
    status: str = "running"

    @property
    def interrupted(self) -> bool:
        return self.status == "interrupted"

    @property
    def cells(self) -> list[str]:
        """The cells that training has come to."""
        return list(dict.fromkeys(result.network.cell for result in self.networks))

    @property
    def radii(self) -> list[float]:
        """The spectral radii that training has come to."""
        return list(dict.fromkeys(result.network.radius for result in self.networks))

    def of_cell(self, cell: str) -> list[NetworkResult]:
        return [result for result in self.networks if result.network.cell == cell]

    def to_json(self) -> str:
        """As strict JSON: numbers to seven digits, null where a number is not finite."""
        found = {**_plain(self), "bptt": bptt.info().to_dict()}
        return json.dumps(found, indent=1, allow_nan=False) + "\n"


def spectral_radius(params: bptt.Params) -> float:
    """Largest modulus of the eigenvalues of W_s."""
    return float(np.abs(np.linalg.eigvals(params.w_hh.astype("float64"))).max())


def _plain(value: Any) -> Any:
    """`value` as dicts, lists, strings and numbers that JSON knows."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
