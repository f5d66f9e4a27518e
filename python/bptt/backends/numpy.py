"""The reference: BPTT as a textbook writes it, in NumPy, for any float dtype.

Read it beside ``docs/math.md``. The steps of the cells are in `numpy_cells`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..holdings import Beside
from ..losses import Objective
from ..outputs import deliver
from ..params import Params
from ..states import as_given
from .in_segments import value_and_grad_in_segments
from .numpy_cells import STEPS, step_of
from .one_step import as_one_step
from .plain_readout import read_out, readout_gradient
from .protocol import ALL, Incoming, Layer, Record, Request, State, Steps, Trace

__all__ = ["NumpyBackend"]


@dataclass(frozen=True)
class NumpyBackend:
    """The reference implementation."""

    name: str = "numpy"
    error: type[Exception] = RuntimeError

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
        cell, params, x, state = layer.cell, layer.params, layer.x, layer.state
        record = Record.empty(layer, ()) if out is None else out
        history = record.history
        saved = []
        for t in range(len(x)):
            state, saved_t = _step(cell, params, x[t], state)
            for states, s in zip(history, state, strict=True):
                states[t] = s
            if save == "gates":
                saved.append(saved_t)
        for target, s in zip(record.state, state, strict=True):
            np.copyto(target, s)
        return replace(record, saved=tuple(map(np.stack, zip(*saved, strict=True))))

    def backward(self, layer: Layer, record: Record, incoming: Incoming, request: Request) -> Grads:
        cell, params, x, state = layer.cell, layer.params, layer.x, layer.state
        _, step = step_of(cell)
        d_w_ih, d_w_hh = np.zeros_like(params.w_ih), np.zeros_like(params.w_hh)
        d_b_ih, d_b_hh = np.zeros_like(params.w_hh[:, 0]), np.zeros_like(params.w_hh[:, 0])
        dx = np.empty_like(x)
        ds = tuple(map(np.zeros_like, state)) if incoming.state is None else incoming.state
        for t in reversed(range(len(x))):
            ds = tuple(
                s if d is None else s + d[t] for s, d in zip(ds, incoming.history, strict=True)
            )
            previous = tuple(s[t - 1] for s in record.history) if t > 0 else state
            saved = tuple(saved[t] for saved in record.saved)
            if not saved:
                _, saved = _step(cell, params, x[t], previous)
            dg_i, dg_h, direct = step(saved, ds)
            if request.trace is not None:
                _write_trace(cell, request.trace, t, ds, dg_i, dg_h)
            d_w_ih += dg_i.T @ x[t]  # dS_t/dW_x
            d_w_hh += dg_h.T @ previous[0]  # dS_t/dW_s
            d_b_ih += dg_i.sum(axis=0)
            d_b_hh += dg_h.sum(axis=0)
            dx[t] = dg_i @ params.w_ih
            ds = direct  # and what passes W_s: times dS_t/dS_{t-1}
            if request.route == "whole":
                ds = (dg_h @ params.w_hh + direct[0], *direct[1:])
        fresh = Grads(
            x=dx,
            state=as_given(tuple(s.copy() for s in ds)),
            w_ih=d_w_ih,
            w_hh=d_w_hh,
            b_ih=None if params.b_ih is None else d_b_ih,
            b_hh=None if params.b_hh is None else d_b_hh,
        )
        return deliver(fresh, request.out, request.accumulate, request.wanted)

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

    def value_and_grad(
        self, layer: Layer, objective: Objective, request: Request, last: State | None = None
    ) -> tuple[float, Grads]:
        if request.segment_steps:
            return value_and_grad_in_segments(self, layer, objective, request, last)
        params, x = layer.params, layer.x
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
        grads = self.backward(layer, record, Incoming((dy, *nothing)), ALL)
        dx[: len(x)] = grads.x
        grads.x = dx
        grads.w_ho, grads.b_o = readout["w_ho"], readout.get("b_o")  # no product of Jacobians
        return loss, deliver(grads, request.out, request.accumulate)


def _step(cell: Cell, params: Params, x_t: Array, state: State) -> tuple[State, tuple[Array, ...]]:
    """The next state, and what the adjoint of this step needs."""
    g_i = _affine(x_t, params.w_ih, params.b_ih)
    g_h = _affine(state[0], params.w_hh, params.b_hh)
    return step_of(cell)[0](g_i, g_h, state)


def _write_trace(cell: Cell, trace: Trace, t: int, dstate: State, dg_i: Array, dg_h: Array) -> None:
    for part, ds in zip(trace.dstates, dstate, strict=True):
        part[t] = ds
    if trace.deltas is None:
        return
    gates = zip(np.split(dg_i, cell.gates, -1), np.split(dg_h, cell.gates, -1), strict=True)
    for gate, (da_i, da_h) in enumerate(gates):
        trace.deltas[gate, t] = da_i
        trace.deltas[cell.recurrent_sums[gate], t] = da_h


def _affine(rows: Array, weights: Array, bias: Array | None) -> Array:
    """rows @ weights.T + bias."""
    product: Array = rows @ weights.T
    return product if bias is None else product + bias
