"""Scalar products of gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..checks import Array

__all__ = ["dot", "squares_of"]


def dot(a: Array, b: Array) -> float:
    """The scalar product; in float64 where that of float32 would overflow."""
    left, right = a.reshape(-1), b.reshape(-1)
    product = float(np.dot(left, right))
    if math.isfinite(product) or left.dtype == np.float64:
        return product
    return float(np.dot(left.astype(np.float64), right.astype(np.float64)))


def squares_of(named: Mapping[str, Array]) -> dict[str, float]:
    """The square of the norm of each array."""
    return {name: dot(g, g) for name, g in named.items()}
