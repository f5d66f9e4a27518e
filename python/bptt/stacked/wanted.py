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
    found = _read_names(wanted, stack, readout=readout)
    how = read_per_row(per_row, rows, accumulate=accumulate, truncated=False)
    return Asked(_with_dx(stack, found), bool(accumulate), how)


def _read_names(wanted: object, stack: Stack, *, readout: bool) -> list[set[str]]:
    """Of each direction, the names of what the caller wants; "x" of the lowest layer alone."""
    params = set(PARAM_NAMES) if readout else set(PARAM_NAMES) - READOUT
    found: list[set[str]] = [set() for _ in stack.directions]
    if wanted is None:
        wanted = ("x", "state", "params")
    layers = {f"layers[{k}]": k for k in range(len(stack.layers))}
    of_some = _of_some_directions(stack, params)
    for name in given_names(wanted, (*gradient_names(readout=readout), *layers), of_some):
        meant = params if name == "params" else {name}
        directions: Sequence[int] = range(len(found))
        if name == "x":
            directions = range(len(stack.layers[0]))
        elif name in of_some:
            directions, meant = of_some[name]
        for d in directions:
            found[d] |= meant
    return [
        names & ({"x", "state"} | params.arrays().keys())
        for names, params in zip(found, stack.directions, strict=True)
    ]


def _of_some_directions(
    stack: Stack, params: set[str]
) -> dict[str, tuple[Sequence[int], set[str]]]:
    """What names like "layers[1]", "layers[1][0]" and either with ".w_ih" mean."""
    places: dict[str, Sequence[int]] = {}
    first = 0
    for k, layer in enumerate(stack.layers):
        places[f"layers[{k}]"] = of_layer = range(first, first + len(layer))
        if len(layer) > 1:
            places.update({f"layers[{k}][{n}]": (d,) for n, d in enumerate(of_layer)})
        first += len(layer)
    found: dict[str, tuple[Sequence[int], set[str]]] = {}
    for place, directions in places.items():
        found[place] = directions, params
        found.update({f"{place}.{name}": (directions, {name}) for name in params})
    return found


def _with_dx(stack: Stack, found: list[set[str]]) -> tuple[frozenset[str], ...]:
    """The same with the "x" that each layer above the lowest of these has to compute."""
    below, d = False, 0
    names: list[frozenset[str]] = []
    for layer in stack.layers:
        mine = found[d : d + len(layer)]
        names += [frozenset(each | {"x"}) if below else frozenset(each) for each in mine]
        below = below or any(mine)
        d += len(layer)
    return tuple(names)
