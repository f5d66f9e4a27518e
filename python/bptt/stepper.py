"""`Stepper`: a layer that is fed a step or a block of steps at a time and keeps its state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import checks, memory
from .backends import Backend, resolve
from .backends.protocol import Layer, State, Stepping
from .cells import Cell, get_cell
from .checks import Array
from .holdings import stepper_nbytes
from .inputs import initial_state
from .outputs import expect_writable
from .params import PARAM_NAMES, Params
from .stack import is_stack
from .states import GivenState, as_given, read_state
from .stream import stream

__all__ = ["Stepper"]


class Stepper:
    """A recurrent layer for data that come step by step: forward only, its state kept inside.

    Each call goes on where the last one ended, and gives the bits that `forward` gives for the
    whole sequence, however it is cut into calls. The weights are copied when the stepper is made,
    as its kernels read them: what is changed in the arrays of `params` afterwards is not seen.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
    params : Params
        A readout in it is ignored: calls return the hidden state.
    batch : int
        B, the number of sequences that go side by side; 0 is allowed.
    state : (B, H) array, or pair of them, optional
        Where they begin, of an LSTM (h_0, c_0); zeros if not given.
    backend : {"auto", "native", "numba", "numpy"}

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.
    RuntimeError, ImportError
        If the backend is not available here.

    Notes
    -----
    A stepper belongs to one thread at a time: a call during another call of it, from another thread
    or a signal handler, raises RuntimeError and changes nothing. It is neither copied nor pickled:
    another one is made of `params` and its `state`. Whether subnormal numbers are flushed
    (`bptt.set_flush_subnormals`) counts, for the ``native`` backend, as it is when the stepper is
    made; the number of threads as it is at each call.

    Examples
    --------
    >>> import bptt, numpy as np
    >>> params = bptt.init_params("lstm", input_size=3, hidden_size=8, rng=0)
    >>> x = np.ones((20, 1, 3), np.float32)
    >>> stepper = bptt.Stepper("lstm", params)
    >>> first = stepper(x[0])  # a step: (B, I) to (B, H)
    >>> rest = stepper(x[1:])  # a block of steps: (T, B, I) to (T, B, H)
    >>> y = bptt.forward("lstm", params, x).y
    >>> bool(np.all(first == y[0]) and np.all(rest == y[1:]))
    True
    """

    def __init__(
        self,
        cell: str | Cell,
        params: Params,
        batch: int = 1,
        *,
        state: GivenState | None = None,
        backend: str = "auto",
    ) -> None:
        kind = get_cell(cell)
        if not isinstance(params, Params):
            hint = "; this call takes one layer, no stack" if is_stack(params) else ""
            raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}{hint}")
        params = params.readable_for(kind)
        self._cell, self._batch = kind, checks.size("batch", batch, least=0)
        self._input_size, self._hidden_size = params.input_size, params.hidden_size
        self._dtype = params.dtype
        chosen = resolve(backend, kind, self.dtype)
        given = None
        if state is not None:
            shape, like = (self._batch, self._hidden_size), ("w_hh", self._dtype)
            given = read_state("state", state, kind, shape, like, "batch and w_hh")
        needed = stepper_nbytes(kind, params, self._batch)
        memory.require_memory(needed, f"a stepper of {self._batch} rows")
        initial = initial_state(kind, params, self._batch, given)
        x = np.empty((0, self._batch, self._input_size), self._dtype)
        layer = Layer(kind, params, x, initial)
        self._stepping: Stepping = chosen.stepping(layer) or _Repeated(chosen, layer)
        self._backend = chosen.name

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self._cell.name

    @property
    def batch(self) -> int:
        """B, the number of sequences."""
        return self._batch

    @property
    def input_size(self) -> int:
        """I."""
        return self._input_size

    @property
    def hidden_size(self) -> int:
        """H."""
        return self._hidden_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the parameters, of x and of y."""
        return self._dtype

    @property
    def backend(self) -> str:
        """Name of the backend that computes the steps."""
        return self._backend

    @property
    def nbytes(self) -> int:
        """Bytes held: the copy of the weights, the state, and memory for a step."""
        return self._stepping.nbytes

    @property
    def state(self) -> GivenState:
        """(B, H), the state after the last step, or of an LSTM the pair (h, c); always a copy.

        What is assigned to it is copied too, as by ``reset(state=...)``.
        """
        return as_given(self._stepping.state())

    @state.setter
    def state(self, state: GivenState) -> None:
        if state is None:  # not zeros by accident
            raise TypeError("state: expected arrays, got NoneType; reset() sets it to zero")
        self.reset(state=state)

    def __call__(self, x: Array, *, out: Array | None = None) -> Array:
        """The hidden state after the next step, or after each of the next steps.

        Parameters
        ----------
        x : (B, I) array, or (T, B, I) array
            The input of one step, or of a block of T steps; T may be 0.
        out : (B, H) array, or (T, B, H) array, optional
            Written into and returned, in place of a new array: then a step allocates nothing. It
            must be C-contiguous and writeable, have the dtype of `params`, and share no memory with
            `x`.

        Returns
        -------
        (B, H) array, or (T, B, H) array
            ``y``, as `forward` has it.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape. A step of one sequence is (1, I) as
            well. Nothing has been written then, and the state is what it was.
        MemoryError
            If the result does not fit the memory; nothing has been touched then.
        RuntimeError
            If another call of this stepper is running.

        Notes
        -----
        If the call does not end (Ctrl-C during a long block), the state is that before it, or that
        after it if all steps were done; `out` may be partly written.
        """
        y = self._stepping.try_run(x, out)
        return self._checked(x, out) if y is None else y

    def _checked(self, x: object, out: object) -> Array:
        """A call whose arguments have to be converted, or named in an error."""
        array = checks.as_float_array("x", x, ("w_hh", self.dtype))
        step = (self.batch, self.input_size)
        if array.ndim not in (2, 3) or array.shape[-2:] != step:
            raise ValueError(
                f"x: expected shape {step} of a step or (T, {step[0]}, {step[1]}) of a block, "
                f"got {array.shape}"
            )
        shape = (*array.shape[:-1], self.hidden_size)
        if out is None:
            nbytes = int(np.prod(shape)) * self.dtype.itemsize
            memory.require_memory(nbytes, f"y of shape {shape}")
            return self._stepping.run(checks.readable(array), np.empty(shape, self.dtype))
        like = np.broadcast_to(np.zeros((), self.dtype), shape)  # of no size
        y = expect_writable("out", out, like, "x and w_hh")
        if np.may_share_memory(y, array):
            raise ValueError("out: expected memory of its own, got memory shared with x")
        return self._stepping.run(checks.readable(array), y)

    def reset(self, rows: Any = None, state: GivenState | None = None) -> None:
        """Let some sequences begin anew, while the others go on.

        Parameters
        ----------
        rows : int, sequence of ints, or (B,) array of bools, optional
            The rows of the batch: numbers, of which negative ones count from the end, or a mask.
            The dtype decides which: only bools are a mask, so one of integers has to be converted
            (``mask.astype(bool)``). No row may be named twice. All rows if not given.
        state : (R, H) array, or pair of them, optional
            Their new state, one row for each of `rows` (R = 1 for an int). Zeros if not given, also
            where the stepper was made with another state.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype, shape or value; the state is what it was.
        RuntimeError
            If another call of this stepper is running.
        """
        index = self._read_rows(rows)
        parts = None
        if state is not None:
            shape, like = (len(index), self.hidden_size), ("w_hh", self.dtype)
            why = "batch and w_hh" if rows is None else "rows and w_hh"
            parts = read_state("state", state, self._cell, shape, like, why)
        self._stepping.assign(index, parts)

    def _read_rows(self, rows: object) -> Array:
        """Numbers of rows, each from 0 to B - 1."""
        if rows is None:
            return np.arange(self.batch)
        wanted = f"rows: expected an int, ints or a mask of shape ({self.batch},)"
        if isinstance(rows, (bool, np.bool_, str)):
            raise TypeError(f"{wanted}, got {type(rows).__name__}")
        try:
            array = np.asarray(rows)
        except ValueError:  # a ragged list
            raise TypeError(f"{wanted}, got {type(rows).__name__}") from None
        if array.dtype == bool:
            checks.expect_shape("rows", array, (self.batch,), "batch")
            return np.flatnonzero(array)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"{wanted}, got dtype {array.dtype}")
        if array.ndim > 1:
            raise ValueError(f"{wanted}, got shape {array.shape}")
        wrong = (array < -self.batch) | (array >= self.batch) if array.size else array
        if np.any(wrong):
            raise ValueError(
                f"rows: expected ints from {-self.batch} to {self.batch - 1}, "
                f"got {int(array[wrong][0])}"
            )
        index = array.reshape(-1).astype(np.int64)
        index = np.where(index < 0, index + self.batch, index)
        if len(twice := np.flatnonzero(np.bincount(index) > 1)):  # as in a mask of integers
            raise ValueError(
                f"rows: expected each row once, got row {twice[0]} more than once; a mask has bools"
            )
        return index

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Stepper cannot be copied or pickled: make another one, "
            "Stepper(cell, params, batch, state=stepper.state)"
        )

    def __repr__(self) -> str:
        sizes = f"batch={self.batch}, input_size={self.input_size}, hidden_size={self.hidden_size}"
        return f"Stepper({self.cell!r}, {sizes}, backend={self.backend!r}, nbytes={self.nbytes})"


