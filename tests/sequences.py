"""Sequences of any kind: how a caller has them, and what each piece of them is by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Piece:
    """A stretch of a row between resets, that a layer runs through from its own initial state."""

    row: int
    times: list[int]  # its steps of x, in the order in which they are processed
    first: bool
    last: bool
    anew: bool  # from zeros, not from S_0, although it is the first


@dataclass(frozen=True)
class Case:
    """T steps of B rows with a description of them, as a caller gives it."""

    steps: int
    batch: int
    lengths: list[int] | None = None
    packed: bool = False
    reset: Any = field(default=None, repr=False)  # (T, B) bools, or None
    reverse: bool = False
    batch_first: bool = False

    @property
    def of_row(self) -> list[int]:
        """The length of each row."""
        return [self.steps] * self.batch if self.lengths is None else self.lengths

    @property
    def batch_sizes(self) -> list[int]:
        return [sum(n > t for n in self.of_row) for t in range(self.steps)]

    @property
    def shape(self) -> tuple[int, ...]:
        """What the caller's arrays begin with."""
        if self.packed:
            return (sum(self.of_row),)
        return (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of a call."""
        found: dict[str, Any] = {"reverse": self.reverse, "batch_first": self.batch_first}
        if self.packed:
            found["batch_sizes"] = self.batch_sizes
        elif self.lengths is not None:
            found["lengths"] = self.lengths
        if self.reset is not None:
            found["reset"] = self.given(self.reset)
        return found

    def place(self, time: int, row: int) -> tuple[int, ...]:
        """Where the caller's arrays have a step of a row."""
        if self.packed:
            return (sum(self.batch_sizes[:time]) + row,)
        return (row, time) if self.batch_first else (time, row)

    def given(self, array: np.ndarray) -> np.ndarray:
        """An array (T, B, ...) as the caller has it."""
        if self.packed:
            nothing = np.empty((0, *array.shape[2:]), array.dtype)
            return np.concatenate(
                [nothing, *(array[t, :n] for t, n in enumerate(self.batch_sizes))]
            )
        return np.ascontiguousarray(array.swapaxes(0, 1)) if self.batch_first else array

    def padded(self, given: np.ndarray) -> np.ndarray:
        """The other way round, with zeros where the caller has nothing."""
        if not self.packed:
            return given.swapaxes(0, 1) if self.batch_first else given
        array = np.zeros((self.steps, self.batch, *given.shape[1:]), given.dtype)
        start = 0
        for t, n in enumerate(self.batch_sizes):
            array[t, :n] = given[start : start + n]
            start += n
        return array

    def pieces(self) -> list[Piece]:
        """Row by row, in the order in which they are processed."""
        found = []
        for row, length in enumerate(self.of_row):
            times = list(range(length))[:: -1 if self.reverse else 1]
            cuts = [n for n, t in enumerate(times) if self.reset is not None and self.reset[t, row]]
            borders = sorted({0, *cuts})
            for begin, end in zip(borders, [*borders[1:], length], strict=True):
                anew = begin == 0 and 0 in cuts
                found.append(Piece(row, times[begin:end], begin == 0, end == length, anew))
        return found


@st.composite
def cases(draw: st.DrawFn, most_steps: int = 6, most_rows: int = 5) -> Case:
    """Any combination of the keywords."""
    steps, batch = draw(st.integers(0, most_steps)), draw(st.integers(0, most_rows))
    kind = draw(st.sampled_from(["dense", "lengths", "packed"]))
    if kind == "packed" and (steps == 0 or batch == 0):
        steps = batch = 0  # of nothing there are no sizes
    lengths = None
    if kind != "dense":
        lengths = draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    if kind == "packed" and batch:
        lengths = [steps, *sorted((max(n, 1) for n in lengths[1:]), reverse=True)]
    reset = None
    if draw(st.booleans()):
        flags = draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch))
        reset = np.array(flags, bool).reshape(steps, batch)
    return Case(
        steps,
        batch,
        lengths,
        kind == "packed",
        reset,
        draw(st.booleans()),
        kind != "packed" and draw(st.booleans()),
    )


# Every keyword by itself, and some together: five rows of seven steps.
LENGTHS = [4, 7, 0, 4, 1]


def resets(steps: int = 7, batch: int = 5) -> np.ndarray:
    """Two in the first row, one at the first step of another, and one at its last step."""
    found = np.zeros((steps, batch), bool)
    found[[2, 5], 0] = True
    found[[0, steps - 1], 1] = True
    found[3] = True
    return found


NAMED = {
    "plain": Case(7, 5),
    "lengths": Case(7, 5, LENGTHS),
    "all lengths are 0": Case(7, 5, [0] * 5),
    "batch_sizes": Case(7, 5, [7, 5, 5, 2, 1], packed=True),
    "reset": Case(7, 5, reset=resets()),
    "reset of all rows at once": Case(6, 5, reset=np.arange(6)[:, None] % 3 == np.zeros(5)),
    "reverse": Case(7, 5, reverse=True),
    "batch_first": Case(7, 5, batch_first=True),
    "reverse within lengths": Case(7, 5, LENGTHS, reverse=True),
    "all of padded rows": Case(7, 5, LENGTHS, False, resets(), True, True),
    "all of packed rows": Case(7, 5, [7, 5, 5, 2, 1], True, resets(), True),
    "no steps": Case(0, 5, [0] * 5, batch_first=True, reverse=True),
    "no rows": Case(7, 0, [], reverse=True, reset=np.zeros((7, 0), bool)),
    "no packed rows": Case(0, 0, [], packed=True),
}


# Long enough for the sums of a call to have several pieces, with slices of the batch and without.
_LENGTHS = [100 * (7 * b % 40) // 39 for b in range(40)]
_RESETS = np.random.default_rng(0).random((100, 40)) < 0.02
LONG_CASES = {
    "few rows": Case(140, 2),
    "many rows": Case(60, 130),
    "lengths": Case(100, 40, _LENGTHS),
    "packed": Case(100, 39, sorted(_LENGTHS, reverse=True)[:39], packed=True),
    "reset": Case(100, 40, reset=_RESETS, batch_first=True),
    "reverse": Case(100, 40, _LENGTHS, reverse=True),
}
