"""The rows of a caller's tensors for a layer, and back, by operations that autograd sees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import Array
from ..row_map import RowMap

__all__ = ["MovedRows"]


class MovedRows:
    """The copies of a `RowMap`, on tensors.

    Attributes
    ----------
    map : RowMap
    """

    def __init__(self, rows: RowMap) -> None:
        self.map = rows

    def gather(self, x: Tensor) -> Tensor:
        """The layer's rows (*inner, ...) of `x` (*shape, ...)."""
        if self.map.same_rows:
            return x
        more = x.shape[len(self.map.shape) :]
        rows = x.reshape(math.prod(self.map.shape), *more)
        if self.map.index is not None:
            rows = rows.index_select(0, _index(self.map.index, x))
        return rows.reshape(*self.map.inner, *more)

    def scatter(self, y: Tensor) -> Tensor:
        """The caller's (*shape, ...) of the layer's rows; zeros where it has none."""
        if self.map.same_rows:
            return y
        more = y.shape[len(self.map.inner) :]
        rows = y.reshape(math.prod(self.map.inner), *more)
        if self.map.index is not None:
            count = math.prod(self.map.shape)
            of_caller = (y.new_empty if len(rows) == count else y.new_zeros)((count, *more))
            rows = of_caller.index_copy(0, _index(self.map.index, y), rows)
        return rows.reshape(*self.map.shape, *more)

    def gather_state(
        self, state: tuple[Tensor, ...] | None, parts: int, w_hh: Tensor
    ) -> tuple[Any, ...]:
        """The layer's initial state (B', H) of each part, of the caller's (B, H) or of zeros; None
        stands for zeros where all of the layer's sequences have steps."""
        rows = self.map
        shape = (rows.inner_batch, w_hh.shape[1])
        if state is None:
            whole = rows.offsets is None or rows.offsets[1] == rows.inner_batch
            return (None if whole else w_hh.new_zeros(shape),) * parts
        if rows.first is None and rows.anew is None:
            return state
        used = np.arange(rows.batch) if rows.anew is None else np.flatnonzero(~rows.anew)
        into = used if rows.first is None else rows.first[used]
        source, target = _index(used, w_hh), _index(into, w_hh)
        return tuple(
            w_hh.new_zeros(shape).index_copy(0, target, part.index_select(0, source))
            for part in state
        )

    def scatter_state(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The caller's final state (B, H) of each part, of the layer's."""
        if self.map.last is None:
            return state
        index = _index(self.map.last, state[0])
        return tuple(part.index_select(0, index) for part in state)


def _index(index: Array, like: Tensor) -> Tensor:
    """The index where `like` is; an index has values also where that has none."""
    found = torch.from_numpy(index)
    return found.to(like.device) if like.is_cuda else found
