"""Fused forward pass and BPTT compiled by Numba, for machines without a C++ compiler.

The equations are in `numba_kernels` and `numba_cells`, which are imported, and Numba with them, by
the first question whether the backend is available, which every call asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
from . import plain_readout
from .by_rows import backward_by_rows, value_and_grad_by_rows
from .in_segments import kept_by_parts, kept_in_segments, value_and_grad_in_segments
from .numba_calls import compile_seconds, kernels, run, why_missing
from .one_step import as_one_step
from .parts import PlainParts, every_step
from .protocol import Incoming, Layer, Parts, Record, Request, Sizes, State, Steps

if TYPE_CHECKING:
    from . import numba_kernels

__all__ = ["NumbaBackend", "compile_seconds"]


@dataclass(frozen=True)
class NumbaBackend:
    """Kernels that Numba compiles at the first call, once for each dtype, and keeps on disk."""

    name: str = "numba"
    error: type[Exception] = ImportError
    packed: bool = False
    places: bool = False
    one_saved: bool = False

    def missing(self) -> str | None:
        return why_missing()

    def description(self) -> str:
        import numba

        return f"compiled at the first call by Numba {numba.__version__}"

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        return dtype.char in "fd" and _has_step(cell)

    def beside(self, cell: Cell, save: str) -> Beside:
        planes = cell.saved if save == "minimal" else 0  # in place of those that were not saved
        return Beside(
            forward=planes,
            backward=planes or cell.sums,
            fused=0 if cell.saved else 1,
            outputs=1,
            copies=5 * len(cell.states) + cell.saved,  # what may not be parts of one array
            fresh=True,
        )

    def forward(self, layer: Layer, save: str, out: Record | None = None) -> Record:
        cell, x, state = layer.cell, layer.x, layer.state
        planes = out.saved[0] if out is not None and out.saved else None
        record = _record(cell, x, state, None if out is None else _stack(out.history), planes)
        if record.history.size:
            run(_stages("PROJECT", "RECUR"), cell, _layer(layer), record)
        if out is None:
            saved = (record.saved,) if save == "gates" and cell.saved else ()
            out = Record(tuple(record.history), tuple(map(np.empty_like, state)), saved)
        for last, initial, kept, new in zip(
            out.state, state, out.history, record.history, strict=True
        ):
            if not np.may_share_memory(kept, new):
                np.copyto(kept, new)
            np.copyto(last, new[-1] if len(x) else initial)
        return out

    def backward(self, layer: Layer, record: Record, incoming: Incoming, request: Request) -> Grads:
        if request.per_row is not None:
            return backward_by_rows(self, layer, record, incoming, request)
        cell, params, x, trace = layer.cell, layer.params, layer.x, request.trace
        y = record.y
        read = _record(cell, x, layer.state, _stack(record.history), *record.saved)
        again = cell.saved > 0 and not record.saved
        if request.route == "direct":  # the kernels know no other way than the whole one
            assert not again
            layer = replace(layer, params=replace(params, w_hh=np.zeros_like(params.w_hh)))
        delta = read.saved if again else np.empty((cell.sums, *y.shape), x.dtype)
        gradients = _zeros(cell, params, np.zeros_like(x), delta)
        if trace is not None:
            gradients = gradients._replace(states=np.empty_like(read.history))
        given = _incoming(layer.state, incoming.history, incoming.state)
        if y.size:
            gates = ("PROJECT", "GATES") if again else ()
            collect = ("COLLECT",) if request.wanted - {"state", "w_ho", "b_o"} else ()
            stages = _stages(*gates, "RECUR_BACK", *collect)
            run(stages, cell, _layer(layer), read, given, gradients=gradients)
            if trace is not None:
                if trace.deltas is not None:
                    np.copyto(trace.deltas, delta[: cell.sums])
                for part, written in zip(trace.dstates, gradients.states, strict=True):
                    np.copyto(part, written)
        found = _grads(cell, params, given, gradients)
        return deliver(found, request.out, request.accumulate, request.wanted)

    def backward_steps(self, steps: Steps, dstates: State, request: Request) -> None:
        saved = tuple(s.reshape(len(s), 1, -1, s.shape[-1]) for s in steps.saved)
        self.backward(*as_one_step(steps, saved, dstates, request))

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        return tuple(np.ascontiguousarray(s[:, steps]) for s in saved)

    def stepping(self, layer: Layer) -> None:
        """`forward` does them."""

    def lag_products(self, *arguments: Any) -> None:
        """There is no kernel for them; `bptt.lags` computes them term by term."""

    def read_out(self, params: Params, y: Array) -> Array:
        return plain_readout.read_out(params, y)

    def readout_gradient(
        self, layer: Layer, y: Array, objective: Objective
    ) -> tuple[float, Array, dict[str, Array]]:
        return plain_readout.readout_gradient(layer.params, y, objective)

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
        cell, params, x, state = layer.cell, layer.params, layer.x, layer.state
        assert params.w_ho is not None
        # Steps after the only one of the loss have no part in it: their dx stays zero.
        steps = len(x) if objective.step is None else objective.step + 1
        dx = np.zeros_like(x)
        record = _record(cell, x[:steps], state)
        delta = record.saved if cell.saved else np.empty_like(record.history[:1])
        gradients = _zeros(cell, params, dx[:steps], delta)
        incoming = _incoming(state, (None,), None)
        readout = _readout(params, record.history[0], objective)
        if record.history.size:
            stages = _stages("PROJECT", "RECUR", "RECUR_BACK", "COLLECT")
            some = _layer(replace(layer, x=x[:steps]))
            run(stages, cell, some, record, incoming, readout, gradients)
        if last is not None:
            for target, initial, states in zip(last, state, record.history, strict=True):
                np.copyto(target, states[-1] if steps else initial)
        loss = readout.terms.sum(dtype=np.float64) * objective.scale
        grads = _grads(cell, params, incoming, gradients)
        grads.x = dx
        grads.w_ho = np.ascontiguousarray(gradients.w_ho.T)
        grads.b_o = None if params.b_o is None else gradients.b_o
        return float(loss), deliver(grads, request.out, request.accumulate, request.wanted)


def _has_step(cell: Cell) -> bool:
    """Whether there is a step of `cell`; of the package's own cells that takes Numba to know."""
    if cell.step is not None:
        return True
    if why_missing() is not None:
        return False
    from .numba_cells import STEPS

    return cell.name in STEPS


