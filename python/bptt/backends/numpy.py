"""The reference: BPTT as a textbook writes it, in NumPy, for any float dtype.

Read it beside ``docs/math.md``. The steps of the cells are in `numpy_cells`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..budget import WHOLE, Budget
from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..holdings import Beside
from ..losses import Objective
from ..outputs import deliver
from ..params import Params
from ..states import as_given
from .by_rows import backward_by_rows, value_and_grad_by_rows
from .in_segments import kept_by_parts, kept_in_segments, value_and_grad_in_segments
from .numpy_cells import STEPS, step_of
from .one_step import as_one_step
from .parts import PlainParts, every_step
from .plain_readout import read_out, readout_gradient
from .protocol import Incoming, Layer, Parts, Record, Request, Sizes, State, Steps, Trace

__all__ = ["NumpyBackend"]


@dataclass(frozen=True)
class NumpyBackend:
    """The reference implementation."""

    name: str = "numpy"
    error: type[Exception] = RuntimeError
    packed: bool = True
    places: bool = False
    one_saved: bool = False

    def missing(self) -> str | None:
        return None

    def description(self) -> str:
        return f"the reference, NumPy {np.__version__}, any float dtype"

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        return cell.step is not None or cell.name in STEPS

    def beside(self, cell: Cell, save: str) -> Beside:
        kept = 0 if save == "minimal" else 1 if cell.gates == 1 else cell.gates + 2
        forward = max(2 * kept - cell.saved, 0)  # twice while stacking
        return Beside(forward, fused=forward + 1, outputs=4, fresh=True)  # 1: of dy

    def forward(self, layer: Layer, save: str, out: Record | None = None) -> Record:
        cell, params, x = layer.cell, layer.params, layer.x
        record = Record.empty(layer, ()) if out is None else out
        history, last = record.history, record.state
        for s, initial in zip(last, layer.state, strict=True):
            np.copyto(s, initial)
        saved = []
        for t in range(layer.steps):
            rows = layer.at(t)
            state, saved_t = _step(cell, params, x[rows], _before(layer, history, t))
            for states, of_row, s in zip(history, last, state, strict=True):
                states[rows] = of_row[: len(s)] = s
            if save == "gates":
                saved.append(saved_t)
        join = np.stack if layer.offsets is None else np.concatenate
        return replace(record, saved=tuple(map(join, zip(*saved, strict=True))))

    def backward(self, layer: Layer, record: Record, incoming: Incoming, request: Request) -> Grads:
        if request.per_row is not None:
            return backward_by_rows(self, layer, record, incoming, request)
        cell, params, x, state = layer.cell, layer.params, layer.x, layer.state
        wanted = request.wanted
        _, step = step_of(cell)
        d_w_ih, d_w_hh = np.zeros_like(params.w_ih), np.zeros_like(params.w_hh)
        d_b_ih, d_b_hh = np.zeros_like(params.w_hh[:, 0]), np.zeros_like(params.w_hh[:, 0])
        dx = np.empty_like(x)
        # Of each row the gradient that comes from behind: at first that of its last state.
        given = incoming.state or (None,) * len(state)
        ds = tuple(np.zeros_like(s) if d is None else d for s, d in zip(state, given, strict=True))
        for t in reversed(range(layer.steps)):
            rows, active = layer.at(t), layer.active(t)
            ds = tuple(
                s if d is None else _with_first(s, s[:active] + d[rows])
                for s, d in zip(ds, incoming.history, strict=True)
            )
            of_step = tuple(s[:active] for s in ds)
            previous = _before(layer, record.history, t)
            saved = tuple(saved[rows] for saved in record.saved)
            if not saved:
                _, saved = _step(cell, params, x[rows], previous)
            dg_i, dg_h, direct = step(saved, of_step)
            if request.trace is not None:
                _write_trace(cell, request.trace, rows, of_step, dg_i, dg_h)
            if "w_ih" in wanted:
                d_w_ih += dg_i.T @ x[rows]  # dS_t/dW_x
            if "w_hh" in wanted:
                d_w_hh += dg_h.T @ previous[0]  # dS_t/dW_s
            d_b_ih += dg_i.sum(axis=0)
            d_b_hh += dg_h.sum(axis=0)
            if "x" in wanted:
                dx[rows] = dg_i @ params.w_ih
            of_step = direct  # and what passes W_s: times dS_t/dS_{t-1}
            if request.route == "whole":
                of_step = (dg_h @ params.w_hh + direct[0], *direct[1:])
            ds = tuple(map(_with_first, ds, of_step))
        fresh = Grads(
            x=dx,
            state=as_given(tuple(s.copy() for s in ds)),
            w_ih=d_w_ih,
            w_hh=d_w_hh,
            b_ih=None if params.b_ih is None else d_b_ih,
            b_hh=None if params.b_hh is None else d_b_hh,
        )
        return deliver(fresh, request.out, request.accumulate, wanted)

    def backward_steps(self, steps: Steps, dstates: State, request: Request) -> None:
        saved = tuple(s.reshape(1, -1, *s.shape[2:]) for s in steps.saved)
        self.backward(*as_one_step(steps, saved, dstates, request))

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        return tuple(s[steps] for s in saved)

    def stepping(self, layer: Layer) -> None:
        """`forward` does them."""

    def lag_products(self, *arguments: Any) -> None:
        """There is no kernel for them; `bptt.lags` computes them term by term."""

    def read_out(self, params: Params, y: Array) -> Array:
        return read_out(params, y)

    def readout_gradient(
        self, layer: Layer, y: Array, objective: Objective
    ) -> tuple[float, Array, dict[str, Array]]:
        return readout_gradient(layer.params, y, objective)

    def kept_nbytes(self, sizes: Sizes, budget: Budget) -> int:
        return kept_in_segments(sizes, self.beside(sizes.cell, "gates"), budget)

    def segment_grain(self, sizes: Sizes) -> int:
        return 1

    def part_borders(self, sizes: Sizes, per_row: str | None) -> Array:
        return every_step(sizes)

    def parts_nbytes(
        self, sizes: Sizes, most_rows: int, most_steps: int, per_row: str | None
    ) -> tuple[int, int]:
        return kept_by_parts(sizes, self.beside(sizes.cell, "gates"), most_rows, per_row)

    def parts(self, sizes: Sizes, most_rows: int, request: Request) -> Parts:
        return PlainParts(self, request)

    def value_and_grad(
        self, layer: Layer, objective: Objective, request: Request, last: State | None = None
    ) -> tuple[float, Grads]:
        if request.per_row is not None:
            return value_and_grad_by_rows(self, layer, objective, request, last)
        if request.budget != WHOLE:
            return value_and_grad_in_segments(self, layer, objective, request, last)
        params, x, wanted = layer.params, layer.x, request.wanted
        assert params.w_ho is not None
        dx = np.zeros_like(x)
        if objective.step is not None:
            x = x[: objective.step + 1]  # the sum runs over the steps up to the loss
            layer = replace(layer, x=x)
        record = self.forward(layer, "gates")
        for target, s in zip(last or (), record.state, strict=False):
            np.copyto(target, s)
        loss, dy_of_loss, readout = readout_gradient(params, record.y, objective)
        dy = np.zeros_like(record.y)
        dy[slice(None) if objective.step is None else objective.step] = dy_of_loss
        nothing = (None,) * (len(layer.state) - 1)
        through_time = Request(wanted=wanted - {"w_ho", "b_o"})
        grads = self.backward(layer, record, Incoming((dy, *nothing)), through_time)
        if "x" in wanted:
            dx[: len(x)] = grads.x
            grads.x = dx
        grads.w_ho, grads.b_o = readout["w_ho"], readout.get("b_o")  # no product of Jacobians
        return loss, deliver(grads, request.out, request.accumulate, wanted)


def _step(cell: Cell, params: Params, x_t: Array, state: State) -> tuple[State, tuple[Array, ...]]:
    """The next state, and what the adjoint of this step needs."""
    g_i = _affine(x_t, params.w_ih, params.b_ih)
    g_h = _affine(state[0], params.w_hh, params.b_hh)
    return step_of(cell)[0](g_i, g_h, state)


def _before(layer: Layer, history: tuple[Array, ...], t: int) -> State:
    """The state before step t of the rows that it has."""
    before = layer.state if t == 0 else tuple(s[layer.at(t - 1)] for s in history)
    return tuple(s[: layer.active(t)] for s in before)


def _with_first(rows: Array, first: Array) -> Array:
    """`rows` with others in place of the first ones."""
    return first if len(first) == len(rows) else np.concatenate([first, rows[len(first) :]])


def _write_trace(
    cell: Cell, trace: Trace, rows: int | slice, dstate: State, dg_i: Array, dg_h: Array
) -> None:
    for part, ds in zip(trace.dstates, dstate, strict=True):
        part[rows] = ds
    if trace.deltas is None:
        return
    gates = zip(np.split(dg_i, cell.gates, -1), np.split(dg_h, cell.gates, -1), strict=True)
    for gate, (da_i, da_h) in enumerate(gates):
        trace.deltas[gate, rows] = da_i
        trace.deltas[cell.recurrent_sums[gate], rows] = da_h


def _affine(rows: Array, weights: Array, bias: Array | None) -> Array:
    """rows @ weights.T + bias."""
    product: Array = rows @ weights.T
    return product if bias is None else product + bias
