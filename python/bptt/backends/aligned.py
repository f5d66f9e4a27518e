"""New arrays that begin on a cache line, as NumPy's own do not."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..checks import Array

__all__ = ["empty"]

_LINE = 64  # bytes, as many as the longest vector of a kernel has
_SMALL = 1 << 14  # bytes of an array that a misaligned vector costs less than this function


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """As `numpy.empty`, but that every vector of an array of whole vectors is in one line."""
    size = prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.empty(shape, dtype)
    room = np.empty(size + _LINE, np.uint8)
    start = -room.__array_interface__["data"][0] % _LINE
    array: Array = np.ndarray(shape, dtype, room, start)
    return array
