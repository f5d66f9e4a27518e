"""What the demo on digits found; ``results.json`` holds all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import bptt

from .distance import ByDistance, ByLossStep
from .gates import DirectRoute
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
    epoch_seconds : list of float
        Wall-clock time of each epoch's steps, without the evaluation that follows.
    evaluated : list of int
        After how many steps the held-out images were looked at; 0 is before training.
    accuracy : list of float
        Share of the held-out images that are classified right.
    far_over_near : list of float
        Median over the held-out images of ||dL/dS_1|| / ||dL/dS_T||, L the loss at the last step.
    """

    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
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

    @property
    def median_epoch_seconds(self) -> float:
        """NaN before the end of the first epoch."""
        return float(np.median(self.epoch_seconds)) if self.epoch_seconds else math.nan

    def recent_loss(self, steps: int) -> float:
        """Mean loss of the last `steps` steps; NaN before the first."""
        recent = self.loss[-steps:]
        return sum(recent) / len(recent) if recent else math.nan


@dataclass
class Measured:
    """One network at one moment.

    Attributes
    ----------
    radius : float
        Spectral radius of W_s, the largest of all gates.
    gradient : ByDistance
    route : DirectRoute or None
        What the gate on the direct route lets through, if there is one.
    """

    radius: float
    gradient: ByDistance
    route: DirectRoute | None


@dataclass
class NetworkResult:
    """Everything measured on one network.

    Attributes
    ----------
    params_file : str
        The trained parameters, relative to the demo's folder.
    parameters : int
        How many numbers were trained.
    before, after : Measured
        Early (before the first step) and late (after the last).
    by_loss_step : ByLossStep
        Before training, with the loss read at other steps.
    monitor : LagMonitor
        The horizon in the course of training.
    finished : bool
        False if training was interrupted; the numbers are of the moment it stopped.
    """

    network: Network
    params_file: str
    parameters: int
    before: Measured
    by_loss_step: ByLossStep
    history: History
    monitor: bptt.LagMonitor
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
    def elman(self) -> list[NetworkResult]:
        """The networks of the text, which differ in cell and radius."""
        return [result for result in self.networks if not result.network.gated]

    @property
    def compared(self) -> list[NetworkResult]:
        """Those of equal start and size: tanh and the gated cells."""
        radius = self.settings.compared_radius
        return [
            result
            for result in self.networks
            if result.network.radius == radius and result.network.cell != "linear"
        ]

    @property
    def cells(self) -> list[str]:
        """The text's cells that training has come to."""
        return list(dict.fromkeys(result.network.cell for result in self.elman))

    @property
    def radii(self) -> list[float]:
        """The spectral radii that training has come to."""
        return list(dict.fromkeys(result.network.radius for result in self.elman))

    def of_cell(self, cell: str) -> list[NetworkResult]:
        return [result for result in self.networks if result.network.cell == cell]


def spectral_radius(params: bptt.Params) -> float:
    """Largest modulus of the eigenvalues of W_s, of all gates."""
    hidden = params.hidden_size
    gates = params.w_hh.astype("float64").reshape(-1, hidden, hidden)
    return float(np.abs(np.linalg.eigvals(gates)).max())
