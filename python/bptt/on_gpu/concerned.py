"""Whether a call is one for a GPU, and what it may not ask for there."""

from __future__ import annotations

import numpy as np

from .. import array_libraries
from ..array_libraries import Place, place_of
from ..params import Params
from ..stack import is_stack

__all__ = ["expect_none", "expect_on_host", "is_on_gpu", "place_for"]


def is_on_gpu(backend: object, params: object, x: object) -> bool:
    """Whether a call is for the backend cuda: by its name, or since its arrays live there."""
    if type(x) is not np.ndarray and place_of(x) is not None:
        return True
    first = params
    while is_stack(first) and first:
        first = first[0]  # type: ignore[index]
    if isinstance(first, Params):
        w_hh = first.w_hh
        if type(w_hh) is not np.ndarray and place_of(w_hh) is not None:
            return True
    return isinstance(backend, str) and backend == "cuda"


def place_for(x: object, params: object) -> Place:
    """Where x lives, or where it is copied to if all is on the host.

    Raises
    ------
    ValueError
        If x is on the host and the parameters are not.
    RuntimeError
        If nothing can copy it.
    """
    place = place_of(x)
    if place is not None:
        return place
    there = place_of(params.w_hh) if isinstance(params, Params) else None
    if there is not None:
        raise ValueError(f"x: expected an array on {there} as params are, got one on the host")
    return array_libraries.COPYING.place()


def expect_none(**given: object) -> None:
    """Raise ValueError if one of these keywords was given, each None or False if not."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise ValueError(f"{name}: not for arrays on a GPU yet, got {value!r}")


def expect_on_host(**given: object) -> None:
    """Raise ValueError if one of these keywords was given with arrays of the host."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name}: for arrays on a GPU alone, those of the host are computed in their own "
                f"dtype; got {value!r}"
            )
