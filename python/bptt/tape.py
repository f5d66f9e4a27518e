"""`forward` and the `Tape` that it records, which ``Tape.backward`` plays back."""

from __future__ import annotations

from types import TracebackType

import numpy as np

from . import checks
from .backends import Backend, resolve
from .backends.protocol import Forward, State
from .cells import Cell, get_cell
from .checks import Array
from .grads import Grads
from .outputs import check_grads, expect_writable
from .params import Params
from .threads import get_num_threads

__all__ = ["Tape", "block_nbytes", "forward", "read_inputs"]


class Tape:
    """The record of one forward pass: outputs, and what BPTT needs.

    A tape refers to the arrays it was made from (parameters, x, state) without copying them; do
    not change them in place before the last `backward` (assigning other arrays to the `Params`
    is harmless). `backward` may be called any number of times, until `release` or until another
    call is recorded into the tape. A tape is also a context manager that releases itself.
    """

    def __init__(
        self, cell: Cell, backend: Backend, params: Params, x: Array, state: State, record: Forward
    ) -> None:
        self._cell = cell
        self._backend = backend
        self._params = params.snapshot()
        self._x = x
        self._state = state
        self._record: Forward | None = record

    @property
    def y(self) -> Array:
        """(T, B, H), the hidden state S_t after every step."""
        return self._held().y

    @property
    def state(self) -> Array:
        """(B, H), the state after the last step (the initial state if T is 0)."""
        return self._held().state[0]

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self._cell.name

    @property
    def backend(self) -> str:
        """Name of the backend that ran the forward pass and will run `backward`."""
        return self._backend.name

    @property
    def nbytes(self) -> int:
        """Bytes held for `backward` beyond the caller's own arrays; 0 once released."""
        if self._record is None:
            return 0
        held = (self._record.y, *self._record.state, *self._record.saved)
        return sum(array.nbytes for array in held)

    def backward(
        self,
        dy: Array | None = None,
        dstate: Array | None = None,
        *,
        out: Grads | None = None,
        accumulate: bool = False,
    ) -> Grads:
        """Back-propagate through time.

        Parameters
        ----------
        dy : (T, B, H) array, optional
            Gradient of the loss with respect to `y`.
        dstate : (B, H) array, optional
            Gradient with respect to the final `state`; it adds to ``dy[-1]``.
            At least one of the two must be given.
        out : Grads, optional
            Written into and returned, in place of new arrays: those of an earlier call, or
            ``Grads.zeros(params, T, B)``. It holds an array for x, state and every parameter of
            the layer that is present, and None for the others; each is C-contiguous, writeable,
            of the tape's dtype and the shape of what it is the gradient of, and shares no memory
            with another, with an argument, or with what the tape holds. Its ``w_ho`` and ``b_o``
            are left as they are.
        accumulate : bool
            Add the gradients to what `out` holds, in all of these arrays.

        Returns
        -------
        Grads
            In the dtype of the parameters; ``w_ho`` and ``b_o`` are None. Or `out` if that was
            given, with its ``w_ho`` and ``b_o`` as they were: of a loss that reads no readout.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, among them an array of `out`; if
            both gradients are missing; or if `accumulate` is set without `out`. Nothing has been
            written then.
        RuntimeError
            If the tape was released.

        Notes
        -----
        With dS_t = dy_t + W_s^T da_{t+1} and da_t = f'(a_t) * dS_t: dW_x = sum_t da_t x_t^T,
        dW_s = sum_t da_t S_{t-1}^T, dx_t = W_x^T da_t (Werbos 1990, Proc. IEEE 78(10)).
        Ctrl-C during the call leaves `out` half written.
        """
        record = self._held()
        if dy is None and dstate is None:
            raise ValueError("dy, dstate: expected at least one of them, got None for both")
        like = ("the tape", self._x.dtype)
        if dy is not None:
            dy = checks.as_float_array("dy", dy, like)
            checks.expect_shape("dy", dy, record.y.shape, "tape.y")
            dy = checks.readable(dy)
        final: State | None = None
        if dstate is not None:
            dstate = checks.as_float_array("dstate", dstate, like)
            checks.expect_shape("dstate", dstate, record.state[0].shape, "tape.state")
            final = (checks.readable(dstate),)
        if out is not None or accumulate is not False:
            read = {
                "x": self._x,
                "state": self._state[0],
                "dy": dy,
                "dstate": dstate,
                "tape.y": record.y,
                "tape.state": record.state[0],
            }
            check_grads(out, accumulate, self._params, read, readout=False)
        # A packed copy of the weights; new gradients of x and the weights.
        weights = self._params.nbytes
        needed = weights + block_nbytes(self._params, self._x.shape[1])
        needed += self._x.nbytes + weights if out is None else 0
        checks.require_memory(needed, f"BPTT through {len(self._x)} steps")
        return self._backend.backward(
            self._cell,
            self._params,
            self._x,
            self._state,
            record,
            dy,
            final,
            out,
            bool(accumulate),
        )

    def release(self) -> None:
        """Let go of everything that is held; `backward` and `y` raise RuntimeError from now on."""
        self._record = None

    def _record_again(self, params: Params, x: Array, state: State) -> Tape:
        """Record a pass over `x` into the arrays of the last one; all of it is checked."""
        into = self._held()
        self._record = None  # until it is whole again: a pass that ends early leaves neither
        self._params, self._x, self._state = params.snapshot(), x, state
        self._record = self._backend.forward(self._cell, params, x, state, into)
        return self

    def _held(self) -> Forward:
        if self._record is None:
            raise RuntimeError("the tape was released; call bptt.forward again")
        return self._record

    def __enter__(self) -> Tape:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        if self._record is None:
            return f"Tape({self.cell!r}, released)"
        shape = self._record.y.shape
        return f"Tape({self.cell!r}, y={shape}, backend={self.backend!r}, nbytes={self.nbytes})"


