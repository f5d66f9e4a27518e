"""What front ends read of a layer's arguments before they look at the arrays, which are of their
frameworks: the parameters by their names, and the parts of a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cells import Cell
from .states import as_tuple, names

__all__ = ["WEIGHTS", "state_parts", "weights_by_name"]

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


def weights_by_name(params: object, kind: str) -> dict[str, Any]:
    """Of all `WEIGHTS`, in their order, of a mapping or a sequence; None for what is not there.

    `kind` is what errors call one of them: "array", "tensor".

    Raises
    ------
    TypeError, ValueError
        If it is neither, has another number of them, or has others.
    """
    if isinstance(params, Mapping):
        for name in params:
            if name not in WEIGHTS:
                raise ValueError(f"params: expected names among {', '.join(WEIGHTS)}, got {name!r}")
        given = dict(params)
    elif isinstance(params, (list, tuple)):
        if not 2 <= len(params) <= len(WEIGHTS):
            raise ValueError(
                f"params: expected 2 to 4 {kind}s, {', '.join(WEIGHTS)}, got {len(params)}"
            )
        given = dict(zip(WEIGHTS, params, strict=False))
    else:
        raise TypeError(
            f"params: expected a mapping or a sequence of {kind}s, of one layer, "
            f"got {type(params).__name__}"
        )
    return {name: given.get(name) for name in WEIGHTS}


def state_parts(cell: Cell, state: object, kind: str) -> dict[str, Any]:
    """Each part of a state of `cell`, by what errors call it.

    Raises
    ------
    TypeError
        If it is not one array, or a pair of them, as the cell has it.
    """
    parts = names("state", len(cell.states))
    several = isinstance(state, (tuple, list))
    if several if len(parts) == 1 else not several or len(state) != len(parts):  # type: ignore[arg-type]
        one = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        pair = f"a pair ({', '.join(cell.states)}) of {kind}s"
        wanted = one if len(parts) == 1 else pair
        of = f" of length {len(state)}" if several else ""  # type: ignore[arg-type]
        raise TypeError(
            f"state: expected {wanted} for cell {cell.name!r}, got {type(state).__name__}{of}"
        )
    given = tuple(state) if isinstance(state, list) else as_tuple(state)
    return dict(zip(parts, given, strict=True))
