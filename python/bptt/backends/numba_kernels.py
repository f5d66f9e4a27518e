"""The kernels of the Numba backend: recurrence, readout with its loss, BPTT.

    S_t  = f(W_x x_t + b_1 + W_s S_{t-1})                O_t = W_o S_t + b_2
    dS_t = dy_t + W_o^T dO_t + W_s^T da_{t+1}            da_t = f'(a_t) * dS_t
    dx_t = W_x^T da_t     dW_x = sum_t da_t x_t^T     dW_s = sum_t da_t S_{t-1}^T

Importing this module imports Numba. Every loop is vectorised over outputs and never over a sum,
and threads share out outputs only: the bits of a result depend neither on the number of threads
nor on the other rows of the batch.

One specialisation for each dtype serves all cells and losses, since all arrays are typed alike:
C-contiguous and writable. All is in one file, since Numba's cache knows an entry point is out of
date by its own file only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit, prange, types
from numba.extending import overload, register_jitable

from ..checks import Array

__all__ = [
    "CELL_CODES",
    "COLLECT",
    "LOSS_CODES",
    "PROJECT",
    "RECUR",
    "RECUR_BACK",
    "Gradients",
    "Layer",
    "Readout",
    "run_in_parallel",
    "run_serially",
]

LINEAR, TANH, RELU = range(3)
CELL_CODES = {"linear": LINEAR, "tanh": TANH, "relu": RELU}

SQUARED_ERROR, CROSS_ENTROPY = range(2)
LOSS_CODES = {"squared_error": SQUARED_ERROR, "cross_entropy": CROSS_ENTROPY}

# The stages of a call, in their order; `forward` ends with RECUR.
PROJECT, RECUR, RECUR_BACK, COLLECT = range(4)

# Columns of a packed panel: several vectors, so that their sums hide each other's latency.
PANEL = 32
# Rows (t, b) that are multiplied while they lie in the cache; also the length of a partial sum.
BLOCK = 64
# Offsets are unsigned because Numba tests signed ones for counting from the end.
_PANEL, _2_PANELS, _3_PANELS = np.uint64(PANEL), np.uint64(2 * PANEL), np.uint64(3 * PANEL)


class Layer(NamedTuple):
    """What the recurrence reads."""

    x: Array  # (T, B, I)
    state: Array  # (B, H)
    w_ih: Array  # (H, I)
    w_hh: Array  # (H, H)
    bias: Array  # (H,), b_ih + b_hh


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
    state: Array  # (B, H)
    w_ih: Array  # (I, H)
    w_hh: Array  # (H, H)
    bias: Array  # (H,)
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


# --- tanh ---------------------------------------------------------------------------------------


def tanh(a: Any) -> Any:
    """tanh of a float in code that vectorises; error below 3 ULP."""


def _make_tanh(real: Any, bits: Any, mantissa: int, bias: int, limit: float, ln2: Any) -> Any:
    """tanh |a| = -e / (1 + E) near zero, 1 - 2E / (1 + E) far from it; E = exp(-2|a|) = 1 + e.

    With -2|a| = n ln 2 + r, |r| <= ln(2) / 2, s = 2^n and p = expm1(r), a Taylor polynomial of
    degree 13: E = s + s p, e = (s - 1) + s p. n is rounded by adding a number so large that
    n + bias is left in the lowest bits; moved to the place of the exponent, these are 2^n.
    """
    magic, log2_e = real(1.5 * 2.0**mantissa + bias), real(1 / math.log(2))
    ln2_high, ln2_low = real(ln2[0]), real(ln2[1])  # n times the high part is exact
    one, two, minus_two, near, limit = real(1), real(2), real(-2), real(0.55), real(limit)
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = (
        real(1 / math.factorial(k)) for k in range(2, 14)
    )

    def implementation(a: Any) -> Any:
        size = abs(a)
        z = minus_two * (limit if size > limit else size)
        shifted = real(z * log2_e + magic)
        n = shifted - magic
        r = (z - n * ln2_high) - n * ln2_low
        tail = c9 + r * (c10 + r * (c11 + r * (c12 + r * c13)))
        tail = c4 + r * (c5 + r * (c6 + r * (c7 + r * (c8 + r * tail))))
        p = r + r * r * (c2 + r * (c3 + r * tail))
        s = bits(real(shifted).view(bits) << bits(mantissa)).view(real)
        e = (s - one) + s * p
        far = size > near  # not so for NaN, which comes through p
        quotient = ((s + s * p) * two if far else -e) / (two + e)
        return math.copysign(one - quotient if far else quotient, a)

    return register_jitable(implementation)


_TANH = {
    types.float32: _make_tanh(
        np.float32, np.int32, 23, 127, 9.1, (6.9313812256e-01, 9.0580006145e-06)
    ),
    types.float64: _make_tanh(
        np.float64, np.int64, 52, 1023, 19.1, (6.93147180369123816e-01, 1.90821492927058770e-10)
    ),
}


def _tanh_of(a: Any) -> Any:
    """The implementation for the Numba type `a`."""
    return _TANH.get(a)


overload(tanh, jit_options={"error_model": "numpy"})(_tanh_of)


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


@_called
def activate(cell: int, s: Array) -> None:
    """S = f(a), in place."""
    if cell == LINEAR:
        return
    zero = s.dtype.type(0)
    for row in range(s.shape[0]):
        s_row = s[row]
        if cell == TANH:
            for j in range(s_row.size):
                s_row[j] = tanh(s_row[j])
        else:
            for j in range(s_row.size):
                s_row[j] = zero if s_row[j] <= zero else s_row[j]


@_inlined
def project(part: int, parts: int, layer: Layer, y: Array) -> None:
    """y_t = W_x x_t + b_1, for a share of all rows (t, b)."""
    rows = y.shape[0] * y.shape[1]
    x, projected = layer.x.reshape(rows, layer.x.shape[2]), y.reshape(rows, y.shape[2])
    packed_ih = pack(transpose(layer.w_ih, np.int64(0), layer.w_ih.shape[1]))
    start, stop = share(part, parts, rows)
    for n in range(start, stop, BLOCK):
        m = min(n + BLOCK, stop)
        fill_rows(projected[n:m], layer.bias)
        add_product(x[n:m], packed_ih, projected[n:m])


@_inlined
def recur(part: int, parts: int, cell: int, layer: Layer, y: Array) -> None:
    """S_t = f(y_t + W_s S_{t-1}) in the place of y_t, for a share of the batch."""
    packed_hh = pack(transpose(layer.w_hh, np.int64(0), layer.w_hh.shape[1]))
    start, stop = share(part, parts, y.shape[1])
    for t in range(y.shape[0]):
        previous = y[t - 1, start:stop] if t > 0 else layer.state[start:stop]
        s = y[t, start:stop]
        add_product(previous, packed_hh, s)
        activate(cell, s)


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
        if readout.loss == SQUARED_ERROR:
            term = squared_error(o[row], readout.target[step, b])
        else:
            term = cross_entropy(o[row], readout.ids[step, b])
        weight = readout.weights[step, b]
        readout.terms[step, b] = term * weight
        for j in range(o.shape[1]):
            o[row, j] = o[row, j] * weight * readout.scale
    return o


# --- backward -----------------------------------------------------------------------------------


@_called
def chain(cell: int, s: Array, ds: Array) -> None:
    """da = f'(a) dS, written in S = f(a), in place."""
    if cell == LINEAR:
        return
    zero, one = s.dtype.type(0), s.dtype.type(1)
    for row in range(s.shape[0]):
        s_row, ds_row = s[row], ds[row]
        if cell == TANH:
            for j in range(s_row.size):
                ds_row[j] *= one - s_row[j] * s_row[j]
        else:
            for j in range(s_row.size):
                ds_row[j] = zero if s_row[j] <= zero else ds_row[j]


