"""Scalar products and sums of gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..checks import Array

__all__ = ["dot", "squares_of", "sum_of"]


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


def sum_of(named: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The sum over some gradients, name by name."""
    if len(named) == 1:
        return dict(named[0])
    return {name: sum((each[name] for each in named[1:]), named[0][name]) for name in named[0]}
