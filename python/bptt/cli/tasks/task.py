"""What a built-in task is: networks, the sequences that they learn, and how they are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import bptt
from bptt.checks import Array

from ..measure import far_over_near
from ..network import Network


@dataclass(frozen=True)
class Task(ABC):
    """Everything that decides the numbers of a run, as it stands in ``results.json``.

    A task is a subclass in a file of its own that defines the abstract methods, and a
    row of `bptt.cli.tasks.TASKS`. What the demo shows of it is a file in `bptt.cli.reports`.
    """

    inputs: ClassVar[int]
    outputs: ClassVar[int]
    loss: ClassVar[str]
    score_name: ClassVar[str]
    about: ClassVar[str]  # what its sequences are
    follows_reach: ClassVar[bool] = False  # how far the gradient reaches, in the demo's training
    quick_changes: ClassVar[dict[str, Any]]  # what lets it train a tenth as long

    seed: int = 0
    backend: str = "auto"
    quick: bool = False
    cells: tuple[str, ...] = ()
    hidden_size: int = 64  # of an Elman cell; a gated one gets as many parameters
    batch_size: int = 64
    training_steps: int = 0
    steps_per_evaluation: int = 1  # on the held-out sequences
    clip_norm: float = 1.0
    loss_steps: tuple[int, ...] = ()  # from one on, where the loss of the untrained is read, too

    @classmethod
    def make(cls, *, seed: int, backend: str, quick: bool) -> Task:
        return cls(seed, backend, quick, **(cls.quick_changes if quick else {}))

    @abstractmethod
    def networks(self) -> list[Network]:
        """All that the demo trains, without what `prepare` adds; `bptt lags` takes the compared."""

    @abstractmethod
    def held_out(self, steps: int) -> tuple[Array, Array]:
        """x (T, B, I) and targets that no batch has, of T = `steps`."""

    @abstractmethod
    def batches(self, steps: int) -> Iterator[tuple[Array, Array]]:
        """x and target of one step of training after the other, without end."""

    @abstractmethod
    def score(self, outputs: Array, target: Array) -> float:
        """How good outputs (B, O) of the last step are."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What ``results.json`` says of the data."""

    @abstractmethod
    def summary(self, networks: list[Network]) -> str:
        """What a person reads on the terminal at the end."""

    def prepare(self, network: Network) -> None:
        """Its initial parameters, from the same seed for all, and the held-out sequences.

        The gate that keeps a memory starts open, for times up to the length of the sequences.
        """
        network.x, network.target = self.held_out(network.steps)
        network.params = bptt.init_params(
            network.cell,
            input_size=self.inputs,
            hidden_size=network.hidden_size,
            output_size=self.outputs,
            spectral_radius=network.radius,
            chrono=network.steps if network.gated else None,
            rng=self.seed,
        )

    def evaluate(self, network: Network) -> dict[str, float]:
        """Its score on the held-out sequences, and what else is followed in training."""
        given = network.cell, network.params, network.x
        outputs, _ = bptt.predict(*given, at="last", backend=self.backend)
        found = {self.score_name: self.score(outputs, network.target)}
        if self.follows_reach:
            found["far_over_near"] = far_over_near(network, self.backend)
        return found

    def width(self, cell: str) -> int:
        """The H with which `cell` comes nearest to the parameters of an Elman cell."""
        wanted = self.parameters("tanh", self.hidden_size)
        # More gates make a cell narrower.
        sizes = range(1, self.hidden_size + 1)
        return min(sizes, key=lambda size: abs(self.parameters(cell, size) - wanted))

    def parameters(self, cell: str, hidden: int) -> int:
        """Entries of w_ih, w_hh and both biases of G gates, and of the readout w_ho and b_o."""
        gates = bptt.CELLS[cell].gates
        return gates * hidden * (self.inputs + hidden + 2) + self.outputs * (hidden + 1)
