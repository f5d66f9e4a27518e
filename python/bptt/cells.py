"""The registry of recurrent cells: what a cell is called and how its parameters are shaped.

A cell maps ``(x_t, S_{t-1})`` to ``S_t``. Everything that enumerates cells (checks, tests, bench,
``bptt info``) reads this registry; the equations themselves live in ``backends/`` and
``csrc/cells/``, and are derived in ``docs/math.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CELLS", "Cell", "get_cell"]


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
    """

    name: str
    gates: int
    equation: str
    states: tuple[str, ...] = ("h",)
    gate_names: tuple[str, ...] = ("a",)
    keeps: str | None = None


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
        ),
        Cell(
            "gru",
            3,
            "r, z = s(W_x X_t + b_ih + W_s S_{t-1} + b_hh), "
            "n = tanh(W_x X_t + b_ih + r * (W_s S_{t-1} + b_hh)); "
            "S_t = (1 - z) * n + z * S_{t-1}",
            gate_names=("r", "z", "n"),
            keeps="z",
        ),
    )
}


def get_cell(name: object) -> Cell:
    """Return the registered cell called `name`.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If no cell of that name exists.
    """
    if not isinstance(name, str):
        raise TypeError(f"cell: expected a string, got {type(name).__name__}")
    try:
        return CELLS[name]
    except KeyError:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {name!r}") from None
