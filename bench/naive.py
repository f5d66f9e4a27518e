"""The loops of the equations, one multiply-add at a time: the first rung of the ladder.

Compiled by Numba for one thread, without leave to reorder sums. tanh, dense arrays; the same work
as every peer's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import Array, Outputs, Problem

__all__ = ["compile_naive"]


def _forward(x: Array, s: Array, w_ih: Array, w_hh: Array, b: Array, y: Array) -> None:
    steps, batch, inputs = x.shape
    hidden = w_hh.shape[0]
    for t in range(steps):
        before = s if t == 0 else y[t - 1]
        for r in range(batch):
            for h in range(hidden):
                a = b[h]
                for i in range(inputs):
                    a += w_ih[h, i] * x[t, r, i]
                for k in range(hidden):
                    a += w_hh[h, k] * before[r, k]
                y[t, r, h] = np.tanh(a)


def _backward(
    x: Array,
    s: Array,
    w_ih: Array,
    w_hh: Array,
    y: Array,
    dy: Array,
    dx: Array,
    ds: Array,
    dw_ih: Array,
    dw_hh: Array,
    db: Array,
) -> None:
    steps, batch, inputs = x.shape
    hidden = w_hh.shape[0]
    da = np.zeros(hidden, x.dtype)
    for r in range(batch):
        back = np.zeros(hidden, x.dtype)
        for t in range(steps - 1, -1, -1):
            before = s if t == 0 else y[t - 1]
            for h in range(hidden):
                da[h] = (dy[t, r, h] + back[h]) * (1 - y[t, r, h] * y[t, r, h])
                db[h] += da[h]
            back[:] = 0
            dx[t, r] = 0
            for h in range(hidden):
                for i in range(inputs):
                    dx[t, r, i] += w_ih[h, i] * da[h]
                    dw_ih[h, i] += da[h] * x[t, r, i]
                for k in range(hidden):
                    back[k] += w_hh[h, k] * da[h]
                    dw_hh[h, k] += da[h] * before[r, k]
        ds[r] = back


def compile_naive(p: Problem) -> Any:
    """A function without arguments that computes the problem's outputs."""
    import numba

    forward, backward = numba.njit(_forward), numba.njit(_backward)
    w_ih, w_hh = p.params.w_ih, p.params.w_hh
    (state,) = p.state
    b = np.sum([b for b in (p.params.b_ih, p.params.b_hh) if b is not None], axis=0)

    def call() -> Outputs:
        y = np.empty_like(p.dy)
        forward(p.x, state, w_ih, w_hh, b, y)
        dx, ds = np.empty_like(p.x), np.empty_like(state)
        dw_ih, dw_hh, db = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros_like(b)
        backward(p.x, state, w_ih, w_hh, y, p.dy, dx, ds, dw_ih, dw_hh, db)
        return {
            "y": y,
            "x": dx,
            "state": ds,
            "w_ih": dw_ih,
            "w_hh": dw_hh,
            "b_ih": db,
            "b_hh": db,
        }

    return call
