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
from .params import Params

__all__ = ["Tape", "block_nbytes", "forward", "read_inputs"]


class Tape:
    """The record of one forward pass: outputs, and what BPTT needs.

    A tape refers to the arrays it was made from (parameters, x, state) without copying them; do
    not change them in place before the last `backward` (assigning other arrays to the `Params`
    is harmless). `backward` may be called any number of
    times, until `release`. A tape is also a context manager that releases itself.
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

    def backward(self, dy: Array | None = None, dstate: Array | None = None) -> Grads:
        """Back-propagate through time.

        Parameters
        ----------
        dy : (T, B, H) array, optional
            Gradient of the loss with respect to `y`.
        dstate : (B, H) array, optional
            Gradient with respect to the final `state`; it adds to ``dy[-1]``.
            At least one of the two must be given.

        Returns
        -------
        Grads
            In the dtype of the parameters; ``w_ho`` and ``b_o`` are None.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, or both are missing.
        RuntimeError
            If the tape was released.

        Notes
        -----
        With dS_t = dy_t + W_s^T da_{t+1} and da_t = f'(a_t) * dS_t: dW_x = sum_t da_t x_t^T,
        dW_s = sum_t da_t S_{t-1}^T, dx_t = W_x^T da_t (Werbos 1990, Proc. IEEE 78(10)).
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
        # x's gradient, the weights' gradients and a packed copy of the weights.
        needed = self._x.nbytes + 2 * self._params.nbytes
        needed += block_nbytes(self._params, self._x.shape[1])
        checks.require_memory(needed, f"BPTT through {len(self._x)} steps")
        return self._backend.backward(
            self._cell, self._params, self._x, self._state, record, dy, final
        )

    def release(self) -> None:
        """Let go of everything that is held; `backward` and `y` raise RuntimeError from now on."""
        self._record = None

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
    cell: str, params: Params, x: Array, state: Array | None = None, *, backend: str = "auto"
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

    Returns
    -------
    Tape
        With ``y``, the final ``state``, and ``backward``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.
    RuntimeError, ImportError
        If the backend is not available here.
    MemoryError
        If the result does not fit the memory; nothing has been touched then.
    """
    kind = get_cell(cell)
    params, x, initial = read_inputs(kind, params, x, state)
    chosen = resolve(backend, kind, x.dtype)
    checks.require_memory(_forward_nbytes(params, x), f"the tape of {x.shape[0]} steps")
    return Tape(kind, chosen, params, x, initial, chosen.forward(kind, params, x, initial))


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
    """Bytes that one block of time takes in the backward pass, about: its inputs, states,
    gradients of states and pre-activations, and outputs."""
    width = params.input_size + 4 * params.hidden_size + 2 * (params.output_size or 0)
    return int(max(batch, 256) * width * params.dtype.itemsize)


def _forward_nbytes(params: Params, x: Array) -> int:
    """Bytes of y, the states and the packed weights of a pass over `x`."""
    steps, batch, _ = x.shape
    return int((steps + 2) * batch * params.hidden_size * x.itemsize) + params.nbytes
