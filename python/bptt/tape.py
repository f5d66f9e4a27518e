"""`Tape`: the record of a forward pass, which ``Tape.backward`` plays back."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from . import checks, memory
from .backends import Backend
from .backends.protocol import ALL, Incoming, Layer, Record, Request, State
from .cells import Cell
from .checks import Array
from .grads import Grads
from .holdings import backward_nbytes, jvp_nbytes
from .inputs import initial_state
from .linearized import linearize, sums_of_tangents
from .outputs import check_grads, expect_writable
from .params import PARAM_NAMES, Params
from .recorded import Recorded
from .states import GivenState, as_given, by_part, read_state
from .truncation import read_truncation, truncated_backward

__all__ = ["Tape", "record_into"]


class Tape:
    """The record of one forward pass: outputs, and what BPTT needs.

    A tape refers to the arrays it was made from (parameters, x, state) without copying them; do
    not change them in place before the last `backward` (assigning other arrays to the `Params`
    is harmless). `backward` may be called any number of times, until `release` or until another
    call is recorded into the tape. A tape is also a context manager that releases itself.
    """

    def __init__(self, backend: Backend, save: str, layer: Layer, record: Record) -> None:
        self._backend = backend
        self._save = save
        self._layer = layer
        self._record: Record | None = record

    @property
    def y(self) -> Array:
        """(T, B, H), the hidden state S_t after every step."""
        return self._held().y

    @property
    def c(self) -> Array:
        """(T, B, H), the memory c_t of an LSTM after every step.

        Raises
        ------
        AttributeError
            If the cell has none.
        """
        if len(self._layer.cell.states) < 2:
            raise AttributeError(f"cell {self.cell!r} has no memory c beside y")
        return self._held().history[1]

    @property
    def state(self) -> GivenState:
        """(B, H), the state after the last step (the initial state if T is 0); of an LSTM the pair
        (h, c) of such arrays."""
        return as_given(self._held().state)

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self._layer.cell.name

    @property
    def save(self) -> str:
        """What `forward` was asked to save: "gates" or "minimal"."""
        return self._save

    @property
    def backend(self) -> str:
        """Name of the backend that ran the forward pass and will run `backward`."""
        return self._backend.name

    @property
    def nbytes(self) -> int:
        """Bytes held for `backward` beyond the caller's own arrays; 0 once released."""
        if self._record is None:
            return 0
        held = (*self._record.history, *self._record.state, *self._record.saved)
        return sum(array.nbytes for array in held)

    def backward(
        self,
        dy: Array | None = None,
        dstate: GivenState | None = None,
        *,
        dc: Array | None = None,
        out: Grads | None = None,
        accumulate: bool = False,
        truncate: int | None = None,
        detach_every: int | None = None,
    ) -> Grads:
        """Back-propagate through time.

        Parameters
        ----------
        dy : (T, B, H) array, optional
            Gradient of the loss with respect to `y`.
        dstate : (B, H) array, or pair of them, optional
            Gradient with respect to the final `state`, shaped like that; it adds to ``dy[-1]``
            (and ``dc[-1]``).
        dc : (T, B, H) array, optional
            Gradient with respect to `c`, where the cell has it.
            At least one of the three must be given.
        out : Grads, optional
            Written into and returned, in place of new arrays: the result of an earlier call, or
            ``Grads.zeros(params, T, B, cell=cell)``. It must have an array for x, each part of the
            state and each parameter of the layer that is present, and None for those that are not.
            Each array must be C-contiguous and writeable, have the tape's dtype and the shape of
            what it is the gradient of, and share no memory with another of them, with an argument
            or with the tape. Its ``w_ho`` and ``b_o`` are not touched.
        accumulate : bool
            Add the gradients to what `out` holds, in all of these arrays.
        truncate : int, optional
            K, at least 0: the gradient that comes in at a step (from `dy`, `dc` or `dstate`)
            reaches that step and the K steps before it, and none further back. S_0 enters at the
            first step, as x_0 does.
        detach_every : int, optional
            K, at least 1: cut time into segments of K steps (0 to K - 1, K to 2 K - 1, ...) and let
            no gradient pass from one segment into the one before. Not together with `truncate`;
            docs/truncation.md compares the two.

        Returns
        -------
        Grads
            In the dtype of the parameters; ``w_ho`` and ``b_o`` are None, since a tape has no
            readout. Or `out` if that was given.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, among them an array of `out`; if
            all gradients are missing; if `dc` is given for a cell without c; or if `accumulate` is
            set without `out`. Nothing has been written then.
        RuntimeError
            If the tape was released.

        Notes
        -----
        With dS_t = dy_t + W_s^T da_{t+1} and da_t = f'(a_t) * dS_t: dW_x = sum_t da_t x_t^T,
        dW_s = sum_t da_t S_{t-1}^T, dx_t = W_x^T da_t (Werbos 1990, Proc. IEEE 78(10)); gated
        cells: docs/math.md.
        Ctrl-C during the call leaves `out` partly written.
        """
        record, layer = self._held(), self._layer
        cut = read_truncation(truncate, detach_every)
        if dy is None and dstate is None and dc is None:
            one = len(layer.cell.states) == 1
            names, none = ("dy, dstate", "both") if one else ("dy, dstate, dc", "all")
            raise ValueError(f"{names}: expected at least one of them, got None for {none}")
        if dc is not None and len(layer.cell.states) < 2:
            raise ValueError(f"dc: cell {self.cell!r} has no memory c, got an array")
        like = ("the tape", layer.x.dtype)
        dhistory = (self._read_history("dy", dy, 0, like), self._read_history("dc", dc, 1, like))
        final: State | None = None
        if dstate is not None:
            shape = (layer.x.shape[1], layer.params.hidden_size)
            final = read_state("dstate", dstate, layer.cell, shape, like, "tape.state")
        if out is not None or accumulate is not False:
            read = {
                "x": layer.x,
                **by_part("state", layer.state),
                "dy": dhistory[0],
                "dc": dhistory[1],
                **by_part("dstate", final or ()),
                **dict(zip(("tape.y", "tape.c"), record.history, strict=False)),
                **by_part("tape.state", record.state),
            }
            check_grads(out, accumulate, layer.params, layer.state, read, readout=False)
        steps, batch, _ = layer.x.shape
        needed = backward_nbytes(
            layer.cell,
            layer.params,
            steps,
            batch,
            self._save,
            self._backend.beside(layer.cell, self._save),
            out=out is not None,
            histories=0 if cut is None else cut.histories,
        )
        memory.require_memory(needed, f"BPTT through {steps} steps")
        incoming = Incoming(dhistory[: len(record.history)], final)
        request = ALL if out is None else Request(out, bool(accumulate))
        if cut is not None and cut.cuts(steps, batch):
            recorded = Recorded(self._backend, layer, record)
            return truncated_backward(cut, recorded, incoming, request)
        return self._backend.backward(layer, record, incoming, request)

    def jvp(
        self,
        dx: Array | None = None,
        dstate: GivenState | None = None,
        *,
        dparams: Mapping[str, Array] | None = None,
    ) -> tuple[Array, GivenState]:
        """Forward-mode derivative: how the outputs change, to first order, with the inputs.

        Parameters
        ----------
        dx : (T, B, I) array, optional
            The change of x.
        dstate : (B, H) array, or pair of them, optional
            The change of the initial state, shaped like it.
        dparams : mapping of str to array, optional
            The changes of parameters, by name: ``{"w_hh": ...}``, or all of them as
            ``Grads.arrays`` and ``Params.arrays`` return them. Those of a readout are ignored.
            At least one of the three must be given.

        Returns
        -------
        dy : (T, B, H) array
            The change of `y`.
        dstate : (B, H) array, or pair of them
            The change of the final `state`.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, if `dparams` has a name that is none
            of a parameter or that of one that is None, or if all three are missing.
        MemoryError
            If the derivatives of all steps do not fit the memory.
        RuntimeError
            If the tape was released.

        Notes
        -----
        ``da_t = W_x dx_t + W_s dS_{t-1} + dW_x x_t + dW_s S_{t-1} + db``, and from da_t and
        dS_{t-1} the cell's pointwise derivative gives dS_t. It is the adjoint of `backward`:
        ``<dy, jvp(dx)> = <backward(dy).x, dx>``.
        """
        record, layer, params = self._held(), self._layer, self._layer.params
        if dx is None and dstate is None and dparams is None:
            raise ValueError("dx, dstate, dparams: expected at least one of them, got None for all")
        like = ("the tape", layer.x.dtype)
        steps, batch, _ = layer.x.shape
        if dx is not None:
            dx = checks.as_float_array("dx", dx, like)
            checks.expect_shape("dx", dx, layer.x.shape, "x")
            dx = checks.readable(dx)
        tangent = tuple(map(np.zeros_like, layer.state))
        if dstate is not None:
            shape = (batch, params.hidden_size)
            tangent = read_state("dstate", dstate, layer.cell, shape, like, "the initial state")
        changes = self._read_dparams(dparams, like)
        beside = self._backend.beside(layer.cell, "gates")
        needed = jvp_nbytes(layer.cell, params, steps, batch, self._save, beside)
        memory.require_memory(needed, f"the derivatives of {steps} steps")
        recorded = Recorded(
            self._backend,
            layer,
            record if self._save == "gates" else None,  # None: once more, with the gates
        )
        dsums = sums_of_tangents(recorded, dx, changes)
        passed = linearize(recorded)
        dy, last = passed.forward(tangent, dsums)
        return dy, as_given(last)

    def _read_dparams(
        self, dparams: Mapping[str, Array] | None, like: tuple[str, np.dtype[Any]]
    ) -> dict[str, Array]:
        """The tangents of the layer's parameters, checked."""
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
            of = getattr(self._layer.params, name)
            if of is None:
                raise ValueError(f"dparams: the tape has no {name}, got an array for it")
            array = checks.as_float_array(f"dparams[{name!r}]", value, like)
            checks.expect_shape(f"dparams[{name!r}]", array, of.shape, name)
            read[name] = checks.readable(array)
        return read

    def _read_history(
        self, name: str, value: Array | None, part: int, like: tuple[str, np.dtype[Any]]
    ) -> Array | None:
        """`value` as the readable gradient of all steps of one part of the state."""
        if value is None:
            return None
        array = checks.as_float_array(name, value, like)
        of = self._held().history[part]
        checks.expect_shape(name, array, of.shape, f"tape.{'yc'[part]}")
        return checks.readable(array)

    def release(self) -> None:
        """Let go of everything that is held; `backward` and `y` raise RuntimeError from now on."""
        self._record = None

    def _record_again(self, layer: Layer) -> Tape:
        """Record a pass into the arrays of the last one; all of it is checked."""
        into = self._held()
        self._record = None  # until it is whole again: a pass that ends early leaves neither
        self._layer = layer
        self._record = self._backend.forward(self._layer, self._save, into)
        return self

    def _held(self) -> Record:
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