@_inlined
def recur_back(
    part: int,
    parts: int,
    cell: int,
    layer: Layer,
    y: Array,
    delta: Array,
    readout: Readout,
    d_state: Array,
) -> None:
    """da_t in the place of dy_t, which delta (T, B, H) holds, for a share of the batch."""
    packed_hh, packed_ho = pack(layer.w_hh), pack(readout.w_ho)
    packed_oh = pack(transpose(readout.w_ho, np.int64(0), readout.w_ho.shape[1]))
    start, stop = share(part, parts, y.shape[1])
    first_read = y.shape[0] - readout.d_o.shape[0]
    for t in range(y.shape[0] - 1, -1, -1):
        s, ds = y[t, start:stop], delta[t, start:stop]
        if t + 1 < y.shape[0]:
            add_product(delta[t + 1, start:stop], packed_hh, ds)
        if t >= first_read:
            add_product(read_out(readout, t - first_read, start, s, packed_oh), packed_ho, ds)
        chain(cell, s, ds)
    add_product(delta[0, start:stop], packed_hh, d_state[start:stop])


@_inlined
def input_gradient(part: int, parts: int, layer: Layer, delta: Array, dx: Array) -> None:
    """dx_t = W_x^T da_t, for a share of all rows (t, b)."""
    rows = dx.shape[0] * dx.shape[1]
    da, dx_rows = delta.reshape(rows, delta.shape[2]), dx.reshape(rows, dx.shape[2])
    packed_hi = pack(layer.w_ih)
    start, stop = share(part, parts, rows)
    for n in range(start, stop, BLOCK):
        m = min(n + BLOCK, stop)
        add_product(da[n:m], packed_hi, dx_rows[n:m])


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
    delta: Array,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """A share of every parameter's gradient, each entry summed over (t, b) in order."""
    batch, rows = y.shape[1], y.shape[0] * y.shape[1]
    x, s = layer.x.reshape(rows, layer.x.shape[2]), y.reshape(rows, y.shape[2])
    da = delta.reshape(rows, y.shape[2])
    accumulate(part, parts, x, da, gradients.w_ih)
    accumulate(part, parts, layer.state, da[:batch], gradients.w_hh)
    accumulate(part, parts, s[: rows - batch], da[batch:], gradients.w_hh)
    accumulate_bias(part, parts, da, gradients.bias)
    read = readout.d_o.shape[0] * batch
    d_o = readout.d_o.reshape(read, readout.d_o.shape[2])
    accumulate(part, parts, s[rows - read :], d_o, gradients.w_ho)
    accumulate_bias(part, parts, d_o, gradients.b_o)


