"""What every pass on a GPU takes, checked: the layer, and whose rows its rows are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import checks
from ..array_libraries import Place, read_float_array
from ..backends import REGISTRY, require_cuda
from ..backends.cuda import CELLS, DeviceLayer, read_precision
from ..cells import Cell
from ..params import Params
from ..row_map import dense_rows
from ..sequence_options import expect_one_layout, read_row_map
from ..stack import is_stack
from ..states import read_state
from .concerned import place_for
from .rows import DeviceRows

__all__ = ["read_layer", "reader"]


def read_layer(
    cell: Cell,
    params: object,
    x: Any,
    state: object,
    how: Mapping[str, object],
    backend: object,
    precision: object = None,
) -> tuple[DeviceLayer, DeviceRows]:
    """Check parameters, x and the state, and lay them out as a layer has them.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    RuntimeError
        If the backend is not available here.
    """
    if is_stack(params):
        raise TypeError("params: expected bptt.Params, as a GPU takes one layer, got a stack")
    if not isinstance(params, Params):
        raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}")
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
    with place.library.on(place.device):
        params = params.readable_at(place, cell)
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
    of_state = (row_map.batch, params.hidden_size)
    with place.library.on(place.device):
        x = place.library.readable(x)
        rows = DeviceRows(row_map, place, x)
        if state is None:
            given = tuple(place.library.zeros(of_state, x) for _ in cell.states)
        else:
            why = "x and w_hh"
            given = read_state("state", state, cell, of_state, like, why, read=reader(place))
        layer = DeviceLayer(
            place,
            launcher,
            cell,
            params,
            rows.gather(x),
            rows.gather_state(given),
            rows.steps,
            row_map.offsets,
            read_precision(precision, params.dtype),
        )
        layer.passes  # noqa: B018 - which there may be none of, in this precision
    return layer, rows


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
