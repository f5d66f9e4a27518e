"""Whether what a module is called with fits together; if not, PyTorch says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..cells import Cell
from ..checks import Array
from .modes import transforms

__all__ = ["fits", "offsets_of"]


def fits(
    module: torch.nn.RNNBase, cell: Cell, weights: Sequence[Tensor], input: Any, hx: Any
) -> bool:
    """Whether all shapes are those that the module wants; sizes of packed steps are looked at by
    `offsets_of`."""
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    axes = x.dim()
    if axes not in ((2,) if packed else (2, 3)) or x.shape[-1] != module.input_size:
        return False
    directions = 2 if module.bidirectional else 1
    sizes = (cell.gates, module.input_size, module.hidden_size, directions, module.bias)
    # Dynamo takes apart what is called, and warns of caches.
    shapes = _shapes if torch.compiler.is_compiling() else _shapes_made_once
    if tuple(w.shape for w in weights) != shapes(module.num_layers, *sizes):
        return False
    if hx is None:
        return True
    states = (hx,) if len(cell.states) == 1 else hx
    if not isinstance(states, (tuple, list)) or len(states) != len(cell.states):
        return False
    batch: tuple[int, ...] = ()
    if packed:
        batch = (int(input.batch_sizes[0]),)
    elif axes == 3:
        batch = (x.shape[0 if module.batch_first else 1],)
    shape = (module.num_layers * directions, *batch, module.hidden_size)
    return all(isinstance(part, Tensor) and part.shape == shape for part in states)


def _shapes(
    layers: int, gates: int, inputs: int, hidden: int, directions: int, bias: bool
) -> tuple[tuple[int, ...], ...]:
    """Of the weights of all directions of all layers."""
    found: list[tuple[int, ...]] = []
    for layer in range(layers):
        of_x = directions * hidden if layer else inputs
        one = [(gates * hidden, of_x), (gates * hidden, hidden)]
        one += [(gates * hidden,)] * 2 if bias else []  # type: ignore[list-item]
        found += one * directions
    return tuple(found)


_shapes_made_once = lru_cache(maxsize=64)(_shapes)


def offsets_of(batch_sizes: Tensor, rows: int) -> Array | None:
    """(T + 1,) how many of so many packed rows there are before each step; None if the sizes are
    no sizes of packed steps, or add up to another number of rows."""
    if batch_sizes.dtype is not torch.int64:
        return None
    # Transforms of torch.func let no tensor be an array.
    sizes = np.array(batch_sizes.tolist()) if transforms() else batch_sizes.numpy()
    if sizes.ndim != 1 or not len(sizes) or sizes[-1] < 1 or (sizes[1:] > sizes[:-1]).any():
        return None
    offsets: Array = np.concatenate([[0], np.cumsum(sizes)])
    return offsets if offsets[-1] == rows else None
