"""What passes through a stack take and write, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backends.protocol import State
from ..cells import Cell
from ..checks import Array
from ..grads import StackGrads
from ..inputs import read_sequences
from ..outputs import expect_apart, expect_writable
from ..row_map import RowMap
from ..stack import Stack, read_stack
from ..states import as_given, as_tuple, by_part, read_state
from ..wanted import rows_like
from .wanted import Asked

__all__ = [
    "check_grads",
    "grads_like",
    "initial_state",
    "new_grads",
    "read_stack_inputs",
    "refuse",
]


def read_stack_inputs(
    cell: Cell, params: object, x: object, state: object, how: Mapping[str, object]
) -> tuple[Stack, Array, State | None, RowMap]:
    """Layers, x, and the states (L*D, B, H) or None; see `inputs.read_sequences`."""
    stack = read_stack(params, cell)
    _, array, _, rows = read_sequences(cell, stack.bottom, x, None, how)
    given = None
    if state is not None:
        shape = (len(stack.directions), rows.batch, stack.hidden_size)
        given = read_state("state", state, cell, shape, ("w_hh", stack.dtype), "params and x")
    return stack, array, given, rows


def initial_state(cell: Cell, stack: Stack, batch: int, given: State | None) -> State:
    """The states before the first step: what was given, or zeros."""
    if given is not None:
        return given
    shape = (len(stack.directions), batch, stack.hidden_size)
    return tuple(np.zeros(shape, stack.dtype) for _ in cell.states)


def refuse(**options: object) -> None:
    """Raise ValueError if any of these was given: they go with one layer alone."""
    for name, value in options.items():
        if value is not None:
            got = repr(value) if isinstance(value, (bool, int, str)) else type(value).__name__
            raise ValueError(f"{name}: expected None, as params are a stack of layers, got {got}")


def grads_like(
    stack: Stack, x: Array, state: State, asked: Asked, make: Callable[[Array], Array]
) -> StackGrads:
    """The gradients that are asked for: what `make` makes of arrays of their shapes, whose values
    are of no meaning."""
    batch, per_row = state[0].shape[1], asked.per_row
    layers = [
        params.like(lambda array: make(rows_like(array, batch, per_row)), names)
        for params, names in zip(stack.directions, asked.names, strict=True)
    ]
    lowest = asked.names[0]
    found: dict[str, Any] = {
        "x": make(x) if "x" in lowest else None,
        "state": as_given(tuple(map(make, state))) if "state" in lowest else None,
    }
    return StackGrads(**found, layers=stack.nested(layers))


def new_grads(stack: Stack, x: Array, state: State, asked: Asked) -> StackGrads:
    """Unwritten ones."""
    return grads_like(stack, x, state, asked, lambda array: np.empty(array.shape, array.dtype))


def check_grads(
    out: object,
    stack: Stack,
    x: Array,
    state: State,
    asked: Asked,
    read: Mapping[str, Array | None],
) -> None:
    """Check where the gradients of a stack, x and a state shall go; `read` is what else is read.

    As `outputs.check_grads` for one layer: what is not asked for is not looked at.
    """
    if out is None:
        if asked.accumulate:
            raise ValueError("accumulate: expected gradients to add to, got out=None")
        return
    if not isinstance(out, StackGrads):
        raise TypeError(f"out: expected bptt.StackGrads, got {type(out).__name__}")
    like = grads_like(stack, x, state, asked, lambda array: array)
    likes, given = _inputs_of(like), _inputs_of(out, like)
    likes |= like.arrays()
    others = stack.arrays().keys() - likes.keys()
    given |= {name: array for name, array in out.arrays().items() if name not in others}
    if out.as_stack().names != stack.names or likes.keys() != given.keys():
        counts = {"without": likes.keys() - given.keys(), "with": given.keys() - likes.keys()}
        got = " and ".join(f"{word} {', '.join(sorted(n))}" for word, n in counts.items() if n)
        raise ValueError(
            "out: expected a gradient of each parameter, nested as params, got one "
            f"{got or f'of {len(out.layers)} layers'}"
        )
    earlier: dict[str, Array] = {}
    read = {
        "x": x,
        **read,
        **{f"params{n.removeprefix('layers')}": a for n, a in stack.arrays().items()},
    }
    for name, of_it in likes.items():
        per_row = asked.per_row if name.startswith("layers") else None
        why = f"{name} with per_row={per_row!r}" if per_row else name
        array = expect_writable(f"out.{name}", given[name], of_it, why)
        for other, theirs in (*earlier.items(), *read.items()):
            if theirs is not None:
                expect_apart({f"out.{name}": array}, other, theirs)
        earlier[f"out.{name}"] = array


def _inputs_of(grads: StackGrads, like: StackGrads | None = None) -> dict[str, Array]:
    """The gradients of x and of the parts of the state, as far as `like` has them."""
    like = grads if like is None else like
    found = {} if like.x is None else {"x": grads.x}
    if like.state is None:
        return found
    state, parts = as_tuple(grads.state), len(as_tuple(like.state))
    if len(state) != parts:
        raise TypeError(
            f"out.state: expected {parts} arrays, as Grads.zeros(..., cell=...) has it, "
            f"got {len(state)}"
        )
    return {**found, **by_part("state", state)}
