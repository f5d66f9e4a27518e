"""The compiled backend: a thin call into ``bptt._core``, which never sees Python objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..budget import WHOLE, Budget
from ..cells import Cell
from ..checks import Array
from ..compiled import core as _core
from ..compiled import why_missing as _why_missing
from ..grads import EVERYTHING, Grads, some_of
from ..holdings import Beside
from ..losses import Objective
from ..params import Params
from ..states import as_given
from ..subnormals import get_flush_subnormals
from ..threads import get_num_threads
from ..wanted import rows_like
from . import aligned
from .native_parts import NativeParts, held_between_calls
from .one_step import as_one_step
from .protocol import Incoming, Layer, Parts, Record, Request, Sizes, State, Stepping, Steps

__all__ = ["NativeBackend"]


@dataclass(frozen=True)
class NativeBackend:
    """C++ kernels, one instantiation per instruction set, chosen at run time."""

    name: str = "native"
    error: type[Exception] = RuntimeError
    packed: bool = True
    places: bool = True
    one_saved: bool = True

    def missing(self) -> str | None:
        if _core is not None:
            _core.isa()  # raises ValueError if BPTT_ISA names none that can be had
        return _why_missing

    def description(self) -> str:
        return f"compiled kernels for {_core.isa()}, {_core.compiler()}"

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        return _core is not None and cell.name in _core.CELLS and dtype.char in "fd"

    def beside(self, cell: Cell, save: str) -> Beside:
        return Beside()

    def forward(self, layer: Layer, save: str, out: Record | None = None) -> Record:
        if out is None:
            out = _empty_record(layer, save)
        if (out.shown is None) != (layer.places is None):
            out = replace(out, shown=_shown(layer))
        _core.forward(get_num_threads(), get_flush_subnormals(), layer, out)
        return out

    def stepping(self, layer: Layer) -> Stepping:
        return _NativeSteps(layer)

    def backward(self, layer: Layer, record: Record, incoming: Incoming, request: Request) -> Grads:
        grads = _written(layer, request, readout=False)
        threads, flush = get_num_threads(), get_flush_subnormals()
        _core.backward(threads, flush, layer, record, incoming, request, grads)
        return grads if request.out is None else request.out

    def backward_steps(self, steps: Steps, dstates: State, request: Request) -> None:
        saved = tuple(s.reshape(1, -1, *s.shape[2:]) for s in steps.saved)
        self.backward(*as_one_step(steps, saved, dstates, request))

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        return tuple(s[steps] for s in saved)

    def lag_products(
        self, layer: Layer, y: Array, deltas: Array, totals: dict[str, Array], lags: Array
    ) -> tuple[Array, dict[str, Array]] | None:
        names = ("w_ih", "w_hh", "b_ih", "b_hh")
        sums = {name: np.empty_like(total) for name, total in totals.items()}
        found: Array = _core.lag_products(
            get_num_threads(),
            get_flush_subnormals(),
            layer,
            y,
            deltas,
            tuple(totals.get(name) for name in names),
            tuple(sums.get(name) for name in names),
            lags,
        )
        return found[:, [name in totals for name in names]], sums

    def read_out(self, params: Params, y: Array) -> Array:
        assert params.w_ho is not None
        rows = y.reshape(-1, y.shape[-1])
        o = np.empty((len(rows), len(params.w_ho)), y.dtype)
        _core.read_out(get_num_threads(), get_flush_subnormals(), params, rows, o)
        return o.reshape(*y.shape[:-1], o.shape[1])

    def readout_gradient(
        self, layer: Layer, y: Array, objective: Objective
    ) -> tuple[float, Array, dict[str, Array]]:
        readout = {n: w for n, w in layer.params.arrays().items() if n in ("w_ho", "b_o")}
        found = {name: np.empty_like(w) for name, w in readout.items()}
        dy = np.empty_like(y if objective.step is None else y[objective.step])
        written = (dy, found["w_ho"], found.get("b_o"))
        threads, flush = get_num_threads(), get_flush_subnormals()
        loss: float = _core.readout_gradient(threads, flush, layer, y, objective, *written)
        return loss, dy, found

    def kept_nbytes(self, sizes: Sizes, budget: Budget) -> int:
        return int(_forecast(sizes, budget)["scratch_nbytes"])

    def segment_grain(self, sizes: Sizes) -> int:
        return int(_forecast(sizes, Budget(1))["block_steps"])

    def part_borders(self, sizes: Sizes, per_row: str | None) -> Array:
        found = _forecast(sizes, WHOLE, sizes.steps, rows_apart=per_row is not None)
        if sizes.offsets is not None:
            return np.array(found["begins"], np.int64)
        return np.append(np.arange(0, sizes.steps, found["sum_steps"]), sizes.steps)

    def parts_nbytes(
        self, sizes: Sizes, most_rows: int, most_steps: int, per_row: str | None
    ) -> tuple[int, int]:
        found = _forecast(sizes, WHOLE, most_steps, rows_apart=per_row is not None)
        summed = {None: found["slices"] - 1, "norm": sizes.batch, "gradient": 0}[per_row]
        held = held_between_calls(sizes, most_rows) + summed * sizes.params.nbytes
        return held, int(found["scratch_nbytes"])

    def parts(self, sizes: Sizes, most_rows: int, request: Request) -> Parts:
        return NativeParts(sizes, most_rows, request)

    def value_and_grad(
        self, layer: Layer, objective: Objective, request: Request, last: State | None = None
    ) -> tuple[float, Grads]:
        grads = _written(layer, request, readout=True)
        threads, flush = get_num_threads(), get_flush_subnormals()
        loss: float = _core.value_and_grad(threads, flush, layer, objective, request, grads, last)
        return loss, grads if request.out is None else request.out


class _NativeSteps:
    """Steps of kernels that own their memory."""

    def __init__(self, layer: Layer) -> None:
        self._stepper = _core.Stepper(get_flush_subnormals(), layer)
        self._run = self._stepper.run

    @property
    def nbytes(self) -> int:
        nbytes: int = self._stepper.nbytes
        return nbytes

    def try_run(self, x: object, out: object) -> Array | None:
        y: Array | None = self._run(get_num_threads(), x, out)
        return y

    def run(self, x: Array, y: Array) -> Array:
        written = self.try_run(x, y)
        assert written is not None
        return written

    def state(self) -> State:
        parts: State = self._stepper.state()
        return parts

    def assign(self, rows: Array, state: State | None) -> None:
        self._stepper.assign(rows, state)


def _forecast(
    sizes: Sizes, budget: Budget, part_steps: int = 0, *, rows_apart: bool = False
) -> dict[str, Any]:
    params = sizes.params
    outputs, dtype = params.output_size or 0, params.dtype.name
    arrays = (sizes.steps, sizes.batch, params.input_size, params.hidden_size, outputs, dtype)
    cut = (budget.segment_steps, budget.group_segments)
    found: dict[str, Any] = _core.forecast(
        sizes.cell.name,
        *arrays,
        get_num_threads(),
        *cut,
        sizes.offsets,
        part_steps,
        rows_apart,
        sizes.places,
    )
    return found


def _empty_record(layer: Layer, save: str) -> Record:
    """Unwritten states of every step and after the last, and gates if they are to be saved."""
    gates = layer.cell.saved if save == "gates" else 0
    if not gates:
        return Record.empty(layer, ())
    shape = (*layer.shape, gates, layer.params.hidden_size)
    return Record.empty(layer, (aligned.empty(shape, layer.x.dtype),))


def _shown(layer: Layer) -> Array | None:
    """Unwritten y for the caller's rows, where they are others."""
    if layer.places is None:
        return None
    return aligned.empty((*layer.x.shape[:-1], layer.params.hidden_size), layer.x.dtype)


def _written(layer: Layer, request: Request, *, readout: bool) -> Grads:
    """The arrays that the request asks for, and None for the rest: new ones or the caller's."""
    if request.out is not None:
        whole = request.wanted == EVERYTHING
        return request.out if whole else some_of(request.out, request.wanted)
    wanted, per_row, params = request.wanted, request.per_row, layer.params
    dtype = layer.x.dtype

    def new(name: str, like: Array | None) -> Any:
        if like is None or name not in wanted:
            return None
        if per_row is not None:
            like = rows_like(like, layer.batch, per_row)
        return aligned.empty(like.shape, dtype)

    of_state = [np.empty(s.shape, dtype) for s in layer.state] if "state" in wanted else None
    return Grads(
        x=aligned.empty(layer.x.shape, dtype) if "x" in wanted else None,  # type: ignore[arg-type]
        state=None if of_state is None else as_given(tuple(of_state)),
        w_ih=new("w_ih", params.w_ih),
        w_hh=new("w_hh", params.w_hh),
        b_ih=new("b_ih", params.b_ih),
        b_hh=new("b_hh", params.b_hh),
        w_ho=new("w_ho", params.w_ho) if readout else None,
        b_o=new("b_o", params.b_o) if readout else None,
    )
