"""The adding problem (Hochreiter & Schmidhuber 1997, Neural Computation 9(8), section 5.4).

A sequence of T pairs: a number, uniform on [0, 1), and a mark that is one at two steps and zero at
all others. After the last step the sum of the two marked numbers is asked for. One mark is in the
first half of the sequence and one in the second, so that half of the answer is always T/2 steps or
more away (as in Arjovsky, Shah & Bengio 2016, ICML).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bptt.checks import Array

from ..network import Network, grouped
from .task import Task

# Mean squared error of whoever always answers 1: the variance of a sum of two uniform numbers.
BASELINE = 1 / 6


@dataclass(frozen=True)
class Adding(Task):
    """tanh, GRU and LSTM networks of as many parameters, for several T."""

    inputs = 2
    outputs = 1
    loss = "squared_error"
    score_name = "mean_squared_error"
    about = "held-out sequences of the adding problem"
    quick_changes: ClassVar[dict[str, Any]] = {"training_steps": 300}

    cells: tuple[str, ...] = ("tanh", "gru", "lstm")
    lengths: tuple[int, ...] = (50, 100, 200)
    compared_length: int = 100
    # Every gate's block of W_s starts as this times an orthogonal matrix.
    radius: float = 1.0
    training_steps: int = 3000
    steps_per_evaluation: int = 50
    learning_rate: float = 3e-3
    sequences: int = 500  # held out

    def networks(self) -> list[Network]:
        """Short sequences first."""
        return [
            Network(
                f"{cell}-steps-{steps}",
                f"{cell}, T = {steps}",
                cell,
                self.width(cell),
                steps,
                self.loss,
                radius=self.radius,
                learning_rate=self.learning_rate,
                compared=steps == self.compared_length,
            )
            for steps in self.lengths
            for cell in self.cells
        ]

    def held_out(self, steps: int) -> tuple[Array, Array]:
        """Of their own stream of random numbers."""
        return draw(steps, self.sequences, np.random.default_rng((self.seed, steps)))

    def batches(self, steps: int) -> Iterator[tuple[Array, Array]]:
        """Sequences that were never seen before, the same for all cells."""
        rng = np.random.default_rng(self.seed)
        while True:
            yield draw(steps, self.batch_size, rng)

    def score(self, outputs: Array, target: Array) -> float:
        """The mean squared error, which is not halved as the loss is."""
        return float(np.mean((outputs - target) ** 2))

    def error_of_one(self, steps: int) -> float:
        """The mean squared error of the answer 1."""
        return self.score(np.ones(1), self.held_out(steps)[1])

    def describe(self) -> dict[str, Any]:
        return {"answering_one": {steps: self.error_of_one(steps) for steps in self.lengths}}

    def summary(self, networks: list[Network]) -> str:
        lines = []
        for steps, those in grouped(networks, "steps").items():
            errors = [f"{n.cell} {n.course.last[self.score_name]:.2g}" for n in those]
            one = self.error_of_one(steps)
            lines.append(
                f"T = {steps}: mean squared error {', '.join(errors)}; answering 1: {one:.2g}."
            )
        return "\n".join(lines)


def draw(steps: int, batch: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x (T, B, 2), numbers and marks, and the sums (B, 1), in float32."""
    x = np.zeros((steps, batch, 2), np.float32)
    x[..., 0] = rng.random((steps, batch), dtype=np.float32)
    rows, half = np.arange(batch), steps // 2
    first, second = rng.integers(0, half, batch), rng.integers(half, steps, batch)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]
