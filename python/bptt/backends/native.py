"""The compiled backend: a thin call into ``bptt._core``, which never sees Python objects."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..losses import Objective
from ..params import Params
from ..states import as_given, as_tuple
from ..subnormals import get_flush_subnormals
from ..threads import get_num_threads
from .protocol import Forward, State, Trace


def _load() -> tuple[Any, str | None]:
    """The compiled module, or None and why there is none."""
    try:
        return importlib.import_module("bptt._core"), None
    except Exception as error:  # an undefined symbol, another libstdc++, another Python
        if isinstance(error, ModuleNotFoundError) and error.name == "bptt._core":
            return None, _why_not_found(Path(__file__).parents[1])
        return None, f"its compiled module cannot be loaded: {error}"


def _why_not_found(package: Path) -> str:
    others = [
        file.name
        for file in sorted(package.glob("_core.*"))
        if file.suffix in (".so", ".pyd")
        and file.name.removeprefix("_core") not in EXTENSION_SUFFIXES
    ]
    if others:
        return f"its compiled module is for another Python ({', '.join(others)}); install it again"
    return "built without a C++ compiler (pip install with g++ to enable)"


_core, _why_missing = _load()

__all__ = ["NativeBackend"]


@dataclass(frozen=True)
class NativeBackend:
    """C++ kernels, one instantiation per instruction set, chosen at run time."""

    name: str = "native"
    error: type[Exception] = RuntimeError

    def missing(self) -> str | None:
        if _core is not None:
            _core.isa()  # raises ValueError if BPTT_ISA names none that can be had
        return _why_missing

    def description(self) -> str:
        return f"compiled kernels for {_core.isa()}, {_core.compiler()}"

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        return _core is not None and cell.name in _core.CELLS and dtype.char in "fd"

    def forward(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        save: str,
        out: Forward | None = None,
    ) -> Forward:
        if out is None:
            out = _empty_record(cell, params, x, state, save)
        _core.forward(
            cell.name,
            get_num_threads(),
            get_flush_subnormals(),
            x,
            state,
            params.w_ih,
            params.w_hh,
            params.b_ih,
            params.b_hh,
            out.history,
            out.state,
            out.saved[0] if out.saved else None,
        )
        return out

    def backward(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        forward: Forward,
        dhistory: tuple[Array | None, ...],
        dstate: State | None,
        out: Grads | None = None,
        accumulate: bool = False,
        *,
        wanted: str = "all",
        trace: Trace | None = None,
    ) -> Grads:
        grads = _empty_grads(params, x, state, wanted) if out is None else out
        weights = wanted != "state"
        _core.backward(
            cell.name,
            get_num_threads(),
            get_flush_subnormals(),
            x,
            state,
            params.w_ih,
            params.w_hh,
            params.b_ih,
            params.b_hh,
            forward.history,
            forward.saved[0] if forward.saved else None,
            dhistory,
            dstate,
            accumulate,
            grads.x if wanted == "all" else None,
            as_tuple(grads.state),
            grads.w_ih if weights else None,
            grads.w_hh if weights else None,
            grads.b_ih if weights else None,
            grads.b_hh if weights else None,
            None if trace is None else trace.deltas,
            None if trace is None else trace.dstates,
        )
        return grads

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        return tuple(s[steps] for s in saved)

    def as_rows(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        return tuple(s[steps].reshape(1, -1, *s.shape[2:]) for s in saved)

    def lag_products(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        y: Array,
        deltas: Array,
        totals: dict[str, Array],
        lags: Array,
    ) -> tuple[Array, dict[str, Array]] | None:
        names = ("w_ih", "w_hh", "b_ih", "b_hh")
        sums = {name: np.empty_like(total) for name, total in totals.items()}
        found: Array = _core.lag_products(
            cell.name,
            get_num_threads(),
            get_flush_subnormals(),
            x,
            state,
            params.w_ih,
            params.w_hh,
            y,
            deltas,
            tuple(totals.get(name) for name in names),
            tuple(sums.get(name) for name in names),
            lags,
        )
        return found[:, [name in totals for name in names]], sums

    def value_and_grad(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        objective: Objective,
        out: Grads | None = None,
        accumulate: bool = False,
        last: State | None = None,
    ) -> tuple[float, Grads]:
        assert params.w_ho is not None
        grads = out
        if grads is None:
            grads = _empty_grads(params, x, state)
            grads.w_ho = np.empty_like(params.w_ho)
            grads.b_o = None if params.b_o is None else np.empty_like(params.b_o)
        loss: float = _core.value_and_grad(
            cell.name,
            get_num_threads(),
            get_flush_subnormals(),
            x,
            state,
            params.w_ih,
            params.w_hh,
            params.b_ih,
            params.b_hh,
            params.w_ho,
            params.b_o,
            objective.loss,
            objective.target,
            objective.step,
            objective.weights,
            objective.scale,
            accumulate,
            last,
            grads.x,
            as_tuple(grads.state),
            grads.w_ih,
            grads.w_hh,
            grads.b_ih,
            grads.b_hh,
            grads.w_ho,
            grads.b_o,
        )
        return loss, grads


def _empty_record(cell: Cell, params: Params, x: Array, state: State, save: str) -> Forward:
    """Unwritten states of every step and after the last, and gates if they are to be saved."""
    steps, batch, _ = x.shape
    hidden = params.hidden_size
    history = tuple(np.empty((steps, batch, hidden), x.dtype) for _ in state)
    gates: int = _core.CELLS[cell.name]["saved"] if save == "gates" else 0
    saved = (np.empty((steps, batch, gates, hidden), x.dtype),) if gates else ()
    return Forward(history, tuple(map(np.empty_like, state)), saved)


def _empty_grads(params: Params, x: Array, state: State, wanted: str = "all") -> Grads:
    """Unwritten gradients of everything but the readout; of no size where they are not wanted."""

    def like(array: Array, is_wanted: bool) -> Array:
        return np.empty_like(array) if is_wanted else np.empty(0, x.dtype)

    weights = wanted != "state"
    return Grads(
        x=like(x, wanted == "all"),
        state=as_given(tuple(map(np.empty_like, state))),
        w_ih=like(params.w_ih, weights),
        w_hh=like(params.w_hh, weights),
        b_ih=None if params.b_ih is None else like(params.b_ih, weights),
        b_hh=None if params.b_hh is None else like(params.b_hh, weights),
    )
