"""The kernels of the Numba backend: recurrence, readout with its loss, BPTT.

    a_t = W_x x_t + b_ih + W_s S_{t-1} + b_hh      (S_t, c_t) = step(a_t, S_{t-1}, c_{t-1})
    O_t = W_o S_t + b_2
    dS_t = dy_t + W_o^T dO_t + W_s^T da_{t+1} + what goes straight back from the step after
    da_t = derivative(dS_t, dc_t)
    dx_t = W_x^T da_t     dW_x = sum_t da_t x_t^T     dW_s = sum_t da_t S_{t-1}^T

for all gates; where a gate takes W_x x_t and W_s S_{t-1} apart, they are two sums, with a da each.
The step and its derivative come compiled, as pointers (`numba_cells`), so that one specialisation
for each dtype serves all cells and losses; all arrays are typed alike, C-contiguous and writable.

Importing this module imports Numba. Every loop is vectorised over outputs and never over a sum,
and threads share out outputs only: the bits of a result depend neither on the number of threads
nor on the other rows of the batch. All that is compiled is in one file, with its constants and the
tuples that it is given, since Numba's cache knows an entry point is out of date by its own file
only.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from ..checks import Array

__all__ = [
    "COLLECT",
    "GATES",
    "LOSS_CODES",
    "PROJECT",
    "RECUR",
    "RECUR_BACK",
    "UNITS",
    "Gradients",
    "Incoming",
    "Layer",
    "Pointwise",
    "Readout",
    "Record",
    "run_in_parallel",
    "run_serially",
]

SQUARED_ERROR, CROSS_ENTROPY = range(2)
LOSS_CODES = {"squared_error": SQUARED_ERROR, "cross_entropy": CROSS_ENTROPY}

# The stages of a call. A forward pass is PROJECT and RECUR; GATES takes the place of RECUR where
# the states are known already, and no step has to wait for another.
PROJECT, RECUR, GATES, RECUR_BACK, COLLECT = range(5)

# Columns of a packed panel: several vectors, so that their sums hide each other's latency.
PANEL = 32
# Rows (t, b) that are multiplied while they lie in the cache; also the length of a partial sum.
BLOCK = 64
# Units of a call of a cell's function: enough to hide what a call costs, and few enough for the
# first-level cache.
UNITS = 256
# Offsets are unsigned because Numba tests signed ones for counting from the end.
_PANEL, _2_PANELS, _3_PANELS = np.uint64(PANEL), np.uint64(2 * PANEL), np.uint64(3 * PANEL)


class Pointwise(NamedTuple):
    """A compiled cell, and how many of what it has; `numba_cells` says what the functions take."""

    forward: Any
    backward: Any
    sums: int
    states: int
    saved: int


class Layer(NamedTuple):
    """What the recurrence reads, for a cell of G gates, P sums and N states (S, and maybe c)."""

    x: Array  # (T, B, I)
    initial: Array  # (N, B, H)
    w_ih: Array  # (G, H, I)
    w_hh: Array  # (G, H, H)
    recurrent: Array  # (G,), the sum that W_s S of each gate goes into
    bias: Array  # (P, H), what each sum starts from


class Record(NamedTuple):
    """What a forward pass leaves."""

    history: Array  # (N, T, B, H), the states after each step
    saved: Array  # (P or more, T, B, H), the sums and then, in their place, what the cell saves


class Incoming(NamedTuple):
    """The gradients that come from outside the layer."""

    history: Array  # (N or less, T, B, H), of the first states
    state: Array  # (N, B, H), of the last states; becomes that of the initial ones


class Readout(NamedTuple):
    """The readout, and the loss of the last L steps; L = 0 if there is none."""

    loss: int
    w_ho: Array  # (O, H)
    b_o: Array  # (O,)
    target: Array  # (L, B, O), for the squared error
    ids: Array  # (L, B), for the cross-entropy
    weights: Array  # (L, B)
    scale: float
    d_o: Array  # (L, B, O), written: dO
    terms: Array  # (L, B), written: the weighted loss of each row


class Gradients(NamedTuple):
    """What BPTT adds up, from zero. The matrices are transposed: inputs first."""

    x: Array  # (T, B, I)
    delta: Array  # (P, T, B, H), da of each sum; may be the record's `saved`
    states: Array  # (N, T, B, H), written: the gradient of all states; N = 0 if it is not wanted
    w_ih: Array  # (G, I, H)
    w_hh: Array  # (G, H, H)
    bias: Array  # (P, H)
    w_ho: Array  # (H, O)
    b_o: Array  # (O,)


# --- how a function is compiled -----------------------------------------------------------------

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _called(function: Kernel) -> Kernel:
    """Compile as a function that other kernels call."""
    kernel: Kernel = njit(**_INNER)(function)
    return kernel


def _inlined(function: Kernel) -> Kernel:
    """Compile into the caller: each level of calls has LLVM optimise all below it once more."""
    kernel: Kernel = njit(**_INNER, inline="always")(function)
    return kernel


def _entry_point(*, parallel: bool) -> Callable[[Kernel], Kernel]:
    """Compile for calls from Python, with the on-disk cache where there is a place for it."""

    def decorate(function: Kernel) -> Kernel:
        options = {"nogil": True, "error_model": "numpy", "parallel": parallel}
        kernel: Kernel
        try:
            kernel = njit(**options, cache=True)(function)
        except RuntimeError:  # no directory that can be written to
            kernel = njit(**options)(function)
        return kernel

    return decorate


# --- floating-point environment -----------------------------------------------------------------

# On x86-64 round to nearest, no traps, and subnormal numbers flushed to zero or kept; what
# csrc/engine/float_environment.h has, in LLVM's words. Elsewhere the caller's environment stays.
KEEP_SUBNORMALS, FLUSH_SUBNORMALS = np.uint32(0x1F80), np.uint32(0x9FC0)

_HAS_MXCSR = platform.machine() in ("x86_64", "AMD64")
_WORD = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()


def _call(builder: Any, name: str, word: Any) -> None:
    """Call the LLVM intrinsic `name`, of an instruction that reads or writes `word` in memory."""
    of_bytes = ir.FunctionType(ir.VoidType(), [_BYTES])
    function = builder.module.globals.get(name) or ir.Function(builder.module, of_bytes, name)
    builder.call(function, [builder.bitcast(word, _BYTES)])


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def float_control(typing: Any) -> Any:
    """The thread's control register; 0 where it has none that is known here."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _HAS_MXCSR:
            return ir.Constant(_WORD, 0)
        word = builder.alloca(_WORD)
        _call(builder, "llvm.x86.sse.stmxcsr", word)
        return builder.load(word)

    return types.uint32(), generate


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def set_float_control(typing: Any, control: Any) -> Any:
    """Give the thread the word `control`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _HAS_MXCSR:
            word = builder.alloca(_WORD)
            builder.store(arguments[0], word)
            _call(builder, "llvm.x86.sse.ldmxcsr", word)
        return context.get_dummy_value()

    return types.void(types.uint32), generate


# --- products -----------------------------------------------------------------------------------


@_called
def pack(w: Array) -> Array:
    """w (K, N) as (ceil(N / PANEL), K * PANEL): panels of columns, padded with zeros."""
    depth, columns = w.shape
    packed = np.zeros(((columns + PANEL - 1) // PANEL, depth * PANEL), w.dtype)
    for p in range(packed.shape[0]):
        first = p * PANEL
        for k in range(depth):
            source = w[k, first : min(first + PANEL, columns)]
            panel_row = packed[p, k * PANEL : k * PANEL + source.size]
            for j in range(source.size):
                panel_row[j] = source[j]
    return packed


@_called
def transpose(a: Array, start: int, stop: int) -> Array:
    """a[:, start:stop] (M, K) as contiguous (K, M)."""
    rows = a.shape[0]
    turned = np.empty((stop - start, rows), a.dtype)
    for row in range(rows):
        source = a[row, start:stop]
        for k in range(source.size):
            turned[k, row] = source[k]
    return turned


@_inlined
def four_rows(a: Array, row: int, panel: Array, sums: Array) -> None:
    """sums (4, PANEL) = a[row : row + 4] @ panel; rows past the end repeat the last one."""
    rows, depth = a.shape
    a0 = row
    a1, a2, a3 = min(row + 1, rows - 1), min(row + 2, rows - 1), min(row + 3, rows - 1)
    for j in range(4 * PANEL):
        sums[j] = 0
    whole = depth - depth % 4
    for k in range(0, whole, 4):
        a00, a01, a02, a03 = a[a0, k], a[a0, k + 1], a[a0, k + 2], a[a0, k + 3]
        a10, a11, a12, a13 = a[a1, k], a[a1, k + 1], a[a1, k + 2], a[a1, k + 3]
        a20, a21, a22, a23 = a[a2, k], a[a2, k + 1], a[a2, k + 2], a[a2, k + 3]
        a30, a31, a32, a33 = a[a3, k], a[a3, k + 1], a[a3, k + 2], a[a3, k + 3]
        w = np.uint64(k) * _PANEL
        for j in range(_PANEL):
            w0, w1 = panel[w + j], panel[w + _PANEL + j]
            w2, w3 = panel[w + _2_PANELS + j], panel[w + _3_PANELS + j]
            sums[j] += (a00 * w0 + a01 * w1) + (a02 * w2 + a03 * w3)
            sums[_PANEL + j] += (a10 * w0 + a11 * w1) + (a12 * w2 + a13 * w3)
            sums[_2_PANELS + j] += (a20 * w0 + a21 * w1) + (a22 * w2 + a23 * w3)
            sums[_3_PANELS + j] += (a30 * w0 + a31 * w1) + (a32 * w2 + a33 * w3)
    for k in range(whole, depth):
        a00, a10, a20, a30 = a[a0, k], a[a1, k], a[a2, k], a[a3, k]
        w = np.uint64(k) * _PANEL
        for j in range(_PANEL):
            w0 = panel[w + j]
            sums[j] += a00 * w0
            sums[_PANEL + j] += a10 * w0
            sums[_2_PANELS + j] += a20 * w0
            sums[_3_PANELS + j] += a30 * w0


@_inlined
def one_row(a: Array, row: int, panel: Array, sums: Array) -> None:
    """sums (PANEL,) = a[row] @ panel, added up in the order of `four_rows`."""
    depth = a.shape[1]
    for j in range(PANEL):
        sums[j] = 0
    whole = depth - depth % 4
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = a[row, k], a[row, k + 1], a[row, k + 2], a[row, k + 3]
        w = np.uint64(k) * _PANEL
        for j in range(_PANEL):
            w0, w1 = panel[w + j], panel[w + _PANEL + j]
            w2, w3 = panel[w + _2_PANELS + j], panel[w + _3_PANELS + j]
            sums[j] += (a0 * w0 + a1 * w1) + (a2 * w2 + a3 * w3)
    for k in range(whole, depth):
        a0 = a[row, k]
        w = np.uint64(k) * _PANEL
        for j in range(_PANEL):
            sums[j] += a0 * panel[w + j]


@_called
def add_product(a: Array, packed: Array, out: Array) -> None:
    """out (M, N) += a (M, K) @ w (K, N), with w packed."""
    rows, columns = out.shape
    sums = np.empty(4 * PANEL, out.dtype)
    for p in range(packed.shape[0]):
        first = p * PANEL
        width = min(PANEL, columns - first)
        for row in range(0, rows, 4):
            count = min(4, rows - row)
            if count == 1:
                one_row(a, row, packed[p], sums)
            else:
                four_rows(a, row, packed[p], sums)
            for i in range(count):
                total, part = out[row + i, first : first + width], sums[i * PANEL :]
                for j in range(width):
                    total[j] += part[j]


@_inlined
def share(part: int, parts: int, count: int) -> tuple[int, int]:
    """The half-open range of `count` items that part number `part` of `parts` works on."""
    return count * part // parts, count * (part + 1) // parts


# --- forward ------------------------------------------------------------------------------------


@_called
def fill_rows(rows: Array, values: Array) -> None:
    """Every row becomes `values`. In Numba ``rows[:] = values`` takes seconds to compile."""
    for row in range(rows.shape[0]):
        for j in range(values.size):
            rows[row, j] = values[j]


@_inlined
def copy(target: Array, source: Array) -> None:
    """target = source as far as both go. Written out for the same reason."""
    for j in range(min(target.size, source.size)):
        target[j] = source[j]


@_inlined
def pack_transposed(w: Array) -> Array:
    """Each w[g] (G, N, K), transposed and packed: for products with (M, K)."""
    packed = pack(transpose(w[0], np.int64(0), w.shape[2]))
    panels = np.empty((w.shape[0], *packed.shape), w.dtype)
    for g in range(w.shape[0]):
        copy(panels[g].ravel(), pack(transpose(w[g], np.int64(0), w.shape[2])).ravel())
    return panels


@_inlined
def pack_each(w: Array) -> Array:
    """Each w[g] (G, K, N), packed."""
    packed = pack(w[0])
    panels = np.empty((w.shape[0], *packed.shape), w.dtype)
    for g in range(w.shape[0]):
        copy(panels[g].ravel(), pack(w[g]).ravel())
    return panels


@_inlined
def project(part: int, parts: int, layer: Layer, sums: Array) -> None:
    """W_x x_t + bias of each gate, for a share of all rows (t, b)."""
    gates, rows = layer.w_ih.shape[0], sums.shape[1] * sums.shape[2]
    x = layer.x.reshape(rows, layer.x.shape[2])
    projected = sums.reshape(sums.shape[0], rows, sums.shape[3])
    packed_ih = pack_transposed(layer.w_ih)
    start, stop = share(part, parts, rows)
    for n in range(start, stop, BLOCK):
        m = min(n + BLOCK, stop)
        for g in range(gates):
            fill_rows(projected[g, n:m], layer.bias[g])
            add_product(x[n:m], packed_ih[g], projected[g, n:m])


@_inlined
def steps_of(states: Array) -> Array:
    """states (N, T, B, H) with all units of a step, of all rows, in one row."""
    return states.reshape(states.shape[0], states.shape[1], states.shape[2] * states.shape[3])


@_called
def step_forward(
    pointwise: Pointwise,
    layer: Layer,
    record: Record,
    packed_hh: Array,
    t: int,
    start: int,
    stop: int,
    keep_states: bool,
    given: Array,
    found: Array,
) -> None:
    """Step t of the rows from `start` to `stop`: from what is projected to what is saved."""
    history, saved = record
    before = history[0, t - 1, start:stop] if t > 0 else layer.initial[0, start:stop]
    for p in range(packed_hh.shape[0], pointwise.sums):
        fill_rows(saved[p, t, start:stop], layer.bias[p])
    for g in range(packed_hh.shape[0]):
        add_product(before, packed_hh[g], saved[layer.recurrent[g], t, start:stop])
    flat, states, hidden = steps_of(saved), steps_of(history), history.shape[3]
    initial = layer.initial.reshape(states.shape[0], states.shape[2])
    for u in range(start * hidden, stop * hidden, UNITS):
        v = min(u + UNITS, stop * hidden)
        for p in range(pointwise.sums):
            copy(given[p], flat[p, t, u:v])
        for n in range(pointwise.states):
            copy(given[pointwise.sums + n], states[n, t - 1, u:v] if t > 0 else initial[n, u:v])
        pointwise.forward(given.ctypes, found.ctypes, v - u)
        if keep_states:
            for n in range(pointwise.states):
                copy(states[n, t, u:v], found[n])
        for k in range(pointwise.saved):
            copy(flat[k, t, u:v], found[pointwise.states + k])


@_inlined
def recur(
    part: int, parts: int, pointwise: Pointwise, layer: Layer, record: Record, states_known: bool
) -> None:
    """All steps of a share of the batch; or where the states are known, a share of the steps."""
    packed_hh = pack_transposed(layer.w_hh)
    steps, batch = record.history.shape[1], record.history.shape[2]
    first, last = share(part, parts, steps) if states_known else (0, steps)
    start, stop = (0, batch) if states_known else share(part, parts, batch)
    given = np.empty((pointwise.sums + pointwise.states, UNITS), packed_hh.dtype)
    found = np.empty((pointwise.states + pointwise.saved, UNITS), packed_hh.dtype)
    for t in range(first, last):
        step_forward(
            pointwise, layer, record, packed_hh, t, start, stop, not states_known, given, found
        )


# --- loss ---------------------------------------------------------------------------------------


@_called
def squared_error(o: Array, target: Array) -> float:
    """l = 1/2 sum_o (Y - O)^2; o becomes dl/dO."""
    total = o.dtype.type(0)
    for j in range(o.size):
        o[j] -= target[j]
        total += o[j] * o[j]
    return total / o.dtype.type(2)  # type: ignore[no-any-return]


@_called
def cross_entropy(o: Array, class_id: int) -> float:
    """l = -log softmax(O)[id]; o becomes dl/dO = softmax(O) - onehot(id)."""
    largest = o[0]
    for j in range(o.size):
        largest = o[j] if o[j] > largest else largest
    if class_id < 0 or class_id >= o.size:  # changed by the caller since it was checked
        for j in range(o.size):
            o[j] = math.nan
        return math.nan
    at_id = o[class_id] - largest
    total = o.dtype.type(0)
    for j in range(o.size):
        o[j] = math.exp(o[j] - largest)
        total += o[j]
    for j in range(o.size):
        o[j] /= total
    o[class_id] -= o.dtype.type(1)
    return math.log(total) - at_id  # type: ignore[no-any-return]


@_inlined
def read_out(readout: Readout, step: int, start: int, s: Array, packed_oh: Array) -> Array:
    """The loss terms and dO at step `step` of L, of the rows from `start` on, with states s."""
    o = readout.d_o[step, start : start + s.shape[0]]
    fill_rows(o, readout.b_o)
    add_product(s, packed_oh, o)
    for row in range(s.shape[0]):
        b = start + row
        weight = readout.weights[step, b]
        if weight == 0:  # it selects: neither O nor the target counts, whatever they hold
            readout.terms[step, b] = 0
            for j in range(o.shape[1]):
                o[row, j] = 0
            continue
        if readout.loss == SQUARED_ERROR:
            term = squared_error(o[row], readout.target[step, b])
        else:
            term = cross_entropy(o[row], readout.ids[step, b])
        readout.terms[step, b] = term * weight
        for j in range(o.shape[1]):
            o[row, j] = o[row, j] * weight * readout.scale
    return o


# --- backward -----------------------------------------------------------------------------------


@_inlined
def add_rows(target: Array, rows: Array) -> None:
    """target (M, N) += rows (M, N)."""
    for row in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            target[row, j] += rows[row, j]


@_inlined
def copy_rows(target: Array, rows: Array) -> None:
    """target (M, N) = rows (M, N)."""
    for row in range(rows.shape[0]):
        copy(target[row], rows[row])


@_called
def step_back(
    pointwise: Pointwise,
    layer: Layer,
    record: Record,
    delta: Array,
    d_state: Array,
    t: int,
    start: int,
    stop: int,
    given: Array,
    found: Array,
) -> None:
    """da_t of the rows from `start` to `stop`, and what goes straight to the states before."""
    history, saved = record
    flat, states, hidden = steps_of(saved), steps_of(history), history.shape[3]
    initial = layer.initial.reshape(states.shape[0], states.shape[2])
    da, ds = steps_of(delta), d_state.reshape(states.shape[0], states.shape[2])
    now = pointwise.saved + pointwise.states
    for u in range(start * hidden, stop * hidden, UNITS):
        v = min(u + UNITS, stop * hidden)
        for k in range(pointwise.saved):
            copy(given[k], flat[k, t, u:v])
        for n in range(pointwise.states):
            copy(given[pointwise.saved + n], states[n, t - 1, u:v] if t > 0 else initial[n, u:v])
            copy(given[now + n], states[n, t, u:v])
            copy(given[now + pointwise.states + n], ds[n, u:v])
        pointwise.backward(given.ctypes, found.ctypes, v - u)
        for p in range(pointwise.sums):
            copy(da[p, t, u:v], found[p])
        for n in range(pointwise.states):
            copy(ds[n, u:v], found[pointwise.sums + n])


@_inlined
def recur_back(
    part: int,
    parts: int,
    pointwise: Pointwise,
    layer: Layer,
    record: Record,
    incoming: Incoming,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """da_t of all steps, and the gradient of the initial state, for a share of the batch."""
    packed_hh, packed_ho = pack_each(layer.w_hh), pack(readout.w_ho)
    packed_oh = pack(transpose(readout.w_ho, np.int64(0), readout.w_ho.shape[1]))
    y, d_state, delta = record.history[0], incoming.state, gradients.delta
    start, stop = share(part, parts, y.shape[1])
    first_read = y.shape[0] - readout.d_o.shape[0]
    given = np.empty((pointwise.saved + 3 * pointwise.states, UNITS), y.dtype)
    found = np.empty((pointwise.sums + pointwise.states, UNITS), y.dtype)
    ds = d_state[0, start:stop]
    for t in range(y.shape[0] - 1, -1, -1):
        for n in range(incoming.history.shape[0]):
            add_rows(d_state[n, start:stop], incoming.history[n, t, start:stop])
        if t >= first_read:
            s = y[t, start:stop]
            add_product(read_out(readout, t - first_read, start, s, packed_oh), packed_ho, ds)
        for n in range(gradients.states.shape[0]):
            copy_rows(gradients.states[n, t, start:stop], d_state[n, start:stop])
        step_back(pointwise, layer, record, delta, d_state, t, start, stop, given, found)
        for g in range(packed_hh.shape[0]):
            add_product(delta[layer.recurrent[g], t, start:stop], packed_hh[g], ds)


@_inlined
def input_gradient(part: int, parts: int, layer: Layer, delta: Array, dx: Array) -> None:
    """dx_t = W_x^T da_t, for a share of all rows (t, b)."""
    rows = dx.shape[0] * dx.shape[1]
    da, dx_rows = delta.reshape(delta.shape[0], rows, delta.shape[3]), dx.reshape(rows, dx.shape[2])
    packed_hi = pack_each(layer.w_ih)
    start, stop = share(part, parts, rows)
    for n in range(start, stop, BLOCK):
        m = min(n + BLOCK, stop)
        for g in range(packed_hi.shape[0]):
            add_product(da[g, n:m], packed_hi[g], dx_rows[n:m])


@_called
def accumulate(part: int, parts: int, inputs: Array, delta: Array, gradient: Array) -> None:
    """gradient (K, N) += inputs (rows, K)^T @ delta (rows, N), for a share of the K."""
    start, stop = share(part, parts, inputs.shape[1])
    for n in range(0, delta.shape[0], BLOCK):
        block = transpose(inputs[n : n + BLOCK], start, stop)
        add_product(block, pack(delta[n : n + BLOCK]), gradient[start:stop])


@_called
def accumulate_bias(part: int, parts: int, delta: Array, gradient: Array) -> None:
    """gradient (N,) += the sum of the rows of delta; one part does it all."""
    if part + 1 < parts:
        return
    for n in range(0, delta.shape[0], BLOCK):
        block = np.zeros(gradient.size, gradient.dtype)
        for row in range(n, min(n + BLOCK, delta.shape[0])):
            delta_row = delta[row]
            for j in range(block.size):
                block[j] += delta_row[j]
        for j in range(block.size):
            gradient[j] += block[j]


@_inlined
def parameter_gradients(
    part: int,
    parts: int,
    layer: Layer,
    y: Array,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """A share of every parameter's gradient, each entry summed over (t, b) in order."""
    batch, rows = y.shape[1], y.shape[0] * y.shape[1]
    x, s = layer.x.reshape(rows, layer.x.shape[2]), y.reshape(rows, y.shape[2])
    da = gradients.delta.reshape(gradients.delta.shape[0], rows, y.shape[2])
    for g in range(layer.recurrent.size):
        recurrent = da[layer.recurrent[g]]
        accumulate(part, parts, x, da[g], gradients.w_ih[g])
        accumulate(part, parts, layer.initial[0], recurrent[:batch], gradients.w_hh[g])
        accumulate(part, parts, s[: rows - batch], recurrent[batch:], gradients.w_hh[g])
    for p in range(gradients.bias.shape[0]):
        accumulate_bias(part, parts, da[p], gradients.bias[p])
    read = readout.d_o.shape[0] * batch
    d_o = readout.d_o.reshape(read, readout.d_o.shape[2])
    accumulate(part, parts, s[rows - read :], d_o, gradients.w_ho)
    accumulate_bias(part, parts, d_o, gradients.b_o)


