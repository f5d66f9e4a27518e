"""What passes through a stack take and write, checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import checks
from ..backends.protocol import State
from ..cells import Cell
from ..checks import Array
from ..grads import StackGrads
from ..inputs import read_sequences
from ..outputs import expect_apart, expect_writable
from ..row_map import RowMap
from ..stack import Stack, read_stack
from ..states import by_part, read_state

__all__ = ["check_grads", "initial_state", "read_stack_inputs", "refuse"]


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


def check_grads(
    out: object,
    accumulate: object,
    stack: Stack,
    state: State,
    read: Mapping[str, Array | None],
    *,
    readout: bool,
) -> None:
    """Check where a stack's gradients shall go; as `outputs.check_grads` for one layer."""
    checks.boolean("accumulate", accumulate)
    if out is None:
        if accumulate:
            raise ValueError("accumulate: expected gradients to add to, got out=None")
        return
    if not isinstance(out, StackGrads):
        raise TypeError(f"out: expected bptt.StackGrads, got {type(out).__name__}")
    likes: dict[str, Array | None] = {"x": read["x"], **by_part("state", state), **stack.arrays()}
    given = {"x": out.x, **_parts(out, len(state)), **out.arrays()}
    if not readout:
        likes = {name: array for name, array in likes.items() if not _of_readout(name)}
        given = {name: array for name, array in given.items() if not _of_readout(name)}
    if likes.keys() != given.keys():
        counts = {"without": likes.keys() - given.keys(), "with": given.keys() - likes.keys()}
        got = " and ".join(f"{word} {', '.join(sorted(n))}" for word, n in counts.items() if n)
        raise ValueError(
            f"out: expected a gradient of each parameter, nested as params, got one {got}"
        )
    earlier: dict[str, Array] = {}
    others = {**read, **{f"params{n.removeprefix('layers')}": a for n, a in stack.arrays().items()}}
    for name, like in likes.items():
        assert like is not None
        array = expect_writable(f"out.{name}", given[name], like, name)
        for other, theirs in (*earlier.items(), *others.items()):
            if theirs is not None:
                expect_apart({f"out.{name}": array}, other, theirs)
        earlier[f"out.{name}"] = array


def _of_readout(name: str) -> bool:
    return name.endswith((".w_ho", ".b_o"))


def _parts(out: StackGrads, parts: int) -> dict[str, Array]:
    state = out.state if isinstance(out.state, tuple) else (out.state,)
    if len(state) != parts:
        raise TypeError(
            f"out.state: expected {parts} arrays, as Grads.zeros(..., cell=...) has it, "
            f"got {len(state)}"
        )
    return by_part("state", state)
