"""Scalar products and sums of gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..checks import Array

__all__ = ["dot", "squares_of", "sum_of"]


# Of more values NumPy's BLAS takes threads, which spin on for a while beside those of the engine;
# and float32 sums of more are less accurate.
_PIECE = 8192


def dot(a: Array, b: Array) -> float:
    """The scalar product; in float64 where that of float32 would overflow."""
    left, right = a.reshape(-1), b.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):  # which float64 mends below
        product = _by_pieces(left, right)
    if math.isfinite(product) or left.dtype == np.float64:
        return product
    return _by_pieces(left.astype(np.float64), right.astype(np.float64))


def _by_pieces(left: Array, right: Array) -> float:
    """The products of pieces, added up in float64."""
    whole = len(left) - len(left) % _PIECE
    of_pieces = left[:whole].reshape(-1, 1, _PIECE) @ right[:whole].reshape(-1, _PIECE, 1)
    return float(of_pieces.sum(dtype=np.float64)) + float(np.dot(left[whole:], right[whole:]))


def squares_of(named: Mapping[str, Array]) -> dict[str, float]:
    """The square of the norm of each array."""
    return {name: dot(g, g) for name, g in named.items()}


def sum_of(named: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The sum over some gradients, name by name."""
    if len(named) == 1:
        return dict(named[0])
    return {name: sum((each[name] for each in named[1:]), named[0][name]) for name in named[0]}
