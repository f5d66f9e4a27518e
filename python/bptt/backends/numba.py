"""Fused forward pass and BPTT compiled by Numba, for machines without a C++ compiler.

The equations are in `numba_kernels`, which is imported, and Numba with it, by the first call.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..losses import Objective
from ..outputs import deliver
from ..params import Params
from .numba_calls import compile_seconds, kernels, run
from .protocol import Forward, State

if TYPE_CHECKING:
    from .numba_kernels import Gradients, Layer, Readout

__all__ = ["NumbaBackend", "compile_seconds"]


@dataclass(frozen=True)
class NumbaBackend:
    """Kernels that Numba compiles at the first call, once for each dtype, and keeps on disk."""

    name: str = "numba"
    error: type[Exception] = ImportError

    def missing(self) -> str | None:
        if importlib.util.find_spec("numba") is None:
            return "Numba is not installed (pip install 'bptt[numba]')"
        return None

    def description(self) -> str:
        from importlib.metadata import version  # slow to import

        return f"compiled at the first call by Numba {version('numba')}"

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        return cell.name in ("linear", "tanh", "relu") and dtype.char in "fd"

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
            y = np.empty((*x.shape[:2], params.hidden_size), x.dtype)
            out = Forward((y,), (np.empty_like(state[0]),))
        if out.y.size:
            code, layer = kernels(), _layer(params, x, state)
            run(code.PROJECT, code.RECUR, cell.name, layer, out.y, *_nothing(x.dtype.char))
        out.state[0][:] = out.y[-1] if len(x) else state[0]
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
    ) -> Grads:
        (dy,) = dhistory
        checks.require_memory(x.nbytes, "the gradient of x")
        dx = np.zeros_like(x)
        gradients = _zeros(params, dx)
        if not forward.y.size:
            if dstate is not None:
                gradients.state[:] = dstate[0]
            return deliver(_grads(params, dx, gradients), out, accumulate)
        checks.require_memory(forward.y.nbytes, f"BPTT through {len(x)} steps")
        delta = np.zeros_like(forward.y) if dy is None else dy.copy()
        if dstate is not None:
            delta[-1] += dstate[0]
        code, layer, y = kernels(), _layer(params, x, state), _writable(forward.y)
        _, readout, _ = _nothing(x.dtype.char)
        run(code.RECUR_BACK, code.COLLECT, cell.name, layer, y, delta, readout, gradients)
        return deliver(_grads(params, dx, gradients), out, accumulate)

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
        # Steps after the only one of the loss have no part in it: their dx stays zero.
        steps = len(x) if objective.step is None else objective.step + 1
        values = steps * x.shape[1] * (2 * params.hidden_size + len(params.w_ho))
        checks.require_memory(x.nbytes + values * x.itemsize, f"BPTT through {steps} steps")
        dx = np.zeros_like(x)
        gradients = _zeros(params, dx[:steps])
        y = np.empty((steps, x.shape[1], params.hidden_size), x.dtype)
        readout = _readout(params, y, objective)
        if y.size:
            code, layer, delta = kernels(), _layer(params, x[:steps], state), np.zeros_like(y)
            run(code.PROJECT, code.COLLECT, cell.name, layer, y, delta, readout, gradients)
        loss = readout.terms.sum(dtype=np.float64) * objective.scale
        grads = _grads(params, dx, gradients)
        grads.w_ho = np.ascontiguousarray(gradients.w_ho.T)
        grads.b_o = None if params.b_o is None else gradients.b_o
        return float(loss), deliver(grads, out, accumulate)


class _Writable:
    """The memory of an array without its protection; see `_writable`."""

    def __init__(self, array: Array) -> None:
        self.array = array
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _writable(array: Array) -> Array:
    """`array`, typed as writable: for a read-only argument Numba would compile everything anew.

    The kernels do not write to what they only read.
    """
    return array if array.flags.writeable else np.asarray(_Writable(array))


def _layer(params: Params, x: Array, state: State) -> Layer:
    biases = [b for b in (params.b_ih, params.b_hh) if b is not None]
    bias = sum(biases[1:], biases[0]) if biases else np.zeros(params.hidden_size, x.dtype)
    arrays = (x, state[0], params.w_ih, params.w_hh, bias)
    layer: Layer = kernels().Layer(*map(_writable, arrays))
    return layer


def _readout(params: Params, y: Array, objective: Objective) -> Readout:
    """The readout and loss of `objective`, over all steps of y (T, B, H) or over its last one."""
    assert params.w_ho is not None
    code, dtype = kernels(), y.dtype
    rows = (len(y) if objective.step is None else 1, y.shape[1])
    outputs = len(params.w_ho)
    target = objective.target if objective.step is None else objective.target[None]
    class_ids = objective.loss == "cross_entropy"
    weights = np.ones(rows, dtype) if objective.weights is None else objective.weights
    readout: Readout = code.Readout(
        loss=code.LOSS_CODES[objective.loss],
        w_ho=_writable(params.w_ho),
        b_o=np.zeros(outputs, dtype) if params.b_o is None else _writable(params.b_o),
        target=np.empty((0, 0, 0), dtype) if class_ids else _writable(target),
        ids=_writable(target) if class_ids else np.empty((0, 0), np.int64),
        weights=_writable(weights),
        scale=objective.scale,
        d_o=np.empty((*rows, outputs), dtype),
        terms=np.empty(rows, dtype),
    )
    return readout


def _zeros(params: Params, dx: Array) -> Gradients:
    """Gradients to add to; `dx` is used as it is."""
    inputs, hidden, outputs = params.input_size, params.hidden_size, params.output_size or 0
    shapes = ((inputs, hidden), (hidden, hidden), (hidden,), (hidden, outputs), (outputs,))
    state = np.zeros((dx.shape[1], hidden), dx.dtype)
    gradients: Gradients = kernels().Gradients(
        dx, state, *(np.zeros(shape, dx.dtype) for shape in shapes)
    )
    return gradients


@functools.cache
def _nothing(dtype: str) -> tuple[Array, Readout, Gradients]:
    """What stands for a delta, readout and gradients that a call does not have."""
    code = kernels()
    vector, matrix, cube = (np.empty((0,) * rank, dtype) for rank in (1, 2, 3))
    ids = np.empty((0, 0), np.int64)
    readout = code.Readout(0, matrix, vector, cube, ids, matrix, 0.0, cube, matrix)
    return cube, readout, code.Gradients(cube, matrix, matrix, matrix, vector, matrix, vector)


def _grads(params: Params, dx: Array, gradients: Gradients) -> Grads:
    """All but the readout's gradients, in the layout of the parameters."""
    return Grads(
        x=dx,
        state=gradients.state,
        w_ih=np.ascontiguousarray(gradients.w_ih.T),
        w_hh=np.ascontiguousarray(gradients.w_hh.T),
        b_ih=None if params.b_ih is None else gradients.bias.copy(),
        b_hh=None if params.b_hh is None else gradients.bias,
    )
