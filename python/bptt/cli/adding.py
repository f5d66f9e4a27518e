"""The adding problem (Hochreiter & Schmidhuber 1997, Neural Computation 9(8), section 5.4).

A sequence of T pairs: a number, uniform on [0, 1), and a mark that is one at two steps and zero at
all others. After the last step the sum of the two marked numbers is asked for. One mark is in the
first half of the sequence and one in the second, so that half of the answer is always T/2 steps or
more away (as in Arjovsky, Shah & Bengio 2016, ICML).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bptt.checks import Array

__all__ = ["BASELINE", "draw", "sequences"]

# Mean squared error of whoever always answers 1: the variance of a sum of two uniform numbers.
BASELINE = 1 / 6


def draw(steps: int, batch: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x (T, B, 2), numbers and marks, and the sums (B, 1), in float32."""
    x = np.zeros((steps, batch, 2), np.float32)
    x[..., 0] = rng.random((steps, batch), dtype=np.float32)
    rows, half = np.arange(batch), steps // 2
    first, second = rng.integers(0, half, batch), rng.integers(half, steps, batch)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]


def sequences(steps: int, batch: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Batches that were never seen before, without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield draw(steps, batch, rng)
