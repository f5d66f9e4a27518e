"""The loops of the equations, one multiply-add at a time: the first rung of the ladder.

Compiled by Numba for one thread, without leave to reorder sums. tanh, dense arrays; the same work
as every peer's.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np

from ..problem import Array, Outputs, Problem
from .contract import WEIGHTS, Peer, Workload, named

__all__ = ["NaiveLoops"]


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


def _backward(x: Array, s: Array, w_ih: Array, w_hh: Array, y: Array, dy: Array) -> Any:
    """dx, ds, dw_ih, dw_hh and db."""
    steps, batch, inputs = x.shape
    hidden = w_hh.shape[0]
    dx, ds = np.zeros_like(x), np.empty_like(s)
    dw_ih, dw_hh, db = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros(hidden, x.dtype)
    da = np.zeros(hidden, x.dtype)
    for r in range(batch):
        back = np.zeros(hidden, x.dtype)
        for t in range(steps - 1, -1, -1):
            before = s if t == 0 else y[t - 1]
            for h in range(hidden):
                da[h] = (dy[t, r, h] + back[h]) * (1 - y[t, r, h] * y[t, r, h])
                db[h] += da[h]
            back[:] = 0
            for h in range(hidden):
                for i in range(inputs):
                    dx[t, r, i] += w_ih[h, i] * da[h]
                    dw_ih[h, i] += da[h] * x[t, r, i]
                for k in range(hidden):
                    back[k] += w_hh[h, k] * da[h]
                    dw_hh[h, k] += da[h] * before[r, k]
        ds[r] = back
    return dx, ds, dw_ih, dw_hh, db


class NaiveLoops(Peer):
    """The loops above."""

    name = "naive loops, compiled by Numba"
    package = "numba"
    threads = 1
    cells = ("tanh",)

    def version(self) -> str:
        return f"numba {metadata.version('numba')}"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        import numba

        forward, backward = numba.njit(_forward), numba.njit(_backward)
        w_ih, w_hh, b_ih, b_hh = (getattr(problem.params, name) for name in WEIGHTS)
        x, (state,), dy, b = problem.x, problem.state, problem.dy, b_ih + b_hh

        def call() -> Outputs:
            y = np.empty_like(dy)
            forward(x, state, w_ih, w_hh, b, y)
            dx, ds, dw_ih, dw_hh, db = backward(x, state, w_ih, w_hh, y, dy)
            return named(y, dx, [ds], [dw_ih, dw_hh, db, db])

        return Workload(call, outputs=lambda outputs: outputs)