# --- stages -------------------------------------------------------------------------------------


# Called, not inlined: in a prange, Numba takes writes to arrays of a tuple for dead code.
@_called
def run_part(
    flush: bool,
    stage: int,
    part: int,
    parts: int,
    pointwise: Pointwise,
    layer: Layer,
    record: Record,
    incoming: Incoming,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """One part of one stage; it reads what all parts of the stages before it wrote."""
    callers = float_control()
    set_float_control(FLUSH_SUBNORMALS if flush else KEEP_SUBNORMALS)
    if stage == PROJECT:
        project(part, parts, layer, record.saved)
    elif stage in (RECUR, GATES):
        recur(part, parts, pointwise, layer, record, stage == GATES)
    elif stage == RECUR_BACK:
        recur_back(part, parts, pointwise, layer, record, incoming, readout, gradients)
    else:
        input_gradient(part, parts, layer, gradients.delta, gradients.x)
        parameter_gradients(part, parts, layer, record.history[0], readout, gradients)
    set_float_control(callers)


@_entry_point(parallel=False)
def run_serially(
    flush: bool,
    stages: Array,
    pointwise: Pointwise,
    layer: Layer,
    record: Record,
    incoming: Incoming,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """The stages, one after the other."""
    part, parts = np.int64(0), np.int64(1)
    for n in range(stages.size):
        run_part(
            flush,
            stages[n],
            part,
            parts,
            pointwise,
            layer,
            record,
            incoming,
            readout,
            gradients,
        )


@_entry_point(parallel=True)
def run_in_parallel(
    parts: int,
    flush: bool,
    stages: Array,
    pointwise: Pointwise,
    layer: Layer,
    record: Record,
    incoming: Incoming,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """`run_serially` in parts, one for each thread."""
    for n in range(stages.size):
        stage = stages[n]
        for part in prange(parts):
            run_part(
                flush,
                stage,
                np.int64(part),
                parts,
                pointwise,
                layer,
                record,
                incoming,
                readout,
                gradients,
            )