def _stages(*names: str) -> Array:
    code = kernels()
    return np.array([getattr(code, name) for name in names])


def _record(
    cell: Cell, x: Array, state: State, history: Array | None = None, saved: Array | None = None
) -> numba_kernels.Record:
    """Where a forward pass goes, or what it left; new arrays where none are given."""
    shape = (*x.shape[:2], state[0].shape[1])
    if history is None:
        history = np.empty((len(state), *shape), x.dtype)
    if not cell.saved:
        saved = history[:1]  # the only sum may lie where the state will be
    elif saved is None:
        saved = np.empty((cell.saved, *shape), x.dtype)
    record: numba_kernels.Record = kernels().Record(_writable(history), _writable(saved))
    return record


def _stack(parts: tuple[Array, ...]) -> Array:
    """(N, T, B, H) from N arrays; without a copy if they are parts of one, as `forward` has it."""
    whole = parts[0].base
    if len(parts) == 1:
        return parts[0][None]
    shape = (len(parts), *parts[0].shape)
    # The base of another library's memory is no array.
    one = isinstance(whole, np.ndarray) and whole.shape == shape
    if one and all(p.base is whole for p in parts):
        return whole  # type: ignore[return-value, unused-ignore]
    return np.stack(parts)


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


def _layer(layer: Layer) -> numba_kernels.Layer:
    cell, params, x, state = layer.cell, layer.params, layer.x, layer.state
    gates, hidden = cell.gates, params.hidden_size
    bias = np.zeros((cell.sums, hidden), x.dtype)
    recurrent = np.array(cell.recurrent_sums)
    if params.b_ih is not None:
        bias[:gates] += params.b_ih.reshape(gates, hidden)
    if params.b_hh is not None:
        bias[recurrent] += params.b_hh.reshape(gates, hidden)
    w_ih, w_hh = (_writable(w).reshape(gates, hidden, -1) for w in (params.w_ih, params.w_hh))
    read: numba_kernels.Layer = kernels().Layer(
        _writable(x), np.stack(state), w_ih, w_hh, recurrent, bias
    )
    return read