class _Repeated:
    """The steps of a backend that has no kernel for them: passes of `forward`, one by one."""

    def __init__(self, backend: Backend, layer: Layer) -> None:
        self._backend = backend
        arrays = layer.params.arrays()
        own = {name: arrays[name].copy() for name in PARAM_NAMES[:4] if name in arrays}
        self._cell, self._params = layer.cell, Params(**own)
        self._state = tuple(s.copy() for s in layer.state)
        self._taken = threading.Lock()

    @property
    def nbytes(self) -> int:
        held = (*self._params.arrays().values(), *self._state)
        return sum(int(array.nbytes) for array in held)

    def try_run(self, x: object, out: object) -> Array | None:
        return None

    def run(self, x: Array, y: Array) -> Array:
        steps, into = (x[None], y[None]) if x.ndim == 2 else (x, y)
        with self._turn():
            state = self._state
            layer = Layer(self._cell, self._params, steps, state)
            for place, some, after in stream(self._backend, layer):
                into[place] = some
                state = after
            self._state = state
        return y

    def state(self) -> State:
        with self._turn():
            return tuple(s.copy() for s in self._state)

    def assign(self, rows: Array, state: State | None) -> None:
        with self._turn():
            changed = tuple(s.copy() for s in self._state)
            for part, s in enumerate(changed):
                s[rows] = 0 if state is None else state[part]
            self._state = changed  # all parts at once, if Ctrl-C comes in between

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The right of one call to use the state."""
        if not self._taken.acquire(blocking=False):
            raise RuntimeError(
                "Stepper: another call of it is running; each thread needs a stepper of its own"
            )
        try:
            yield
        finally:
            self._taken.release()
