"""Both passes of one layer, on a GPU: what is a product over all steps is the array library's.

    projected = x W_xᵀ + b        S = kernel(projected)        da = kernel(dS)
    dW_x = daᵀ x        dW_s = daᵀ S_{t-1}        dx = da W_x        db = sum of da

Arrays are those of `..array_libraries`, in the rows of a layer (`..row_map`), of which there are N.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...array_libraries import Place
from ...cells import Cell
from ...checks import Array
from ...params import Params
from .chips import Chip
from .launching import Launch, Launcher
from .planning import DevicePasses, passes_for
from .source import source_of_steps, source_of_tile
from .tiles import THREADS, Cut

__all__ = ["DeviceLayer", "DeviceRecord", "Gradients", "backward", "forward"]


Kept = dict[tuple[str, int], Any]


@dataclass(eq=False)
class DeviceLayer:
    """A layer on a GPU and what runs through it.

    Attributes
    ----------
    place : Place
    launcher : Launcher
    cell : Cell
    params : Params
    x : (N, I)
    state : tuple of (B, H)
    steps : int
    offsets : (T + 1,) int64 of the host, or None
        How many rows there are before each step; None if all steps have B.
    precision : str or None
        What the operands of W_s S and its adjoint are rounded to, a name of `FORMATS`; None: those
        of the arrays.
    kept : dict
        What was made of the offsets, on each GPU. Layers of the same offsets share it, and so does
        what ``replace`` makes.
    """

    place: Place
    launcher: Launcher
    cell: Cell
    params: Params
    x: Any
    state: tuple[Any, ...]
    steps: int
    offsets: Array | None
    precision: str | None = None
    kept: Kept = field(default_factory=dict, repr=False)

    def without_arrays(self) -> DeviceLayer:
        """What is left to be named once nothing runs through it any more."""
        return replace(self, params=None, x=None, state=(), kept={})  # type: ignore[arg-type]

    @property
    def batch(self) -> int:
        return int(self.state[0].shape[0])

    @property
    def hidden(self) -> int:
        return self.params.hidden_size

    @property
    def rows(self) -> int:
        return int(self.x.shape[0])

    @property
    def device_offsets(self) -> Any:
        """The offsets on the GPU, or None."""
        offsets = self.offsets
        return None if offsets is None else self._once("offsets", lambda: offsets)

    @cached_property
    def chip(self) -> Chip:
        return self.launcher.chip(self.place.device)

    @cached_property
    def passes(self) -> DevicePasses:
        itemsize = self.params.dtype.itemsize
        return passes_for(self.chip, self.cell, itemsize, self.batch, self.hidden, self.precision)

    @property
    def before(self) -> Any:
        """The row of the step before of every row but those of the first step; or None: all steps
        have B rows, so it is B rows up."""
        return None if self.offsets is None else self._once("before", self._rows_before)

    @property
    def last(self) -> Any:
        """The row of the last step of each row of the batch that has steps."""
        return self._once("last", self._last_rows)

    def _rows_before(self) -> Array:
        assert self.offsets is not None
        starts, active = self.offsets[:-1], np.diff(self.offsets)
        later = np.arange(self.active(0), self.rows)
        step = np.repeat(np.arange(self.steps), active)[self.active(0) :]
        found: Array = starts[step - 1] + later - starts[step]
        return found

    def _last_rows(self) -> Array:
        assert self.offsets is not None
        active = np.diff(self.offsets)
        rows = np.arange(self.active(0))
        length = np.searchsorted(-active, -rows, side="left")
        found: Array = self.offsets[length - 1] + rows
        return found

    def active(self, step: int) -> int:
        """How many rows it has."""
        if self.steps == 0:
            return 0
        if self.offsets is None:
            return self.batch
        return int(self.offsets[step + 1] - self.offsets[step])

    def first_row(self, step: int) -> int:
        return step * self.batch if self.offsets is None else int(self.offsets[step])

    def of_step(self, array: Any, step: int) -> Any:
        """Its rows."""
        start = self.first_row(step)
        return array[start : start + self.active(step)]

    def empty(self, *shape: int) -> Any:
        return self.place.library.empty(shape, self.x)

    def zeros(self, *shape: int) -> Any:
        return self.place.library.zeros(shape, self.x)

    def pointer(self, array: Any) -> int:
        """0 of what there is not."""
        return 0 if array is None else self.place.library.pointer(array)

    def pointers(self, *arrays: Any) -> list[int]:
        return [self.pointer(array) for array in arrays]

    def sequence(self) -> list[int]:
        """T, B, offsets and H, as each kernel takes them."""
        return [self.steps, self.batch, self.pointer(self.device_offsets), self.hidden]

    def _once(self, name: str, make: Callable[[], Array]) -> Any:
        key = (name, self.place.device)
        if key not in self.kept:
            host = np.ascontiguousarray(make(), np.int64)
            self.kept[key] = self.place.library.upload(host, self.x)
        return self.kept[key]


@dataclass(eq=False)
class DeviceRecord:
    """What a forward pass leaves: S and c of all rows, each row's last state, and what is saved.

    Attributes
    ----------
    history : tuple of (N, H)
    state : tuple of (B, H)
    saved : (N, saved, H), or None
    """

    history: tuple[Any, ...]
    state: tuple[Any, ...]
    saved: Any


# By the names of `Grads`; the state's is a tuple.
Gradients = dict[str, Any]


def forward(layer: DeviceLayer, *, save: bool) -> DeviceRecord:
    """Run through all steps; `save` what the pass back reads beside the states."""
    cell, params = layer.cell, layer.params
    rows, hidden = layer.rows, layer.hidden
    apart = bool(cell.apart)
    bias = params.b_ih
    if params.b_hh is not None and not apart:
        bias = params.b_hh if bias is None else bias + params.b_hh
    projected = layer.x @ params.w_ih.T
    if bias is not None:
        projected += bias
    history = tuple(layer.empty(rows, hidden) for _ in cell.states)
    saved = layer.empty(rows, cell.saved, hidden) if save and cell.saved else None
    y, c = (*history, None)[:2]
    b_hh = params.b_hh if apart else None
    arguments = [
        *layer.sequence(),
        *layer.pointers(projected, params.w_hh, b_hh, *_two(layer.state), y, c, saved),
    ]
    if layer.passes.tile is not None:
        _hold(layer, layer.passes.tile, "forward", arguments)
    else:
        _step_forward(layer, y, arguments)
    return DeviceRecord(history, _last_state(layer, history), saved)


def backward(
    layer: DeviceLayer,
    record: DeviceRecord,
    dhistory: tuple[Any, ...],
    dlast: tuple[Any, ...] | None,
    wanted: Collection[str],
) -> Gradients:
    """Pull the gradients of S and c, (N, H) or None each, and of the last state back."""
    cell, params, hidden = layer.cell, layer.params, layer.hidden
    saved = record.saved
    if saved is None and cell.saved:
        saved = forward(layer, save=True).saved
    delta = layer.empty(layer.rows, cell.sums, hidden)
    dstate = tuple(layer.empty(layer.batch, hidden) for _ in cell.states)
    read = (params.w_hh, *_two(layer.state), *_two(record.history), saved)
    given = (*_two(dhistory), *_two(dlast or ()))
    arguments = [*layer.sequence(), *layer.pointers(*read, *given, delta, *_two(dstate))]
    if layer.passes.tile is not None:
        _hold(layer, layer.passes.tile, "backward", arguments)
    else:
        _step_backward(layer, delta, arguments)
    return _products(layer, record.history[0], delta, dstate, wanted)


def _two(arrays: tuple[Any, ...]) -> tuple[Any, Any]:
    """The parts of a state, with None for what there is not."""
    first, second = (*arrays, None, None)[:2]
    return first, second


# --- All steps in a launch ----------------------------------------------------------------------


def _hold(layer: DeviceLayer, tile: Cut, name: str, arguments: list[int]) -> None:
    passes, library = layer.passes, layer.place.library
    if not passes.groups:
        return
    kernel = layer.launcher.kernel(source_of_tile(tile), name, layer.place.device)
    stream = library.stream(layer.place.device)
    shared_bytes, exchange = tile.forward_bytes, None
    more = []
    if name == "backward":
        shared_bytes = tile.backward_bytes(passes.blocks)
        if tile.exchange == "Grid":
            exchange = layer.empty(passes.groups_at_once * tile.exchange_values(passes.blocks))
        more = [layer.pointer(exchange)]
    grid = tile.exchange == "Grid"
    counters = library.zero_counters(passes.groups, layer.x) if grid else None
    for first in range(0, passes.groups, passes.groups_at_once):
        groups = min(passes.groups_at_once, passes.groups - first)
        launch = Launch(
            groups * passes.blocks,
            THREADS,
            passes.blocks if tile.exchange == "Cluster" else 1,
            grid,
            shared_bytes,
        )
        where = [passes.blocks, first, layer.pointer(counters), *more]
        kernel.launch(launch, [*arguments, *where], stream)


# --- Step by step -------------------------------------------------------------------------------


def _step_forward(layer: DeviceLayer, y: Any, arguments: list[int]) -> None:
    launch = _stepper(layer, "one_forward")
    w_hh = layer.params.w_hh.T
    for t in range(layer.steps):
        before = layer.state[0] if t == 0 else layer.of_step(y, t - 1)
        recurrent = before[: layer.active(t)] @ w_hh
        launch(layer.active(t), [*arguments, t, layer.pointer(recurrent)])


def _step_backward(layer: DeviceLayer, delta: Any, arguments: list[int]) -> None:
    launch = _stepper(layer, "one_backward")
    carry = layer.empty(layer.batch, layer.hidden)
    for t in range(layer.steps - 1, -2, -1):
        recurrent = None
        if t + 1 < layer.steps:
            recurrent = _from_sums(layer, layer.of_step(delta, t + 1))
        rows = layer.batch if t < 0 else layer.active(t)
        launch(rows, [*arguments, t, *layer.pointers(recurrent, carry)])


def _from_sums(layer: DeviceLayer, delta: Any) -> Any:
    """W_hhᵀ of the deltas (rows, sums, H) of W_s S."""
    w_hh, hidden = layer.params.w_hh, layer.hidden
    total = None
    for planes, gates in _recurrent_planes(layer.cell):
        part = _units(delta, planes) @ w_hh[gates.start * hidden : gates.stop * hidden]
        total = part if total is None else total + part
    return total


def _stepper(layer: DeviceLayer, name: str) -> Callable[[int, list[int]], None]:
    """Launches a kernel of a step over the units of some rows."""
    source = source_of_steps(layer.cell.name, layer.params.dtype.itemsize)
    kernel = layer.launcher.kernel(source, name, layer.place.device)
    stream = layer.place.library.stream(layer.place.device)
    most = 8 * layer.chip.multiprocessors  # a thread may have several units

    def launch(rows: int, arguments: list[int]) -> None:
        blocks = min(most, -(-rows * layer.hidden // THREADS))
        if blocks:
            kernel.launch(Launch(blocks, THREADS), arguments, stream)

    return launch


# --- What is left to products over all steps ----------------------------------------------------


def _products(
    layer: DeviceLayer, y: Any, delta: Any, dstate: tuple[Any, ...], wanted: Collection[str]
) -> Gradients:
    cell, params, library = layer.cell, layer.params, layer.place.library
    of_inputs = _units(delta, slice(0, cell.gates))  # the first planes are those of W_x x
    found: Gradients = {"state": dstate} if "state" in wanted else {}
    if "x" in wanted:
        found["x"] = of_inputs @ params.w_ih
    if "w_ih" in wanted:
        found["w_ih"] = of_inputs.T @ layer.x
    if "b_ih" in wanted and params.b_ih is not None:
        found["b_ih"] = library.sum(of_inputs, 0)
    if "w_hh" in wanted:
        found["w_hh"] = _recurrent_gradient(layer, y, delta)
    if "b_hh" in wanted and params.b_hh is not None:
        parts = [library.sum(_units(delta, planes), 0) for planes, _ in _recurrent_planes(cell)]
        found["b_hh"] = library.concatenate(parts)
    return found


def _recurrent_gradient(layer: DeviceLayer, y: Any, delta: Any) -> Any:
    """sum_t da_t S_{t-1}ᵀ, (G H, H)."""
    library, first = layer.place.library, layer.active(0)
    later = layer.rows - first
    previous = y[:later] if layer.before is None else library.take(y, layer.before)
    parts = []
    for planes, _ in _recurrent_planes(layer.cell):
        of_sums = _units(delta, planes)
        of_first = of_sums[:first].T @ layer.state[0][:first]
        parts.append(of_sums[first:].T @ previous + of_first)
    return parts[0] if len(parts) == 1 else library.concatenate(parts)


def _recurrent_planes(cell: Cell) -> list[tuple[slice, slice]]:
    """Planes of deltas that lie together and belong to W_s S, and the gates that they are of."""
    if not cell.apart:
        return [(slice(0, cell.gates), slice(0, cell.gates))]
    together = cell.gates - 1  # the last one's is behind those of W_x x
    return [
        (slice(0, together), slice(0, together)),
        (slice(cell.gates, cell.sums), slice(together, cell.gates)),
    ]


def _units(delta: Any, planes: slice) -> Any:
    """Some planes of (N, sums, H) as columns (N, planes * H), without a copy."""
    rows, sums, hidden = delta.shape
    return delta.reshape(rows, sums * hidden)[:, planes.start * hidden : planes.stop * hidden]


def _last_state(layer: DeviceLayer, history: tuple[Any, ...]) -> tuple[Any, ...]:
    library, first = layer.place.library, layer.active(0)
    if layer.steps == 0:
        return tuple(map(library.copy, layer.state))
    if layer.offsets is None:
        start = layer.first_row(layer.steps - 1)
        return tuple(library.copy(h[start:]) for h in history)
    return tuple(
        library.concatenate([library.take(h, layer.last), s[first:]])
        for h, s in zip(history, layer.state, strict=True)
    )
