"""Ragged layers for tests: rows of different lengths, packed one step after the other."""

from __future__ import annotations

from dataclasses import dataclass

import bptt
import numpy as np
from bptt.backends.protocol import Incoming, Layer
from bptt.cells import get_cell

LENGTHS = {
    "each another": [9, 8, 7, 6, 5, 4, 3, 2, 1],
    "one long": [300, 3, 3, 2, 1],
    "long and short": [40] * 7 + [2] * 30,
    "some have no step": [5, 5, 3, 0, 0],
    "of one step": [1, 1, 1],
    "none": [0, 0],
    "many": sorted((i * 37 % 61 for i in range(70)), reverse=True),
    "two": [130, 57],
    "one": [33],
}


@dataclass
class Ragged:
    """A ragged layer, what comes into it, and where its rows lie."""

    layer: Layer
    incoming: Incoming
    rows: list[np.ndarray]  # of each row of the batch, its steps' places

    def as_dense(self) -> Layer:
        """The layer of rows that are all of the same length."""
        x = self.layer.x.reshape(len(self.rows[0]), len(self.rows), -1)
        return Layer(self.layer.cell, self.layer.params, x, self.layer.state)

    def row(self, b: int) -> tuple[Layer, Incoming]:
        """One row as a dense batch."""
        at = self.rows[b]
        one = Layer(
            self.layer.cell,
            self.layer.params,
            self.layer.x[at][:, None],
            tuple(s[b : b + 1] for s in self.layer.state),
        )
        history = tuple(None if g is None else g[at][:, None] for g in self.incoming.history)
        state = self.incoming.state
        last = None if state is None else tuple(s[b : b + 1] for s in state)
        return one, Incoming(history, last)


def ragged(cell: str, lengths: list[int], sizes: tuple[int, int], dtype: str) -> Ragged:
    rng = np.random.default_rng(len(lengths) + sum(sizes))
    inputs, hidden = sizes
    kind = get_cell(cell)
    params = bptt.init_params(
        cell, input_size=inputs, hidden_size=hidden, output_size=3, rng=1, dtype=dtype
    )
    count = np.array([sum(n > t for n in lengths) for t in range(max(lengths))], np.int64)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    total = int(offsets[-1])

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    def state() -> tuple[np.ndarray, ...]:
        return tuple(draw(len(lengths), hidden) for _ in kind.states)

    layer = Layer(kind, params, draw(total, inputs), state(), offsets)
    dy = tuple(draw(total, hidden) for _ in kind.states)
    rows = [offsets[:n] + b for b, n in enumerate(lengths)]
    return Ragged(layer, Incoming(dy, state()), rows)
