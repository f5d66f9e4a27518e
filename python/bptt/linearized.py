"""`Linearized`: a forward pass to first order, the Jacobian of every step as products of vectors.

The step of a cell acts on each unit by itself, but for the products with the weights. So all of it
that depends on the data is one number for each unit, sum and part of the state,

    dS_t[p] = sum_q slopes[p, q] * da_q + sum_r direct[p, r] * dS_{t-1}[r]

with the sums a = W_x x_t + b_ih + W_s S_{t-1} + b_hh of the gates: da = W_s dS_{t-1}[0] + what
comes of x and the parameters. The cell's own backward pass yields these numbers, of all steps at
once: it returns them of a gradient of one in part p, along the direct route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import checks
from .backends.protocol import Request, State, Trace
from .cells import Cell
from .checks import Array
from .grads import grads_of, present
from .params import PARAM_NAMES, Params
from .recorded import Recorded
from .states import as_given

__all__ = ["Linearized", "linearize", "read_dparams", "sums_of_tangents"]


@dataclass(frozen=True, eq=False)
class Linearized:
    """The Jacobians of T steps, never formed: products with tangents and with gradients.

    A tangent or a gradient of a state is a tuple of arrays (..., B, H), one for each of the P parts
    of the state; each of what stands in front of B is one of its own.

    Attributes
    ----------
    cell : Cell
    w_hh : (G*H, H)
    slopes : (P, T, B, sums, H)
        The derivative of each part of the new state in each sum.
    direct : (P, P, T, B, H)
        That in each part of the state before, where it does not go through a sum.
    """

    cell: Cell
    w_hh: Array
    slopes: Array
    direct: Array

    @property
    def steps(self) -> int:
        """T"""
        return int(self.slopes.shape[1])

    def astype(self, dtype: np.dtype[Any] | type) -> Linearized:
        """The same numbers in another dtype."""
        cast = {n: getattr(self, n).astype(dtype) for n in ("w_hh", "slopes", "direct")}
        return replace(self, **cast)

    def push(self, t: int, dstate: State, dsums: Array | None = None) -> State:
        """J_t dS_{t-1}, the tangent after step t; `dsums` (..., B, sums, H) is added to da."""
        recurrent = self._by_gate(_times(dstate[0], self.w_hh.T))
        if dsums is None:
            slopes, da = self._recurrent_slopes(t), recurrent
        else:
            slopes, da = self.slopes[:, t], dsums.copy()
            da[..., self.cell.recurrent_sums, :] += recurrent
        return tuple(
            (slope * da).sum(axis=-2) + self._direct(t, part, dstate)
            for part, slope in enumerate(slopes)
        )

    def pull(self, t: int, dstate: State) -> State:
        """J_t^T dS_t, the gradient before step t."""
        slopes = self._recurrent_slopes(t)
        da = sum(slope * d[..., None, :] for slope, d in zip(slopes, dstate, strict=True))
        rows = (*dstate[0].shape[:-1], len(self.w_hh))
        through = _times(np.reshape(da, rows), self.w_hh)
        before = [
            sum(self.direct[part, r, t] * d for part, d in enumerate(dstate))
            for r in range(len(dstate))
        ]
        return (before[0] + through, *before[1:])

    def forward(self, dstate: State, dsums: Array) -> tuple[Array, State]:
        """All steps: the tangents dS_t[0] (T, B, H), and that of the last state.

        `dsums` (T, B, sums, H) is what comes into the sums from outside.
        """
        dy = np.empty((self.steps, *dstate[0].shape), self.w_hh.dtype)
        for t in range(self.steps):
            dstate = self.push(t, dstate, dsums[t])
            dy[t] = dstate[0]
        return dy, dstate

    def _recurrent_slopes(self, t: int) -> Array:
        """(P, B, G, H), in the sums that W_s S_{t-1} of each gate goes into."""
        if not self.cell.apart:
            return self.slopes[:, t]
        return self.slopes[:, t][:, :, self.cell.recurrent_sums]

    def _direct(self, t: int, part: int, dstate: State) -> Array:
        return np.asarray(sum(self.direct[part, r, t] * d for r, d in enumerate(dstate)))

    def _by_gate(self, gates: Array) -> Array:
        """(..., G*H) as (..., G, H)."""
        return gates.reshape(*gates.shape[:-1], self.cell.gates, self.w_hh.shape[1])


def linearize(recorded: Recorded) -> Linearized:
    """The pass that was recorded, with the gates saved."""
    cell, params, x = recorded.cell, recorded.params, recorded.x
    steps, batch, hidden = recorded.y.shape
    parts = len(recorded.after)
    slopes = np.empty((parts, steps, batch, cell.sums, hidden), x.dtype)
    direct = np.empty((parts, parts, steps, batch, hidden), x.dtype)
    trace = Trace.empty(cell, recorded.y)
    for part in range(parts):
        one = tuple(np.full_like(s, r == part) for r, s in enumerate(recorded.after))
        out = grads_of({"state": as_given(tuple(direct[part]))})
        request = Request(out, wanted=present(out), trace=trace, route="direct")
        recorded.backend.backward_steps(recorded.steps(slice(0, steps)), one, request)
        assert trace.deltas is not None
        slopes[part] = np.moveaxis(trace.deltas, 0, 2)
    return Linearized(cell, params.w_hh, slopes, direct)


def sums_of_tangents(recorded: Recorded, dx: Array | None, dparams: Mapping[str, Array]) -> Array:
    """What tangents of x (T, B, I) and of the parameters add to each sum: (T, B, sums, H)."""
    cell, params, x, before = recorded.cell, recorded.params, recorded.x, recorded.before[0]
    steps, batch, hidden = before.shape
    found = np.zeros((steps, batch, cell.sums, hidden), x.dtype)
    to_inputs: tuple[int, ...] = tuple(range(cell.gates))
    products = [
        (to_inputs, dx, params.w_ih),
        (to_inputs, x, dparams.get("w_ih")),
        (cell.recurrent_sums, before, dparams.get("w_hh")),
    ]
    for sums, rows, weights in products:
        if rows is not None and weights is not None:
            found[:, :, sums] += _times(rows, weights.T).reshape(steps, batch, cell.gates, hidden)
    for sums, name in ((to_inputs, "b_ih"), (cell.recurrent_sums, "b_hh")):
        if name in dparams:
            found[:, :, sums] += dparams[name].reshape(cell.gates, hidden)
    return found


def _times(rows: Array, matrix: Array) -> Array:
    """rows (..., K) @ matrix (K, N), as one product: NumPy takes one for each of several axes."""
    product: Array = rows.reshape(-1, rows.shape[-1]) @ matrix
    return product.reshape(*rows.shape[:-1], matrix.shape[1])


def read_dparams(
    params: Params, dparams: Mapping[str, Array] | None, like: tuple[str, np.dtype[Any]]
) -> dict[str, Array]:
    """The tangents of a layer's parameters, checked."""
    if dparams is None:
        return {}
    if not isinstance(dparams, Mapping):
        raise TypeError(
            f"dparams: expected a mapping of names to arrays, got {type(dparams).__name__}"
        )
    read = {}
    for name, value in dparams.items():
        checks.choice("dparams", name, PARAM_NAMES)
        if name in ("w_ho", "b_o"):
            continue
        of = getattr(params, name)
        if of is None:
            raise ValueError(f"dparams: the tape has no {name}, got an array for it")
        array = checks.as_float_array(f"dparams[{name!r}]", value, like)
        checks.expect_shape(f"dparams[{name!r}]", array, of.shape, name)
        read[name] = checks.readable(array)
    return read
