"""scikit-learn's handwritten digits: each image is a sequence of its 64 pixels.

The cells of the text, linear and tanh, each start from three spectral radii of W_s; GRU and LSTM
are compared with the tanh network of one of these, at as many parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

import bptt
from bptt.checks import Array

from ..network import Network
from .task import Task


class Images(NamedTuple):
    """Images read pixel by pixel, row after row, split into training and held-out ones."""

    x_train: Array  # (64, B, 1) float32, standardised with one mean and one deviation
    y_train: Array  # (B,), the digit, 0 to 9
    x_test: Array
    y_test: Array
    mean: float  # of the raw training pixels, which run from 0 to 16
    deviation: float


@dataclass(frozen=True)
class Digits(Task):
    """Which digit was it? Asked after the last pixel."""

    inputs = 1
    outputs = 10
    loss = "cross_entropy"
    score_name = "accuracy"
    about = "held-out digits, read pixel by pixel"
    follows_reach = True
    steps = 64  # pixels of an image
    quick_changes: ClassVar[dict[str, Any]] = {"training_steps": 88, "learning_rate": 5e-3}

    cells: tuple[str, ...] = ("linear", "tanh", "gru", "lstm")
    radii: tuple[float, ...] = (0.8, 1.0, 1.2)
    compared_radius: float = 0.8
    training_steps: int = 880  # 40 epochs
    steps_per_evaluation: int = 22  # an epoch: the full batches of 1437 images
    # Of 0.003 and 0.01 the one with which the cell gets further.
    learning_rate: float = 3e-3
    gated_learning_rate: float = 1e-2
    test_images: int = 360
    loss_steps: tuple[int, ...] = (8, 16, 24, 32, 40, 48, 56, 64)  # the ends of rows of pixels

    def networks(self) -> list[Network]:
        elman = [cell for cell in self.cells if bptt.CELLS[cell].keeps is None]
        starts = [(cell, radius) for cell in elman for radius in self.radii]
        starts += [(cell, self.compared_radius) for cell in self.cells if cell not in elman]
        return [
            Network(
                f"{cell}-radius-{radius}",
                f"{cell}, radius {radius}",
                cell,
                self.width(cell),
                self.steps,
                self.loss,
                radius=radius,
                learning_rate=self.learning_rate if cell in elman else self.gated_learning_rate,
                compared=cell != "linear" and radius == self.compared_radius,
            )
            for cell, radius in starts
        ]

    @property
    def epochs(self) -> int:
        return self.training_steps // self.steps_per_evaluation

    def epochs_of(self, network: Network) -> Array:
        """After how many epochs it was evaluated."""
        return np.array(network.course.evaluated) / self.steps_per_evaluation

    def accuracies(self, network: Network) -> Array:
        """What was found there, in percent."""
        return np.multiply(100, network.course.held_out["accuracy"])

    @cached_property
    def images(self) -> Images:
        return load_digits(self.test_images, self.seed)

    def held_out(self, steps: int) -> tuple[Array, Array]:
        return self.images.x_test, self.images.y_test

    def batches(self, steps: int) -> Iterator[tuple[Array, Array]]:
        """Every epoch in a new order; images that do not fill a batch are left out of it."""
        random, size = np.random.default_rng(self.seed), self.batch_size
        while True:
            order = random.permutation(len(self.images.y_train))
            for end in range(size, len(order) + 1, size):
                rows = order[end - size : end]
                yield self.images.x_train.take(rows, axis=1), self.images.y_train[rows]

    def score(self, outputs: Array, target: Array) -> float:
        """The share of the images that are classified right."""
        return float(np.mean(np.argmax(outputs, axis=1) == target))

    def describe(self) -> dict[str, Any]:
        images = self.images
        return {
            "name": "scikit-learn load_digits, 8x8 images read pixel by pixel",
            "steps": len(images.x_train),
            "train_images": len(images.y_train),
            "held_out_images": len(images.y_test),
            "pixel_mean": images.mean,
            "pixel_deviation": images.deviation,
        }

    def summary(self, networks: list[Network]) -> str:
        linear = [network for network in networks if network.cell == "linear"]
        if not linear:
            return ""
        factors = ", ".join(f"{n.before.relative[-1]:.2g}" for n in linear)
        powers = ", ".join(f"{n.radius}^{n.steps - 1}" for n in linear)
        return (
            f"Over {linear[0].steps - 1} steps, the gradient of the untrained linear networks "
            f"changed by factors of {factors}; the formula says {powers}."
        )


def load_digits(test_images: int, seed: int) -> Images:
    """Read the 1797 images that come with scikit-learn and hold out `test_images` at random."""
    from sklearn.datasets import load_digits as read  # type: ignore[import-untyped]

    pixels, labels = read(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    test, train = order[:test_images], order[test_images:]
    mean, deviation = float(pixels[train].mean()), float(pixels[train].std())

    def sequences(rows: Array) -> Array:
        scaled = ((pixels[rows] - mean) / deviation).astype(np.float32)
        return np.ascontiguousarray(scaled.T[:, :, None])

    return Images(sequences(train), labels[train], sequences(test), labels[test], mean, deviation)
