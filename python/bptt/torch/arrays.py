"""Tensors of host memory as arrays and back, without a copy.

By address, not by ``Tensor.numpy()``, which forbids from then on that the storage changes its size,
as FSDP does with weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..checks import Array
from ..compiled import core

__all__ = ["array_of", "dense", "tensor_of"]


def dense(tensor: Tensor) -> Tensor:
    """The values of `tensor` as they lie in memory: itself, or a copy."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def array_of(tensor: Tensor) -> Array:
    """The memory of a dense tensor of float32 or float64, for reading."""
    if core is None:
        return np.from_dlpack(tensor.detach())
    wide = tensor.dtype is torch.float64
    found: Array = core.array_at(tensor.data_ptr(), tensor.shape, wide, tensor)
    return found


def tensor_of(array: Array) -> Tensor:
    """The memory of an array that nobody else has."""
    return torch.from_numpy(array)
