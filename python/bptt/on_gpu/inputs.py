"""What every pass on a GPU takes, checked: the layer, and whose rows its rows are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import checks
from ..array_libraries import Place, read_float_array
from ..backends import REGISTRY, require_cuda
from ..backends.cuda import CELLS, DeviceLayer, Launcher, passes_for, read_precision
from ..cells import Cell
from ..params import Params
from ..row_map import dense_rows
from ..sequence_options import expect_one_layout, read_row_map
from ..stack import Stack, read_stack
from ..states import read_state
from .concerned import place_for
from .rows import DeviceRows

__all__ = ["read_layer", "read_layers", "reader"]


def read_layer(
    cell: Cell,
    params: object,
    x: Any,
    state: object,
    how: Mapping[str, object],
    backend: object,
    precision: object,
) -> tuple[DeviceLayer, DeviceRows]:
    """Check parameters, x and the state, and lay them out as a layer has them.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    RuntimeError
        If the backend is not available here.
    """
    if not isinstance(params, Params):
        raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}")
    place, launcher = _where(cell, params, x, backend)
    with place.library.on(place.device):
        params = params.readable_at(place, cell)
    by = _read_precision(cell, params, place, launcher, precision)
    x, rows = _read_rows(params, x, place, how)
    shape = (rows.map.batch, params.hidden_size)
    with place.library.on(place.device):
        given = _read_state(cell, state, shape, params, x, place)
        layer = DeviceLayer(
            place,
            launcher,
            cell,
            params,
            rows.gather(x),
            rows.gather_state(given),
            rows.steps,
            rows.map.offsets,
            by,
        )
    return layer, rows


def read_layers(
    cell: Cell,
    params: object,
    x: Any,
    state: object,
    how: Mapping[str, object],
    backend: object,
    precision: object,
) -> tuple[Stack, DeviceLayer, tuple[Any, ...], DeviceRows]:
    """The same of a list of layers: these, the lowest as it gets x but without a state, the states
    (L*D, B, H) of all, and the rows."""
    bottom = read_stack(params).bottom
    place, launcher = _where(cell, bottom, x, backend)
    with place.library.on(place.device):
        stack = read_stack(params, cell, place)
    by = _read_precision(cell, stack.bottom, place, launcher, precision)
    x, rows = _read_rows(stack.bottom, x, place, how)
    shape = (len(stack.directions), rows.map.batch, stack.hidden_size)
    with place.library.on(place.device):
        given = _read_state(cell, state, shape, stack.bottom, x, place)
        lowest = DeviceLayer(
            place,
            launcher,
            cell,
            stack.bottom,
            rows.gather(x),
            (),
            rows.steps,
            rows.map.offsets,
            by,
        )
    return stack, lowest, given, rows


def _where(cell: Cell, params: Params, x: object, backend: object) -> tuple[Place, Launcher]:
    """Where a call runs, and who launches there."""
    backend = checks.choice("backend", backend, ("auto", *REGISTRY, "cuda"))
    launcher = require_cuda() if backend == "cuda" else None  # why it is missing comes first
    place = place_for(x, params)
    if backend not in ("auto", "cuda"):
        raise ValueError(
            f"x: backend {backend!r} reads arrays of the host, got one on {place}; copy it there, "
            "as .cpu() does"
        )
    launcher = launcher or require_cuda()
    if cell.name not in CELLS:
        raise TypeError(f"backend 'cuda' does not compute cell {cell.name!r}")
    return place, launcher


def _read_precision(
    cell: Cell, params: Params, place: Place, launcher: Launcher, precision: object
) -> str | None:
    """What the products of a step are rounded to: ValueError if no kernel holds them so."""
    by = read_precision(precision, params.dtype)
    if by is not None:
        chip, itemsize = launcher.chip(place.device), params.dtype.itemsize
        passes_for(chip, cell, itemsize, 1, params.hidden_size, by)
    return by


def _read_rows(
    params: Params, x: Any, place: Place, how: Mapping[str, object]
) -> tuple[Any, DeviceRows]:
    """x as kernels read it, and whose rows its rows are."""
    like = ("w_hh", params.dtype)
    axes: tuple[str, ...] = ("B", "T") if how.get("batch_first") else ("T", "B")
    if how.get("batch_sizes") is not None:
        expect_one_layout(how.get("lengths"), how["batch_sizes"], how.get("batch_first"))
        axes = ("N",)
    x = read_float_array("x", x, place, "params", like)
    checks.expect_shape(
        "x", x, (*axes, params.input_size), lambda: f"w_ih of shape {tuple(params.w_ih.shape)}"
    )
    shape = tuple(x.shape[:-1])
    row_map = read_row_map(shape, **how) if how else dense_rows(*shape)
    with place.library.on(place.device):
        x = place.library.readable(x)
        return x, DeviceRows(row_map, place, x)


def _read_state(
    cell: Cell, state: object, shape: tuple[int, ...], params: Params, x: Any, place: Place
) -> tuple[Any, ...]:
    """The parts of a state of that shape; zeros if it is not given."""
    if state is None:
        return tuple(place.library.zeros(shape, x) for _ in cell.states)
    why = "x and w_hh" if len(shape) == 2 else "params and x"
    like = ("w_hh", params.dtype)
    return read_state("state", state, cell, shape, like, why, read=reader(place))


def reader(place: Place) -> Callable[..., Any]:
    """``checks.read_like`` of arrays at `place`."""

    def read_like(
        name: str,
        value: object,
        shape: tuple[int, ...],
        like: tuple[str, Any],
        why: Callable[[], str] | str,
    ) -> Any:
        array = read_float_array(name, value, place, "x", like)
        checks.expect_shape(name, array, shape, why)
        return place.library.readable(array)

    return read_like
