"""The demo's data: scikit-learn's handwritten digits, each image a sequence of its 64 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.checks import Array

__all__ = ["CLASSES", "STEPS", "Digits", "load_digits"]

CLASSES = 10
STEPS = 64  # pixels of an image


@dataclass(frozen=True, eq=False)
class Digits:
    """Images read pixel by pixel, row after row, split into training and held-out ones.

    Attributes
    ----------
    x_train, x_test : (64, B, 1) float32
        Pixels, standardised with one mean and one deviation over all training pixels.
    y_train, y_test : (B,)
        The digit, 0 to 9.
    mean, deviation : float
        Of the raw training pixels, which run from 0 to 16.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    mean: float
    deviation: float

    def describe(self) -> dict[str, Any]:
        """What ``results.json`` says of the data."""
        return {
            "name": "scikit-learn load_digits, 8x8 images read pixel by pixel",
            "steps": len(self.x_train),
            "train_images": len(self.y_train),
            "held_out_images": len(self.y_test),
            "pixel_mean": self.mean,
            "pixel_deviation": self.deviation,
        }

    def minibatches(self, size: int, seed: int) -> Iterator[tuple[Array, Array]]:
        """Pixels and labels of `size` training images, without end; every epoch in a new order.

        An epoch has ``len(y_train) // size`` of them.
        """
        random = np.random.default_rng(seed)
        while True:
            order = random.permutation(len(self.y_train))
            for end in range(size, len(order) + 1, size):
                rows = order[end - size : end]
                yield self.x_train.take(rows, axis=1), self.y_train[rows]


def load_digits(test_images: int, seed: int) -> Digits:
    """Read the 1797 images that come with scikit-learn and hold out `test_images` at random."""
    from sklearn.datasets import load_digits as read  # type: ignore[import-untyped]

    pixels, labels = read(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    test, train = order[:test_images], order[test_images:]
    mean, deviation = float(pixels[train].mean()), float(pixels[train].std())

    def sequences(rows: Array) -> Array:
        scaled = ((pixels[rows] - mean) / deviation).astype(np.float32)
        return np.ascontiguousarray(scaled.T[:, :, None])

    return Digits(sequences(train), labels[train], sequences(test), labels[test], mean, deviation)
