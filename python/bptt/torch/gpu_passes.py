"""One direction of one layer on tensors that live on a GPU: the passes of the backend cuda."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from ..array_libraries import Place, place_of
from ..backends import require_cuda
from ..backends.cuda import CELLS, DeviceLayer, DeviceRecord, Kept
from ..backends.cuda import backward as run_backward
from ..backends.cuda import forward as run_forward
from ..cells import Cell
from ..checks import Array
from ..layer_arguments import WEIGHTS
from ..params import Params

__all__ = ["backward", "forward", "on_host"]

Given = Sequence[Tensor | None]


class Direction(Protocol):
    """What is read of ``passes.Direction`` here."""

    @property
    def cell(self) -> Cell: ...
    @property
    def offsets(self) -> Array | None: ...
    @property
    def kept(self) -> Kept: ...
    @property
    def parts(self) -> int: ...


def on_host(x: Tensor) -> bool:
    """Whether the kernels for the CPU read `x`."""
    return not x.is_cuda


def forward(how: Direction, flat: Given, gates: bool) -> tuple[Tensor, ...]:
    """As ``Direction.forward``: the history, the last state, and the gates if they are wanted.

    Raises
    ------
    TypeError
        If there are no kernels for the cell.
    RuntimeError
        If the backend is not available here.
    torch.OutOfMemoryError
        If the device has too little.
    """
    layer = _layer(how, flat)
    with _on(layer.place):
        record = run_forward(layer, save=gates)
    x = flat[0]
    assert x is not None
    saved = () if record.saved is None else (record.saved,)
    # Of a view, PyTorch would refuse a change in place where gradients are to come.
    as_own = torch.ops.aten._unsafe_view
    shaped = [as_own(t, (*x.shape[:-1], *t.shape[1:])) for t in (*record.history, *saved)]
    parts = how.parts
    return (*shaped[:parts], *record.state, *shaped[parts:])


def backward(
    how: Direction,
    flat: Given,
    history: Sequence[Tensor],
    gates: Sequence[Tensor],
    incoming: Given,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """As ``Direction.backward``, of the sum over rows alone."""
    layer, parts = _layer(how, flat), how.parts
    dense = layer.place.library.readable
    dy, *dlast = (None if d is None else dense(d) for d in incoming)
    saved = _rows(dense(gates[0]), 2) if gates else None
    record = DeviceRecord(tuple(_rows(dense(t), 1) for t in history), (), saved)
    names = ("x", *("state",) * parts, *WEIGHTS)
    wanted = {name for name, is_ in zip(names, needed, strict=True) if is_}
    into_state = tuple(dlast) if any(d is not None for d in dlast) else None
    with _on(layer.place):
        dhistory = (None if dy is None else _rows(dy, 1),)
        found = run_backward(layer, record, dhistory, into_state, wanted)
    x = flat[0]
    assert x is not None
    if "x" in found:
        found["x"] = found["x"].reshape(x.shape)
    state = found.get("state", (None,) * parts)
    grads = (found.get("x"), *state, *(found.get(name) for name in WEIGHTS))
    return tuple(g if is_ else None for g, is_ in zip(grads, needed, strict=True))


@contextmanager
def _on(place: Place) -> Iterator[None]:
    """Work there; lack of memory is the error that those who use PyTorch catch."""
    try:
        with place.library.on(place.device):
            yield
    except MemoryError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            raise error.__cause__ from None
        raise


def _layer(how: Direction, flat: Given) -> DeviceLayer:
    cell, offsets, parts = how.cell, how.offsets, how.parts
    if cell.name not in CELLS:
        raise TypeError(f"cell {cell.name!r} has no kernels for a GPU")
    launcher = require_cuda()
    given, weights = flat[1 : 1 + parts], flat[1 + parts :]
    x = flat[0]
    assert x is not None
    place = place_of(x)
    assert place is not None
    dense = place.library.readable
    params = Params.trusted(*(None if w is None else dense(w) for w in weights))  # type: ignore[arg-type]
    batch = int(x.shape[1]) if offsets is None else int(offsets[1]) if len(offsets) > 1 else 0
    steps = int(x.shape[0]) if offsets is None else len(offsets) - 1
    state: tuple[Any, ...] = tuple(
        x.new_zeros((batch, params.hidden_size)) if s is None else dense(s) for s in given
    )
    rows = _rows(dense(x), 1)
    return DeviceLayer(place, launcher, cell, params, rows, state, steps, offsets, kept=how.kept)


def _rows(tensor: Tensor, axes: int) -> Tensor:
    """All rows on one axis, before the last `axes`."""
    last = tuple(tensor.shape[-axes:])
    return tensor.reshape(math.prod(tensor.shape[:-axes]), *last)
