"""States as callers have them, one array or the pair (h, c), and as backends do: always a tuple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import checks
from .cells import Cell
from .checks import Array

__all__ = ["GivenState", "as_given", "as_tuple", "by_part", "names", "read_state"]

# What a caller passes and gets: (B, H), or for a cell with two states the pair of them. Not a
# union, which every reader of a state would have to narrow.
GivenState = Any


def read_state(
    name: str,
    value: Any,
    cell: Cell,
    shape: tuple[int, ...],
    like: tuple[str, np.dtype[Any]],
    why: Callable[[], str] | str,
    *,
    partly: bool = False,
    read: Callable[..., Any] = checks.read_like,
) -> tuple[Any, ...]:
    """`value` as one readable array (B, H), or (L*D, B, H) of a stack, for each state of
    `cell`; `partly`: None for some. `read` is `checks.read_like`, or does the same elsewhere.

    Raises
    ------
    TypeError
        If a cell with several states gets anything but a tuple or list of as many arrays, or an
        array is not one of floats like those of `like`.
    ValueError
        If an array has another shape.
    """
    parts = cell.states
    several = isinstance(value, (tuple, list))
    if len(parts) == 1:
        if several:
            raise TypeError(
                f"{name}: expected a NumPy array or an object with __dlpack__, as a state of cell "
                f"{cell.name!r} is one array, got {type(value).__name__}"
            )
        return (read(name, value, shape, like, why),)
    if not several or len(value) != len(parts):
        got = type(value).__name__
        if several:
            got += f" of length {len(value)}"
        raise TypeError(
            f"{name}: expected a tuple ({', '.join(parts)}) of arrays for cell {cell.name!r}, "
            f"got {got}"
        )
    partly = partly and any(each is not None for each in value)
    return tuple(
        None if partly and each is None else read(part, each, shape, like, why)
        for part, each in zip(names(name, len(parts)), value, strict=True)
    )


def as_given(state: tuple[Array, ...]) -> GivenState:
    """`state` as a caller has it."""
    return state[0] if len(state) == 1 else state


def as_tuple(state: GivenState) -> tuple[Array, ...]:
    """The other way round."""
    return state if isinstance(state, tuple) else (state,)


def names(name: str, parts: int) -> tuple[str, ...]:
    """What errors call each part of a state."""
    return (name,) if parts == 1 else tuple(f"{name}[{i}]" for i in range(parts))


def by_part(name: str, state: tuple[Any, ...]) -> dict[str, Any]:
    """The arrays of a state by the names that errors give them."""
    return dict(zip(names(name, len(state)), state, strict=True))
