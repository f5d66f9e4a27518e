"""Rows of an array by their index: the two copies at the border of a call, see `row_map`."""

from __future__ import annotations

import numpy as np

from .checks import Array

__all__ = ["put_rows", "take_rows"]


def take_rows(rows: Array, index: Array) -> Array:
    """``rows[index]``, of rows (M, ...) and an index (N,): a new array (N, ...)."""
    taken: Array = np.take(rows, index, axis=0)
    return taken


def put_rows(rows: Array, index: Array, out: Array) -> None:
    """``out[index] = rows``, where no row of `out` (M, ...) is named twice."""
    out[index] = rows
