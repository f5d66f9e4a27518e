"""In which format the products of a step are made: the one option that a GPU alone has."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import checks
from .mma_tiles import FORMATS

__all__ = ["read_precision"]


def read_precision(precision: object, dtype: np.dtype[Any]) -> str | None:
    """A name of `FORMATS`, for arrays of float32; or None: in the dtype of the arrays.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    if precision is None:
        return None
    name = checks.choice("precision", precision, FORMATS)
    if dtype != np.float32:
        raise ValueError(f"precision: expected None with arrays of {dtype}, got {name!r}")
    return name
