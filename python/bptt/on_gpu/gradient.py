"""`value_and_grad` of arrays on a GPU, of a layer and of a list of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import checks
from ..array_libraries import Library
from ..backends.cuda import Gradients, backward, forward
from ..cells import Cell
from ..stack import is_stack
from ..stacked.readout import expect_readout
from ..stacked.wanted import READOUT, read_asked
from ..states import as_given
from ..wanted import Wanted, read_wanted
from .inputs import read_layer, read_layers
from .layers import Pass, Runner, by_layer
from .readout import read_objective, read_out
from .stack_tape import stack_grads_for_caller
from .tape import grads_for_caller

__all__ = ["value_and_grad"]


def value_and_grad(
    cell: Cell,
    params: object,
    x: Any,
    target: object,
    how: Mapping[str, object],
    *,
    loss: object,
    at: object,
    reduction: object,
    state: object,
    backend: object,
    precision: object,
    wanted: Wanted,
    return_state: object,
) -> tuple[Any, ...]:
    """``bptt.value_and_grad``; the other keywords are for the host alone.

    The loss is a float, so the call waits for the device.
    """
    described = (loss, at, reduction)
    if is_stack(params):
        return _of_stack(
            cell,
            params,
            x,
            target,
            how,
            described=described,
            state=state,
            backend=backend,
            precision=precision,
            wanted=wanted,
            return_state=return_state,
        )
    layer, rows = read_layer(cell, params, x, state, how, backend, precision)
    if layer.params.w_ho is None:
        raise ValueError("params: value_and_grad needs the readout weights w_ho, got None")
    names = read_wanted(wanted, readout=True)
    return_state = checks.boolean("return_state", return_state)
    place, library = layer.place, layer.place.library
    with library.on(place.device):
        objective = read_objective(layer.params, place, rows, target, *described)
        record = forward(layer, save=True)
        w_ho, b_o = layer.params.w_ho, layer.params.b_o
        value, dy, readout = read_out(library, w_ho, b_o, record.history[0], objective)
        found = backward(layer, record, (dy,), None, names)
        found.update({name: g for name, g in readout.items() if name in names})
        grads = grads_for_caller(library, rows, found)
        if not return_state:
            return value, grads
        last = rows.scatter_state(record.state)
        return value, grads, as_given(tuple(map(library.given, last)))


def _of_stack(
    cell: Cell,
    params: object,
    x: Any,
    target: object,
    how: Mapping[str, object],
    *,
    described: tuple[object, ...],
    state: object,
    backend: object,
    precision: object,
    wanted: Wanted,
    return_state: object,
) -> tuple[Any, ...]:
    """`value_and_grad` of a list of layers: all of them forward, the readout, and back."""
    read = read_layers(cell, params, x, state, how, backend, precision)
    stack, lowest, given, rows = read
    expect_readout(stack, "value_and_grad")
    options: dict[str, Any] = {"per_row": None, "accumulate": False, "readout": True}
    asked = read_asked(stack, rows.map, wanted=wanted, **options)
    return_state = checks.boolean("return_state", return_state)
    place, library = lowest.place, lowest.place.library
    with library.on(place.device):
        seen = replace(stack.bottom, w_ho=stack.top[0].w_ho, b_o=stack.top[0].b_o)
        objective = read_objective(seen, place, rows, target, *described)
        runner = Runner(lowest, rows, stack)
        names = by_layer(stack, (each - READOUT for each in asked.names))
        saves = [any(of_layer) for of_layer in names]
        kept: list[tuple[Pass, ...]] = []
        final: list[tuple[Any, ...]] = []
        for passes, save in zip(runner.run(stack, given, saves), saves, strict=True):
            final += [record.state for _, record in passes]
            kept += [passes] if save else []
        w_ho = [params.w_ho for params in stack.top]
        y, whole = runner.y(passes), library.concatenate(w_ho, 1) if w_ho[1:] else w_ho[0]
        value, dy, of_readout = read_out(library, whole, stack.top[0].b_o, y, objective)
        found, dx = runner.pull_back(kept, dy, None, names)
        top = slice(-len(stack.top), None)
        for d, (into, each) in enumerate(zip(found[top], asked.names[top], strict=True)):
            into.update(_of_direction(library, of_readout, d, stack.hidden_size, each))
        grads = stack_grads_for_caller(runner, stack, found, dx)
        if not return_state:
            return value, grads
        return value, grads, as_given(tuple(map(library.given, runner.leaving(final))))


def _of_direction(
    library: Library, of_readout: Gradients, d: int, hidden: int, names: frozenset[str]
) -> Gradients:
    """The gradients of the readout that are with one direction of the top layer."""
    mine = {}
    if "w_ho" in names:
        mine["w_ho"] = library.columns(of_readout["w_ho"], slice(d * hidden, (d + 1) * hidden))
    if "b_o" in names:
        mine["b_o"] = of_readout["b_o"]
    return mine
