"""What the parameters of a layer are, and how they are drawn, for modules that hold one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .. import checks
from ..cells import get_cell

__all__ = ["arrays_of", "uniform"]


def arrays_of(cell: str, inputs: int, hidden: int, bias: bool) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter, by its name.

    Raises
    ------
    TypeError, ValueError
        Of an unknown cell, or sizes that are none.
    """
    rows = get_cell(cell).gates * checks.size("features", hidden)
    shapes: dict[str, tuple[int, ...]] = {
        "w_ih": (rows, checks.size("in_features", inputs)),
        "w_hh": (rows, hidden),
    }
    return {**shapes, "b_ih": (rows,), "b_hh": (rows,)} if bias else shapes


def uniform(hidden: int) -> Callable[[Any, tuple[int, ...], Any], jax.Array]:
    """U(-1/sqrt(H), 1/sqrt(H)), from which PyTorch draws all weights of a recurrent module."""
    bound = hidden**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
