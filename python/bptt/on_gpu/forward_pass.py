"""`forward` of arrays on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import checks
from ..backends.cuda import forward as run_forward
from ..backends.protocol import SAVE
from ..cells import Cell
from ..stack import is_stack
from .inputs import read_layer, read_layers
from .layers import Runner
from .stack_tape import GpuStackTape
from .tape import GpuTape

__all__ = ["forward"]


def forward(
    cell: Cell,
    params: object,
    x: Any,
    state: object,
    how: Mapping[str, object],
    *,
    backend: object,
    save: object,
    precision: object,
) -> GpuTape | GpuStackTape:
    """``bptt.forward``; the other keywords are for the host alone."""
    kept = checks.choice("save", save, SAVE)
    if is_stack(params):
        return _of_stack(cell, params, x, state, how, backend, precision, kept)
    layer, rows = read_layer(cell, params, x, state, how, backend, precision)
    with layer.place.library.on(layer.place.device):
        record = run_forward(layer, save=kept == "gates")
    return GpuTape(layer, rows, record, kept, state is not None)


def _of_stack(
    cell: Cell,
    params: object,
    x: Any,
    state: object,
    how: Mapping[str, object],
    backend: object,
    precision: object,
    kept: str,
) -> GpuStackTape:
    read = read_layers(cell, params, x, state, how, backend, precision)
    stack, lowest, given, rows = read
    with lowest.place.library.on(lowest.place.device):
        runner = Runner(lowest, rows, stack)
        passes = list(runner.run(stack, given, [kept == "gates"] * len(stack.layers)))
        return GpuStackTape(runner, stack, passes, kept, state is not None)
