"""`wanted=` and `per_row=`: which gradients a call computes, and whether apart for each row.

A row is one sequence of the batch. With dL/dW = sum_b g_b, ``per_row="gradient"`` gives each g_b
and ``per_row="norm"`` its Frobenius norm ||g_b||, what clipping by sample needs (Abadi et al. 2016,
"Deep learning with differential privacy", Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from . import checks
from .checks import Array
from .grads import EVERYTHING, GRAD_NAMES
from .params import PARAM_NAMES
from .row_map import RowMap

__all__ = [
    "Wanted",
    "given_names",
    "gradient_names",
    "norm_of",
    "read_per_row",
    "read_wanted",
    "rows_like",
]

# What a caller passes: a name of `Grads`, "params", or several of these; None for all.
Wanted = str | Iterable[str] | None

_READOUT = ("w_ho", "b_o")


def read_wanted(wanted: object, *, readout: bool) -> frozenset[str]:
    """The names of the gradients that are wanted.

    Raises
    ------
    TypeError
        If it is no string, nor several of them.
    ValueError
        If there is none, or one that is no name of a gradient of the call.
    """
    if wanted is None:
        return EVERYTHING
    found: set[str] = set()
    for name in given_names(wanted, gradient_names(readout=readout)):
        found.update(PARAM_NAMES if name == "params" else (name,))
    return frozenset(found)


def gradient_names(*, readout: bool) -> tuple[str, ...]:
    """What a caller may name, with the gradients of a readout or without."""
    return (*(name for name in GRAD_NAMES if readout or name not in _READOUT), "params")


def given_names(
    wanted: object, allowed: tuple[str, ...], more: Collection[str] = ()
) -> Collection[str]:
    """The names that a caller passed, each `allowed`, or one of some `more` that no error lists.

    Raises
    ------
    TypeError, ValueError
        As `read_wanted` does.
    """
    given = (wanted,) if isinstance(wanted, str) else wanted
    if not isinstance(given, (tuple, list, set, frozenset)):
        raise TypeError(f"wanted: expected a name or a tuple of names, got {type(wanted).__name__}")
    if not given:
        raise ValueError(f"wanted: expected at least one of {', '.join(allowed)}, got none")
    for name in given:
        if not isinstance(name, str) or name not in more:
            checks.choice("wanted", name, allowed)
    return given


def read_per_row(
    per_row: object, rows: RowMap, *, accumulate: object, truncated: bool
) -> str | None:
    """What is wanted of each row: None, "norm" or "gradient".

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or goes not together with the other arguments.
    """
    if per_row is None:
        return None
    chosen = checks.choice("per_row", per_row, ("norm", "gradient"))
    if truncated:
        raise ValueError("per_row: expected neither truncate nor detach_every with it")
    if rows.inner_batch != rows.batch:
        raise ValueError("per_row: expected no reset behind a sequence's first step")
    if chosen == "norm" and accumulate:
        raise ValueError("per_row: norms do not add up; expected accumulate=False with 'norm'")
    return chosen


def rows_like(array: Array, batch: int, per_row: str | None) -> Array:
    """An array of the shape that a parameter's gradient has; its values are of no meaning."""
    if per_row is None:
        return array
    if per_row == "norm":
        return np.empty(batch, array.dtype)
    return np.broadcast_to(array, (batch, *array.shape))


def norm_of(gradient: Array) -> np.floating[Any]:
    """Frobenius norm; squares are summed in float64 at least."""
    wide = np.promote_types(gradient.dtype, np.float64)
    largest = np.abs(gradient).max(initial=0)
    scale = largest.astype(wide) if 0 < largest < np.inf else wide.type(1)  # squares are in range
    norm: np.floating[Any] = scale * np.sqrt(np.square(gradient / scale, dtype=wide).sum())
    return norm
