"""Tensors of host memory as arrays and back, without a copy.

By address, not by ``Tensor.numpy()``, which forbids from then on that the storage changes its size,
as FSDP does with weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import Array
from ..compiled import core

__all__ = ["DTYPES", "array_of", "tensor_of"]

# Those that there are kernels for, and NumPy's.
DTYPES: dict[Any, np.dtype[Any]] = {
    torch.float32: np.dtype("float32"),
    torch.float64: np.dtype("float64"),
}


def array_of(tensor: Tensor) -> Array:
    """The values of a tensor of float32 or float64, dense, for reading: its memory, or a copy."""
    if tensor.is_neg() or not tensor.is_contiguous():
        tensor = tensor.resolve_neg().contiguous()
    if tensor.data_ptr() == 0 and tensor.numel() > 0:  # zeros that have no memory
        tensor = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if core is None:
        return np.from_dlpack(tensor.detach())
    wide = tensor.dtype is torch.float64
    found: Array = core.array_at(tensor.data_ptr(), tensor.shape, wide, tensor)
    return found


def tensor_of(array: Array) -> Tensor:
    """The memory of an array that nobody else has."""
    return torch.from_numpy(array)
