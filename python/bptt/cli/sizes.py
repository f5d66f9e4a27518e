"""How many parameters a network has, and how wide a cell may be to have as many as another."""

from __future__ import annotations

import bptt

__all__ = ["equal_hidden_size", "parameter_count"]


def parameter_count(cell: str, inputs: int, hidden: int, outputs: int) -> int:
    """Entries of w_ih, w_hh and both biases of G gates, and of the readout w_ho and b_o."""
    gates = bptt.CELLS[cell].gates
    return gates * hidden * (inputs + hidden + 2) + outputs * (hidden + 1)


def equal_hidden_size(cell: str, inputs: int, outputs: int, *, like: tuple[str, int]) -> int:
    """The H with which `cell` comes nearest to the parameters of `like`, a cell and its H."""
    other, hidden = like
    wanted = parameter_count(other, inputs, hidden, outputs)
    # More gates than `like` has make a cell narrower, fewer at most so many times as wide.
    widest = hidden * bptt.CELLS[other].gates
    return min(
        range(1, widest + 1),
        key=lambda size: abs(parameter_count(cell, inputs, size, outputs) - wanted),
    )
