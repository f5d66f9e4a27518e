"""What the demo on the adding problem trains, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field

import bptt

from .distance import ByDistance
from .sizes import equal_hidden_size

__all__ = ["Course", "Network", "NetworkResult", "Results", "Settings"]


@dataclass(frozen=True)
class Network:
    """One network: its cell and width, and the length of the sequences that it learns."""

    cell: str
    hidden_size: int
    steps: int

    @property
    def params_file(self) -> str:
        """Where its trained parameters go, relative to the demo's folder."""
        return f"params/{self.cell}-steps-{self.steps}.npz"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers, as it stands in ``results.json``."""

    seed: int = 0
    backend: str = "auto"
    quick: bool = False
    cells: tuple[str, ...] = ("tanh", "gru", "lstm")
    lengths: tuple[int, ...] = (50, 100, 200)
    # Of the tanh cell; the others get as many parameters.
    hidden_size: int = 64
    # Every gate's block of W_s starts as this times an orthogonal matrix.
    radius: float = 1.0
    batch_size: int = 64
    training_steps: int = 3000
    steps_per_evaluation: int = 50
    learning_rate: float = 3e-3
    clip_norm: float = 1.0
    held_out: int = 500

    @classmethod
    def make(cls, *, seed: int, backend: str, quick: bool) -> Settings:
        """The full demo, or one that trains for a tenth as long."""
        if quick:
            return cls(seed, backend, quick, training_steps=300)
        return cls(seed, backend, quick)

    def networks(self) -> list[Network]:
        """Short sequences first."""
        sizes = {
            cell: equal_hidden_size(cell, 2, 1, like=("tanh", self.hidden_size))
            for cell in self.cells
        }
        return [Network(cell, sizes[cell], steps) for steps in self.lengths for cell in self.cells]

    def init_params(self, network: Network) -> bptt.Params:
        """The gate that keeps a memory starts open, for times up to the length of the sequence."""
        gated = bptt.CELLS[network.cell].keeps is not None
        return bptt.init_params(
            network.cell,
            input_size=2,
            hidden_size=network.hidden_size,
            output_size=1,
            spectral_radius=self.radius,
            chrono=network.steps if gated else None,
            rng=self.seed,
        )


@dataclass
class Course:
    """The course of one training.

    Attributes
    ----------
    loss : list of float
        For each step: mean of half the squared error over the batch, whose sequences are new.
    evaluated : list of int
        After how many steps the held-out sequences were looked at; 0 is before training.
    mse : list of float
        Mean squared error on them, not halved.
    """

    loss: list[float] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    mse: list[float] = field(default_factory=list)

    def add_evaluation(self, mse: float) -> None:
        self.evaluated.append(len(self.loss))
        self.mse.append(mse)


@dataclass
class NetworkResult:
    """Everything measured on one network.

    Attributes
    ----------
    parameters : int
        How many numbers were trained.
    before, after : ByDistance
        Its gradient before the first step and after the last.
    finished : bool
        False if training was interrupted; the numbers are of the moment it stopped.
    """

    network: Network
    params_file: str
    parameters: int
    before: ByDistance
    course: Course
    after: ByDistance
    finished: bool
    seconds: float


@dataclass
class Results:
    """All networks of one run.

    Attributes
    ----------
    backend : str
        The backend that ran; ``settings.backend`` is the one that was asked for.
    answering_one : dict of int to float
        For each length, the mean squared error of the answer 1 on the held-out sequences.
    status : str
        "running", "complete" or "interrupted".
    """

    settings: Settings
    backend: str
    answering_one: dict[int, float]
    networks: list[NetworkResult] = field(default_factory=list)
    status: str = "running"

    @property
    def interrupted(self) -> bool:
        return self.status == "interrupted"

    @property
    def lengths(self) -> list[int]:
        """The lengths that training has come to."""
        return list(dict.fromkeys(result.network.steps for result in self.networks))

    def of_length(self, steps: int) -> list[NetworkResult]:
        return [result for result in self.networks if result.network.steps == steps]
