"""A batch of passes with the same weights as one pass of a larger batch.

Row b of pass v becomes row ``b * V + v``, so that the rows of a step are still the first ones of
the batch, packed rows too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layer_arguments import WEIGHTS
from .passes import Direction

__all__ = ["Axes", "each", "fold", "unfold"]


class Axes(NamedTuple):
    """Which axis of the tensors of a pass is that of rows: of weights None.

    Attributes
    ----------
    flat : tuple
        Of ``Inputs.flat``.
    incoming : tuple
        Of y and each part of the last state.
    kept : callable
        Of so many tensors of a pass: its history, its last state, and what is saved.
    """

    flat: tuple[int | None, ...]
    incoming: tuple[int, ...]
    kept: Callable[[int], tuple[int, ...]]

    @classmethod
    def of(cls, how: Direction) -> Axes:
        parts, y = how.parts, 1 if how.offsets is None else 0
        state = (0,) * parts
        return cls(
            (y, *state, *(None,) * len(WEIGHTS)),
            (y, *state),
            lambda n: (y,) * parts + state + (y,) * (n - 2 * parts),
        )

    def differing_weights(self, dims: Sequence[int | None]) -> bool:
        """Whether passes along `dims` of ``Inputs.flat`` have weights of their own."""
        return any(r is None and d is not None for r, d in zip(self.flat, dims, strict=False))


def fold(tensor: Tensor | None, dim: int | None, passes: int, rows: int | None) -> Tensor | None:
    """One tensor for all passes: `dim` is the axis of these, None if they share it, and `rows` the
    axis of rows of each."""
    if tensor is None or rows is None:
        return tensor
    if dim is None:
        shape = (*tensor.shape[: rows + 1], passes, *tensor.shape[rows + 1 :])
        tensor = tensor.unsqueeze(rows + 1).expand(shape)
    else:
        tensor = tensor.movedim(dim, rows + 1)
    return tensor.flatten(rows, rows + 1)


def unfold(tensor: Tensor, passes: int, rows: int) -> Tensor:
    """The other way round: the passes become axis ``rows + 1``."""
    return tensor.unflatten(rows, (tensor.shape[rows] // passes, passes))


def each(
    f: Callable[[Sequence[Any]], Sequence[Tensor]],
    tensors: Sequence[Tensor | None],
    dims: Sequence[int | None],
    passes: int,
) -> tuple[Tensor, ...]:
    """One pass after the other, what they return stacked along a first axis."""
    found = []
    for v in range(passes):
        own = zip(tensors, dims, strict=True)
        found.append(f([t if t is None or d is None else t.select(d, v) for t, d in own]))
    return tuple(map(torch.stack, zip(*found, strict=True)))
