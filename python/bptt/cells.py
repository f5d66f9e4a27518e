"""The registry of recurrent cells: what a cell is called and how its parameters are shaped.

A cell maps ``(x_t, S_{t-1})`` to ``S_t``. Everything that enumerates cells (checks, tests, bench,
``bptt info``) reads this registry; the equations themselves live in ``backends/`` and
``csrc/cells/``, and are derived in ``docs/math.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import checks

__all__ = ["CELLS", "Cell", "Step", "get_cell"]


@dataclass(frozen=True)
class Step:
    """The step of a cell and its derivative, as two functions of one unit; see `bptt.cell`.

    Attributes
    ----------
    forward : callable
        ``(sums, state) -> (state, saved)``
    derivative : callable
        ``(saved, before, state, dstate) -> (dsums, dbefore)``
    saved : tuple of str
        What the one leaves for the other.
    """

    forward: Callable[..., Any]
    derivative: Callable[..., Any]
    saved: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """Static description of a recurrent cell.

    Attributes
    ----------
    name : str
        The name that users pass as ``cell=``.
    gates : int
        G, the number of pre-activation blocks: ``w_ih`` has ``G * H`` rows.
    equation : str
        The recurrence in plain text. S_t is what ``tape.y`` holds; s is the logistic sigmoid and *
        the product of each unit with its own.
    states : tuple of str
        What a state consists of, S first: ``("h",)``, or ``("h", "c")`` where the cell has a
        second memory; a state is then a pair.
    gate_names : tuple of str
        The blocks of rows of ``w_ih`` and ``w_hh``, in their order, by the names of `equation`.
    keeps : str, optional
        The gate by which each unit's memory of the step before is multiplied.
    apart : tuple of str
        The gates that take W_x X_t and W_s S_{t-1} apart instead of their sum.
    saved : int
        Values a unit that a forward pass keeps for the way back, beside the states.
    step : Step, optional
        Where the cell was defined by `bptt.cell`.
    """

    name: str
    gates: int
    equation: str
    states: tuple[str, ...] = ("h",)
    gate_names: tuple[str, ...] = ("a",)
    keeps: str | None = None
    apart: tuple[str, ...] = ()
    saved: int = 0
    step: Step | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """By its name: functions of a user cannot be pickled, but the cell can be defined there."""
        return get_cell, (self.name,)

    @property
    def recurrent_sums(self) -> tuple[int, ...]:
        """For each gate, the sum that W_s S_{t-1} goes into: its own, or where it is apart, one
        behind those of all gates."""
        behind = iter(range(self.gates, self.sums))
        return tuple(
            next(behind) if name in self.apart else gate
            for gate, name in enumerate(self.gate_names)
        )

    @cached_property
    def sums(self) -> int:
        """How many sums a unit's step takes."""
        return self.gates + len(self.apart)

    @cached_property
    def values(self) -> int:
        """How many values a unit's step has: its sums, its states, and what is saved of it."""
        return self.sums + len(self.states) + self.saved


CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell("linear", 1, "S_t = W_x X_t + b_ih + W_s S_{t-1} + b_hh"),
        Cell("tanh", 1, "S_t = tanh(W_x X_t + b_ih + W_s S_{t-1} + b_hh)"),
        Cell("relu", 1, "S_t = max(0, W_x X_t + b_ih + W_s S_{t-1} + b_hh)"),
        Cell(
            "lstm",
            4,
            "i, f, o = s(W_x X_t + b_ih + W_s S_{t-1} + b_hh), g = tanh(the same); "
            "c_t = f * c_{t-1} + i * g, S_t = o * tanh(c_t)",
            ("h", "c"),
            gate_names=("i", "f", "g", "o"),
            keeps="f",
            saved=4,
        ),
        Cell(
            "gru",
            3,
            "r, z = s(W_x X_t + b_ih + W_s S_{t-1} + b_hh), "
            "n = tanh(W_x X_t + b_ih + r * (W_s S_{t-1} + b_hh)); "
            "S_t = (1 - z) * n + z * S_{t-1}",
            gate_names=("r", "z", "n"),
            keeps="z",
            apart=("n",),
            saved=4,
        ),
    )
}


_ALIASES = {"rnn": "'tanh'", "elman": "'tanh'", "simplernn": "'tanh'", "identity": "'linear'"}


def get_cell(cell: object) -> Cell:
    """Return the registered cell called `cell`, or `cell` itself if it is what `bptt.cell` made.

    Raises
    ------
    TypeError
        If `cell` is neither a string nor a cell.
    ValueError
        If no cell of that name exists.
    """
    if isinstance(cell, Cell):
        return cell
    if not isinstance(cell, str):
        raise TypeError(f"cell: expected a string or a Cell, got {type(cell).__name__}")
    try:
        return CELLS[cell]
    except KeyError:
        raise checks.unknown("cell", cell, CELLS, _ALIASES) from None