def record_into(
    out: object,
    backend: Backend,
    save: str,
    cell: Cell,
    params: Params,
    x: Array,
    given: State | None,
) -> Tape:
    """Run a pass into the arrays of `out`, a tape of the same sizes, and return that.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If it cannot be recorded there; `out` is then as it was.
    """
    if not isinstance(out, Tape):
        raise TypeError(f"out: expected bptt.Tape, got {type(out).__name__}")
    if out._record is None:
        raise RuntimeError("out: expected a tape that holds its arrays, got a released one")
    for what, wanted, got in (
        ("cell", cell.name, out.cell),
        ("backend", backend.name, out.backend),
        ("save", save, out.save),
    ):
        if wanted != got:
            raise ValueError(f"out: expected a tape of {what} {wanted!r}, got one of {got!r}")
    y, record = out.y, out._record
    if y.dtype != x.dtype:
        raise TypeError(f"out: expected a tape of dtype {x.dtype} like x, got {y.dtype}")
    checks.expect_shape("out", y, (*x.shape[:2], params.hidden_size), "x and w_hh")
    held = {
        **dict(zip(("out.y", "out.c"), record.history, strict=False)),
        **by_part("out.state", record.state),
    }
    for name, array in held.items():
        expect_writable(name, array, array, "the tape")
    for name, array in (("x", x), *params.arrays().items()):
        if any(np.may_share_memory(array, own) for own in held.values()):
            raise ValueError(f"{name}: expected memory apart from out, got a part of it; copy it")
    state = tuple(  # that of `out` is read before it is written
        s.copy() if any(np.may_share_memory(s, own) for own in held.values()) else s
        for s in initial_state(cell, params, x.shape[1], given)
    )
    return out._record_again(Layer(cell, params.snapshot(), x, state))
