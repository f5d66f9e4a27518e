"""The reference: BPTT as a textbook writes it, in NumPy, for any float dtype.

Read it beside ``docs/math.md``. One step of a cell is written in terms of the two affine maps

    g_i = W_x x_t + b_ih        g_h = W_s S_{t-1} + b_hh

which every cell has (an Elman cell adds them, a GRU gates the second alone). Its adjoint returns
the gradients of both maps and of the part of S_{t-1} that does not pass through them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..losses import Objective
from ..outputs import deliver
from ..params import Params
from .protocol import Forward, State

__all__ = ["NumpyBackend"]

# (g_i, g_h, state) -> (new state, saved for the adjoint)
StepForward = Callable[[Array, Array, State], tuple[State, tuple[Array, ...]]]
# (saved, dstate) -> (dg_i, dg_h, direct part of the previous state's gradient)
StepBackward = Callable[[tuple[Array, ...], State], tuple[Array, Array, State]]


def _elman(
    activation: Callable[[Array], Array], chain: Callable[[Array, Array], Array]
) -> tuple[StepForward, StepBackward]:
    """S_t = f(g_i + g_h); ``chain(dS, S)`` is f'(a) * dS, written in S = f(a)."""

    def forward(g_i: Array, g_h: Array, state: State) -> tuple[State, tuple[Array, ...]]:
        s = activation(g_i + g_h)
        return (s,), (s,)

    def backward(saved: tuple[Array, ...], dstate: State) -> tuple[Array, Array, State]:
        da = chain(dstate[0], saved[0])
        return da, da, (np.zeros_like(da),)

    return forward, backward


STEPS: dict[str, tuple[StepForward, StepBackward]] = {
    "linear": _elman(lambda a: a, lambda ds, s: ds),
    "tanh": _elman(np.tanh, lambda ds, s: ds * (1 - s * s)),
    "relu": _elman(lambda a: np.maximum(a, 0), lambda ds, s: np.where(s <= 0, 0, ds)),
}


def _squared_error(o: Array, target: Array) -> tuple[Array, Array]:
    """l = 1/2 sum_o (Y - O)^2 for each row, and dl/dO."""
    difference = o - target
    return (difference * difference).sum(axis=-1) / 2, difference


def _cross_entropy(o: Array, ids: Array) -> tuple[Array, Array]:
    """l = -log softmax(O)[id] for each row, and dl/dO = softmax(O) - onehot(id)."""
    shifted = o - o.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=-1, keepdims=True)
    at_id = np.take_along_axis(shifted, ids[..., None], axis=-1)
    gradient = exponentials / total
    picked = np.take_along_axis(gradient, ids[..., None], axis=-1)
    np.put_along_axis(gradient, ids[..., None], picked - 1, axis=-1)
    return (np.log(total) - at_id)[..., 0], gradient


LOSS_FUNCTIONS = {"squared_error": _squared_error, "cross_entropy": _cross_entropy}


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
        return cell.name in STEPS

    def forward(
        self, cell: Cell, params: Params, x: Array, state: State, out: Forward | None = None
    ) -> Forward:
        step, _ = STEPS[cell.name]
        y = np.empty((*x.shape[:2], params.hidden_size), x.dtype) if out is None else out.y
        checks.require_memory(3 * y.nbytes, f"keeping {len(x)} steps")  # twice while stacking
        saved = []
        for t in range(len(x)):
            g_i = _affine(x[t], params.w_ih, params.b_ih)
            g_h = _affine(state[0], params.w_hh, params.b_hh)
            state, saved_t = step(g_i, g_h, state)
            y[t] = state[0]
            saved.append(saved_t)
        last = tuple(map(np.empty_like, state)) if out is None else out.state
        for target, s in zip(last, state, strict=True):
            np.copyto(target, s)
        return Forward(y, last, tuple(map(np.stack, zip(*saved, strict=True))))

    def backward(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        forward: Forward,
        dy: Array | None,
        dstate: State | None,
        out: Grads | None = None,
        accumulate: bool = False,
    ) -> Grads:
        _, step = STEPS[cell.name]
        d_w_ih, d_w_hh = np.zeros_like(params.w_ih), np.zeros_like(params.w_hh)
        d_b_ih, d_b_hh = np.zeros_like(params.w_hh[:, 0]), np.zeros_like(params.w_hh[:, 0])
        checks.require_memory(x.nbytes, "the gradient of x")
        dx = np.empty_like(x)
        ds = tuple(np.zeros_like(s) for s in state) if dstate is None else dstate
        for t in reversed(range(len(x))):
            if dy is not None:
                ds = (ds[0] + dy[t], *ds[1:])
            s_previous = forward.y[t - 1] if t > 0 else state[0]
            dg_i, dg_h, direct = step(tuple(saved[t] for saved in forward.saved), ds)
            d_w_ih += dg_i.T @ x[t]  # dS_t/dW_x
            d_w_hh += dg_h.T @ s_previous  # dS_t/dW_s
            d_b_ih += dg_i.sum(axis=0)
            d_b_hh += dg_h.sum(axis=0)
            dx[t] = dg_i @ params.w_ih
            ds = (dg_h @ params.w_hh + direct[0], *direct[1:])  # times dS_t/dS_{t-1}
        fresh = Grads(
            x=dx,
            state=ds[0].copy(),
            w_ih=d_w_ih,
            w_hh=d_w_hh,
            b_ih=None if params.b_ih is None else d_b_ih,
            b_hh=None if params.b_hh is None else d_b_hh,
        )
        return deliver(fresh, out, accumulate)

    def value_and_grad(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: State,
        objective: Objective,
        out: Grads | None = None,
        accumulate: bool = False,
    ) -> tuple[float, Grads]:
        assert params.w_ho is not None
        dx = np.zeros_like(x)
        if objective.step is not None:
            x = x[: objective.step + 1]  # the sum runs over the steps up to the loss
        forward = self.forward(cell, params, x, state)
        steps = slice(None) if objective.step is None else objective.step
        y = forward.y[steps]
        outputs = y[..., 0].size * params.w_ho.shape[0]
        checks.require_memory(4 * outputs * x.itemsize, f"{outputs} outputs of the readout")
        o = _affine(y, params.w_ho, params.b_o)
        terms, do = LOSS_FUNCTIONS[objective.loss](o, objective.target)
        scale = x.dtype.type(objective.scale)
        if objective.weights is not None:
            terms, do = terms * objective.weights, do * objective.weights[..., None]
        do = do * scale
        dy = np.zeros_like(forward.y)
        dy[steps] = do @ params.w_ho
        grads = self.backward(cell, params, x, state, forward, dy, None)
        dx[: len(x)] = grads.x
        grads.x = dx
        rows = tuple(range(do.ndim - 1))
        grads.w_ho = np.tensordot(do, y, axes=(rows, rows))  # no product of Jacobians
        grads.b_o = None if params.b_o is None else do.sum(axis=rows)
        wide = np.promote_types(x.dtype, np.float64)
        loss: float = terms.sum(dtype=wide) * objective.scale
        return loss, deliver(grads, out, accumulate)


def _affine(rows: Array, weights: Array, bias: Array | None) -> Array:
    """rows @ weights.T + bias."""
    product: Array = rows @ weights.T
    return product if bias is None else product + bias