def _incoming(
    state: State,
    dhistory: tuple[Array | None, ...],
    dstate: tuple[Array | None, ...] | None,
) -> numba_kernels.Incoming:
    """The gradients from outside, and a copy of dstate, which is written to."""
    given = dhistory
    while given and given[-1] is None:
        given = given[:-1]
    known = next((d for d in given if d is not None), np.empty((0, 0, 0), state[0].dtype))
    if len(given) == 1:
        history = _writable(known)[None]
    elif given:
        history = np.stack([np.zeros_like(known) if d is None else d for d in given])
    else:
        history = np.empty((0, 0, 0, 0), known.dtype)
    final = np.zeros((len(state), *state[0].shape), known.dtype)
    for target, d in zip(final, dstate or (), strict=False):
        if d is not None:
            target[:] = d
    incoming: numba_kernels.Incoming = kernels().Incoming(history, final)
    return incoming


def _readout(params: Params, y: Array, objective: Objective) -> numba_kernels.Readout:
    """The readout and loss of `objective`, over all steps of y (T, B, H) or over its last one."""
    assert params.w_ho is not None
    code, dtype = kernels(), y.dtype
    rows = (len(y) if objective.step is None else 1, y.shape[1])
    outputs = len(params.w_ho)
    target = objective.target if objective.step is None else objective.target[None]
    class_ids = objective.loss == "cross_entropy"
    weights = np.ones(rows, dtype) if objective.weights is None else objective.weights
    readout: numba_kernels.Readout = code.Readout(
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


def _zeros(cell: Cell, params: Params, dx: Array, delta: Array) -> numba_kernels.Gradients:
    """Gradients to add to; `dx` and `delta` are used as they are."""
    gates, inputs, hidden = cell.gates, params.input_size, params.hidden_size
    outputs = params.output_size or 0
    shapes = ((gates, inputs, hidden), (gates, hidden, hidden), (cell.sums, hidden))
    zeros = (np.zeros(shape, dx.dtype) for shape in (*shapes, (hidden, outputs), (outputs,)))
    no_states = np.empty((0, 0, 0, 0), dx.dtype)
    gradients: numba_kernels.Gradients = kernels().Gradients(dx, delta, no_states, *zeros)
    return gradients


def _grads(
    cell: Cell,
    params: Params,
    incoming: numba_kernels.Incoming,
    gradients: numba_kernels.Gradients,
) -> Grads:
    """All but the readout's gradients, in the layout of the parameters."""
    w_ih, w_hh = (
        np.ascontiguousarray(w.transpose(0, 2, 1)).reshape(cell.gates * params.hidden_size, -1)
        for w in (gradients.w_ih, gradients.w_hh)
    )
    bias = gradients.bias
    return Grads(
        x=gradients.x,
        state=as_given(tuple(incoming.state)),
        w_ih=w_ih,
        w_hh=w_hh,
        b_ih=None if params.b_ih is None else bias[: cell.gates].ravel().copy(),
        b_hh=None if params.b_hh is None else bias[list(cell.recurrent_sums)].ravel(),
    )
