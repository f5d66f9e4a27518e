"""Layer upon layer, in one or both directions, as PyTorch's modules have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..cells import Cell
from ..checks import Array
from ..row_map import mirrored_rows
from .autograd import run
from .passes import Direction, Inputs

__all__ = ["Layers", "Rows", "run_stack"]


class Rows(NamedTuple):
    """How rows lie: packed ones have offsets (T + 1,)."""

    offsets: Array | None

    def turn(self) -> Callable[[Tensor], Tensor]:
        """What turns each sequence round in time."""
        if self.offsets is None:
            return lambda rows: rows.flip(0)
        index = torch.from_numpy(mirrored_rows(self.offsets))
        return lambda rows: rows.index_select(0, index)


class Layers(NamedTuple):
    """Attributes
    ----------
    cell : Cell
    weights : sequence of tuples
        Of each direction of each layer, as ``passes.WEIGHTS`` has them.
    directions : int
        Of each layer.
    dropout : float
        Between layers; 0 if there is none now.
    """

    cell: Cell
    weights: Sequence[tuple[Tensor | None, ...]]
    directions: int = 1
    dropout: float = 0.0


def run_stack(
    stack: Layers, x: Tensor, state: tuple[Tensor, ...] | None, rows: Rows
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """y (T, B, D*H) of the top layer, and the final state, of each part (L*D, B, H).

    `x` is (T, B, I), or (N, I) of packed rows; `state` has (L*D, B, H) of each part, or is None for
    zeros.
    """
    how = Direction(stack.cell, rows.offsets)
    entering = _entering(stack, state)
    if len(entering) == 1:
        y, *last = run(how, Inputs(x, entering[0], stack.weights[0]))
        return y, tuple([part[None] for part in last])
    turns = (None, rows.turn())[: stack.directions]
    leaving = []
    for first in range(0, len(entering), stack.directions):
        outputs = []
        for d, turn in enumerate(turns, start=first):
            seen = x if turn is None else turn(x)
            y, *last = run(how, Inputs(seen, entering[d], stack.weights[d]))
            outputs.append(y if turn is None else turn(y))
            leaving.append(last)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        if stack.dropout and first + stack.directions < len(entering):
            x = torch.nn.functional.dropout(x, stack.dropout)
    return x, tuple(torch.stack(part) for part in zip(*leaving, strict=True))


def _entering(
    stack: Layers, state: tuple[Tensor, ...] | None
) -> list[tuple[Tensor, ...]] | list[tuple[None, ...]]:
    """The initial state of each direction."""
    if state is None:
        return [(None,) * len(stack.cell.states)] * len(stack.weights)
    return list(zip(*(part.unbind(0) for part in state), strict=True))
