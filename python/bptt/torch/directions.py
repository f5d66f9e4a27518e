"""Layer upon layer, in one or both directions, as PyTorch's modules have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import Array
from ..row_map import mirrored_rows

__all__ = ["run_stack", "turn_of"]

State = tuple[Tensor | None, ...]
Weights = tuple[Tensor | None, ...]
# One direction of one layer over x, from a state: y, and each part of the last state.
Run = Callable[[Tensor, State, Weights], Sequence[Tensor]]
Turn = Callable[[Tensor], Tensor]


def turn_of(offsets: Array | None, x: Tensor) -> Turn:
    """What turns each sequence of `x` round in time; packed rows have offsets (T + 1,)."""
    if offsets is None:
        return lambda rows: rows.flip(0)
    index = torch.from_numpy(mirrored_rows(offsets)).to(x.device)
    return lambda rows: rows.index_select(0, index)


def run_stack(
    run: Run,
    x: Tensor,
    entering: Sequence[State],
    weights: Sequence[Weights],
    turns: Sequence[Turn | None],
    dropout: float,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """y (T, B, D*H) of the top layer, and the final state, of each part (L*D, B, H).

    Functions and numbers alone come in beside tensors: torch.compile traces this, and looks at
    each object and class on the way again before each call.

    Parameters
    ----------
    run : callable
    x : (T, B, I) or (N, I) tensor
        The second of packed rows.
    entering, weights : sequences
        Of each direction of each layer: the initial state, of parts (B, H) or None, and the weights
        as `WEIGHTS` has them.
    turns : sequence
        Of each direction: what turns its sequences round, or None.
    dropout : float
        Between layers; 0 if there is none now.
    """
    if len(entering) == 1:
        y, *last = run(x, entering[0], weights[0])
        return y, tuple([part[None] for part in last])
    leaving: list[Any] = []
    while len(leaving) < len(entering):
        if leaving and dropout:
            x = torch.nn.functional.dropout(x, dropout)
        outputs = []
        for turn in turns:
            at = len(leaving)
            y, *last = run(x if turn is None else turn(x), entering[at], weights[at])
            outputs.append(y if turn is None else turn(y))
            leaving.append(last)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    return x, tuple([torch.stack(part) for part in zip(*leaving, strict=True)])
