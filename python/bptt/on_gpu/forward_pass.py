"""`forward` of arrays on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import checks
from ..backends.cuda import forward as run_forward
from ..backends.protocol import SAVE
from ..cells import Cell
from .inputs import read_layer
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
) -> GpuTape:
    """``bptt.forward`` of one layer; the other keywords are for the host alone."""
    kept = checks.choice("save", save, SAVE)
    layer, rows = read_layer(cell, params, x, state, how, backend, precision)
    with layer.place.library.on(layer.place.device):
        record = run_forward(layer, save=kept == "gates")
    return GpuTape(layer, rows, record, kept)
