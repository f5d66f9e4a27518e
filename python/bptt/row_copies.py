"""Rows of an array by their index: the two copies at the border of a call, see `row_map`."""

from __future__ import annotations

import numpy as np

from .checks import Array
from .compiled import core
from .subnormals import get_flush_subnormals
from .threads import get_num_threads

__all__ = ["put_rows", "take_rows"]


def take_rows(rows: Array, index: Array, out: Array | None = None) -> Array:
    """``rows[index]``, of rows (M, ...) and an index (N,): an array (N, ...), new or `out`.

    Where the index is -1, zeros.
    """
    if out is None:
        out = np.empty((len(index), *rows.shape[1:]), rows.dtype)
    dense = rows.flags.c_contiguous and out.flags.c_contiguous and rows.dtype == out.dtype
    if core is None or not dense:
        there = index >= 0
        out[there], out[~there] = rows[index[there]], 0
    else:
        core.take_rows(get_num_threads(), get_flush_subnormals(), rows, index, out)
    return out


def put_rows(rows: Array, index: Array, out: Array) -> None:
    """``out[index] = rows``, where no row of `out` (M, ...) is named twice."""
    dense = rows.flags.c_contiguous and out.flags.c_contiguous and rows.dtype == out.dtype
    if core is None or not dense:
        out[index] = rows
    else:
        core.put_rows(get_num_threads(), get_flush_subnormals(), rows, index, out)