def forward(
    cell: str,
    params: Params,
    x: Array,
    state: Array | None = None,
    *,
    backend: str = "auto",
    out: Tape | None = None,
) -> Tape:
    """Run a recurrent layer over a batch of sequences and record what BPTT needs.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu"}
        S_t = f(W_x x_t + b_ih + W_s S_{t-1} + b_hh), with f the identity, tanh or max(0, .).
    params : Params
        A readout in it is ignored here.
    x : (T, B, I) array
        Time-major input, in the dtype of `params`.
    state : (B, H) array, optional
        The initial state S_0; zeros if not given.
    backend : {"auto", "native", "numba", "numpy"}
        "auto" takes the first available one that knows the dtype; see `bptt.backends`.
    out : Tape, optional
        Recorded into and returned, in place of a new one: a tape of the same cell, backend, dtype
        and (T, B, H). What its ``y`` and ``state`` held is overwritten. `state` may be its final
        ``state`` or a part of its ``y``, which is then copied; `x` and `params` may not share
        memory with it.

    Returns
    -------
    Tape
        With ``y``, the final ``state``, and ``backward``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value; `out` is then as it was.
    RuntimeError, ImportError
        If the backend is not available here; RuntimeError if `out` was released.
    MemoryError
        If the result does not fit the memory; nothing has been touched then.

    Notes
    -----
    A pass that is stopped half way (by Ctrl-C, or for lack of memory) leaves `out` released.
    """
    kind = get_cell(cell)
    params, x, initial = read_inputs(kind, params, x, state)
    chosen = resolve(backend, kind, x.dtype)
    if out is not None:
        initial = _check_tape(out, kind, chosen, params, x, initial)
        return out._record_again(params, x, initial)
    checks.require_memory(_forward_nbytes(params, x), f"the tape of {x.shape[0]} steps")
    return Tape(kind, chosen, params, x, initial, chosen.forward(kind, params, x, initial))


def _check_tape(
    out: object, cell: Cell, backend: Backend, params: Params, x: Array, state: State
) -> State:
    """Check that a pass over `x` can be recorded into `out`; return its state, apart from it."""
    if not isinstance(out, Tape):
        raise TypeError(f"out: expected bptt.Tape, got {type(out).__name__}")
    if out._record is None:
        raise RuntimeError("out: expected a tape that holds its arrays, got a released one")
    for what, wanted, got in (
        ("cell", cell.name, out.cell),
        ("backend", backend.name, out.backend),
    ):
        if wanted != got:
            raise ValueError(f"out: expected a tape of {what} {wanted!r}, got one of {got!r}")
    y, last = out.y, out.state
    if y.dtype != x.dtype:
        raise TypeError(f"out: expected a tape of dtype {x.dtype} like x, got {y.dtype}")
    checks.expect_shape("out", y, (*x.shape[:2], params.hidden_size), "x and w_hh")
    expect_writable("out.y", y, y, "the tape")
    expect_writable("out.state", last, last, "the tape")
    for name, array in (("x", x), *params.arrays().items()):
        if np.may_share_memory(array, y) or np.may_share_memory(array, last):
            raise ValueError(f"{name}: expected memory apart from out, got a part of it; copy it")
    return tuple(
        s.copy() if np.may_share_memory(s, y) or np.may_share_memory(s, last) else s for s in state
    )


def read_inputs(
    cell: Cell, params: object, x: object, state: object
) -> tuple[Params, Array, State]:
    """Check what every pass takes: parameters, x (T, B, I), and the state (B, H) or None."""
    if not isinstance(params, Params):
        raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}")
    params = params.readable_for(cell)
    like = ("w_hh", params.dtype)
    array = checks.as_float_array("x", x, like)
    checks.expect_shape(
        "x", array, ("T", "B", params.input_size), lambda: f"w_ih of shape {params.w_ih.shape}"
    )
    shape = (array.shape[1], params.hidden_size)
    if state is None:
        checks.require_memory(shape[0] * shape[1] * array.itemsize, "the initial state")
        return params, checks.readable(array), (np.zeros(shape, params.dtype),)
    initial = checks.as_float_array("state", state, like)
    checks.expect_shape("state", initial, shape, "x and w_hh")
    return params, checks.readable(array), (checks.readable(initial),)


def block_nbytes(params: Params, batch: int) -> int:
    """Bytes that blocks of time take in the backward pass, at most about: inputs, states, gradients
    of states and pre-activations, and outputs, most of them for two blocks, and sums of slices of
    the batch. `plan` tells exactly what the native backend takes."""
    width = 2 * params.input_size + 8 * params.hidden_size + 3 * (params.output_size or 0)
    rows = max(batch, 1024 * get_num_threads())
    return int(rows * width * params.dtype.itemsize) + (16 << 20)


def _forward_nbytes(params: Params, x: Array) -> int:
    """Bytes of y, the states and the packed weights of a pass over `x`."""
    steps, batch, _ = x.shape
    return int((steps + 2) * batch * params.hidden_size * x.itemsize) + params.nbytes