# --- stages -------------------------------------------------------------------------------------


# Called, not inlined: in a prange, Numba takes writes to arrays of a tuple for dead code.
@_called
def run_part(
    stage: int,
    part: int,
    parts: int,
    cell: int,
    layer: Layer,
    y: Array,
    delta: Array,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """One part of one stage; it reads what all parts of the stages before it wrote."""
    if stage == PROJECT:
        project(part, parts, layer, y)
    elif stage == RECUR:
        recur(part, parts, cell, layer, y)
    elif stage == RECUR_BACK:
        recur_back(part, parts, cell, layer, y, delta, readout, gradients.state)
    else:
        input_gradient(part, parts, layer, delta, gradients.x)
        parameter_gradients(part, parts, layer, y, delta, readout, gradients)


@_entry_point(parallel=False)
def run_serially(
    first: int,
    last: int,
    cell: int,
    layer: Layer,
    y: Array,
    delta: Array,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """The stages from `first` to `last`."""
    part, parts = np.int64(0), np.int64(1)
    for stage in range(first, last + 1):
        run_part(stage, part, parts, cell, layer, y, delta, readout, gradients)


@_entry_point(parallel=True)
def run_in_parallel(
    parts: int,
    first: int,
    last: int,
    cell: int,
    layer: Layer,
    y: Array,
    delta: Array,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """`run_serially` in parts, one for each thread."""
    for stage in range(first, last + 1):
        for part in prange(parts):
            run_part(stage, np.int64(part), parts, cell, layer, y, delta, readout, gradients)
