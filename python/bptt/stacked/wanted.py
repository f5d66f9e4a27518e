"""`wanted=` and `per_row=` of a stack: what its way back computes, of each direction.

The way back ends at the lowest layer of which something is wanted; as far as it goes, the layer
below waits for each dL/dx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .. import checks
from ..params import PARAM_NAMES
from ..row_map import RowMap
from ..stack import Stack
from ..wanted import given_names, gradient_names, read_per_row

__all__ = ["READOUT", "Asked", "read_asked"]

READOUT = frozenset({"w_ho", "b_o"})
INPUTS = frozenset({"x", "state"})


class Asked(NamedTuple):
    """What a call asks of a way back.

    Attributes
    ----------
    names : tuple of frozenset
        What each direction computes, by the names of `Grads`; "x" also where only the layer below
        reads it.
    accumulate : bool
    per_row : {"norm", "gradient"} or None
    """

    names: tuple[frozenset[str], ...]
    accumulate: bool
    per_row: str | None


def read_asked(
    stack: Stack,
    rows: RowMap,
    *,
    wanted: object,
    per_row: object,
    accumulate: object,
    readout: bool,
) -> Asked:
    """Check what a caller asks of a stack, as `bptt.wanted` does of a layer.

    Raises
    ------
    TypeError, ValueError
        If `wanted` has a name that is none of the call's gradients, or `per_row` is none of its
        choices or goes not together with the rest.
    """
    checks.boolean("accumulate", accumulate)
    left_out = frozenset() if readout else READOUT
    names = tuple(INPUTS | (params.arrays().keys() - left_out) for params in stack.directions)
    if wanted is not None:
        names = _with_dx(stack, _some_of(names, wanted, stack, readout=readout))
    how = read_per_row(per_row, rows, accumulate=accumulate, truncated=False)
    return Asked(names, bool(accumulate), how)


def _some_of(
    names: Sequence[frozenset[str]], wanted: object, stack: Stack, *, readout: bool
) -> list[frozenset[str]]:
    """Of each direction's gradients those that the caller wants; "x" of the lowest layer alone."""
    params = frozenset(PARAM_NAMES) if readout else frozenset(PARAM_NAMES) - READOUT
    layers = [f"layers[{k}]" for k in range(len(stack.layers))]
    of_some = _of_some_directions(stack, params)
    found: list[frozenset[str]] = [frozenset()] * len(names)
    for name in given_names(wanted, (*gradient_names(readout=readout), *layers), of_some):
        meant = params if name == "params" else frozenset({name})
        directions: Sequence[int] = range(len(names))
        if name == "x":
            directions = range(len(stack.layers[0]))
        elif name in of_some:
            directions, meant = of_some[name]
        for d in directions:
            found[d] |= meant & names[d]
    return found


def _of_some_directions(
    stack: Stack, params: frozenset[str]
) -> dict[str, tuple[Sequence[int], frozenset[str]]]:
    """What names like "layers[1]", "layers[1][0]" and either with ".w_ih" mean."""
    places: dict[str, Sequence[int]] = {}
    first = 0
    for k, layer in enumerate(stack.layers):
        places[f"layers[{k}]"] = of_layer = range(first, first + len(layer))
        if len(layer) > 1:
            places.update({f"layers[{k}][{n}]": (d,) for n, d in enumerate(of_layer)})
        first += len(layer)
    found: dict[str, tuple[Sequence[int], frozenset[str]]] = {}
    for place, directions in places.items():
        found[place] = directions, params
        found.update({f"{place}.{name}": (directions, frozenset({name})) for name in params})
    return found


def _with_dx(stack: Stack, found: Sequence[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """The same with the "x" that each layer above the lowest of these has to compute."""
    below, d = False, 0
    names: list[frozenset[str]] = []
    for layer in stack.layers:
        mine = found[d : d + len(layer)]
        names += [each | {"x"} if below else each for each in mine]
        below = below or any(mine)
        d += len(layer)
    return tuple(names)
