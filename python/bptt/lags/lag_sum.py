"""`LagSum`: the gradient as a sum over lags, with all of it that does not depend on the lag."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cells import Cell
from ..checks import Array
from ..recorded import Named
from .scalar import squares_of, sum_of
from .terms import Term, Terms

__all__ = ["LagSum"]

# Units of eps that rounding may leave; a tenth of one is usual.
_ROUNDING = 100


@dataclass(frozen=True, eq=False)
class LagSum:
    """Iterate to get the terms of each lag: one for each group of sequences."""

    cell: Cell
    route: str | None
    lags: Array
    groups: list[Terms]
    readout: Named
    loss: float | None
    steps: int
    step: int | None  # the only one of the loss
    factor: float | None  # by which each sequence of a sample counts; None without a sample

    def __iter__(self) -> Iterator[list[Term]]:
        return map(list, zip(*self.groups, strict=True))

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What stands before the names of each layer's parameters: nothing of a layer alone."""
        return self.groups[0].prefixes

    @property
    def is_stack(self) -> bool:
        return "" not in self.prefixes

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.groups[0].dy.dtype

    def gap(self) -> float:
        """``||total - sum of the terms||``, all parameters and sequences as one vector.

        Where not all lags were asked for, the sum is taken once more from their delta, all at once.
        """
        left = sum_of([self._left(group) for group in self.groups])
        return math.sqrt(sum(squares_of(left).values()))

    def require_sum(self, gap: float, size: float) -> None:
        """Raise RuntimeError if `gap` is more than rounding of summands as large as `size`.

        That of the summands, and not of the total: where they cancel, rounding stays.
        """
        gap = gap / size if size > 0 else 0.0
        if gap > _ROUNDING * np.finfo(self.dtype).eps:
            raise RuntimeError(f"the terms of all lags do not add up to the gradient: {gap:.2g}")

    @staticmethod
    def _left(group: Terms) -> Named:
        """What the terms of all lags leave of the total."""
        if group.left is not None:
            return group.left
        again = group.sum_of_all()
        return {name: g - again[name] for name, g in group.total.items()}
