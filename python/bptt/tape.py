"""`Tape`: the record of a forward pass, which ``Tape.backward`` plays back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import checks, memory
from .backends import Backend
from .backends.protocol import ALL, Incoming, Layer, Record, Request, State
from .checkpoints import Checkpoints
from .checks import Array
from .grads import EVERYTHING, Grads
from .holdings import backward_nbytes, is_small, jvp_nbytes, moved_nbytes
from .linearized import linearize, read_dparams, sums_of_tangents
from .outputs import check_grads, from_layer, into_layer
from .recorded import Recorded
from .releasing import Releasing
from .row_map import RowMap
from .states import GivenState, as_given, by_part, read_state
from .truncation import read_truncation, truncated_backward
from .wanted import Wanted, read_per_row, read_wanted

__all__ = ["Tape"]


class Tape(Releasing):
    """The record of one forward pass: outputs, and what BPTT needs.

    A tape refers to the arrays it was made from (parameters, x, state) without copying them; do
    not change them in place before the last `backward` (assigning other arrays to the `Params`
    is harmless). `backward` may be called any number of times, until `release` or until another
    call is recorded into the tape. A tape is also a context manager that releases itself.
    """

    def __init__(
        self,
        backend: Backend,
        save: str,
        layer: Layer,
        record: Record,
        rows: RowMap,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._backend = backend
        self._save = save
        self._layer = layer
        self._record: Record | None = record
        self._rows = rows
        self._checkpoints = checkpoints  # of a pass of which y alone is kept
        self._shown: dict[int, Array] = {}  # y and c as the caller has rows, once there
        self._take_shown()

    @property
    def y(self) -> Array:
        """(T, B, H), the hidden state S_t after every step; its rows are those of x."""
        return self._history(0)

    @property
    def c(self) -> Array:
        """(T, B, H), the memory c_t of an LSTM after every step; its rows are those of x.

        Raises
        ------
        AttributeError
            If the cell has none, or a budget kept y alone.
        """
        if len(self._layer.cell.states) < 2:
            raise AttributeError(f"cell {self.cell!r} has no memory c beside y")
        if self._checkpoints is not None:
            raise AttributeError("c: a tape under memory_limit or checkpoint_every keeps y alone")
        return self._history(1)

    def _history(self, part: int) -> Array:
        """All states of one part in the caller's rows."""
        states = self._held().history[part]
        if self._rows.same_rows:
            return states
        if part not in self._shown:
            self._shown[part] = self._rows.scatter(states)
        return self._shown[part]

    @property
    def state(self) -> GivenState:
        """(B, H), the state after the last step of each sequence (the initial state if it has
        none); of an LSTM the pair (h, c) of such arrays."""
        return as_given(self._rows.scatter_state(self._held().state))

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
        held = [*self._record.history, *self._record.state, *self._record.saved]
        held += self._shown.values()
        if not self._rows.same_rows and self._layer.places is None:
            held.append(self._layer.x)
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
        wanted: Wanted = None,
        per_row: str | None = None,
    ) -> Grads:
        """Back-propagate through time.

        Parameters
        ----------
        dy : (T, B, H) array, optional
            Gradient of the loss with respect to `y`, shaped like that. What it holds beyond the
            length of a sequence is not read.
        dstate : (B, H) array, or pair of them, optional
            Gradient with respect to the final `state`, shaped like that; it adds to ``dy`` (and
            ``dc``) of the last step that each sequence runs through. Of a pair one may be None.
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
            docs/truncation.md compares the two. Either goes with sequences of one length, without
            resets.
        wanted : str or tuple of str, optional
            The gradients to compute, by their names in `Grads`, or "params" for those of all
            parameters; all by default. Others are None in the result, take neither time nor memory
            (the backend numba computes most of them all the same), and are not touched in `out`,
            where they may be None.
        per_row : {"norm", "gradient"}, optional
            In place of the sum over the sequences, of each parameter's gradient the Frobenius norm
            of each sequence's part, (B,), or each one's part, (B, ...). Arrays of `out` have these
            shapes. ``"norm"`` goes not with `accumulate`, and neither goes with `truncate`,
            `detach_every` or a `reset` behind a sequence's first step.

        Returns
        -------
        Grads
            In the dtype of the parameters, ``x`` as the x of `forward`, zero beyond the lengths;
            ``w_ho`` and ``b_o`` are None, since a tape has no readout. Or `out` if that was given.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, among them an array of `out`; if
            all gradients are missing; if `dc` is given for a cell without c; if `accumulate` is
            set without `out`; or if `wanted` is empty or has a name that is none of the tape's
            gradients. Nothing has been written then.
        RuntimeError
            If the tape was released.

        Notes
        -----
        With dS_t = dy_t + W_s^T da_{t+1} and da_t = f'(a_t) * dS_t: dW_x = sum_t da_t x_t^T,
        dW_s = sum_t da_t S_{t-1}^T, dx_t = W_x^T da_t (Werbos 1990, Proc. IEEE 78(10)); gated
        cells: docs/math.md.
        Ctrl-C during the call leaves `out` partly written.
        """
        record, layer, rows = self._held(), self._layer, self._rows
        cut = read_truncation(truncate, detach_every, rows)
        if self._checkpoints is not None:
            self._checkpoints.refuse(cut)
        names = read_wanted(wanted, readout=False)
        per_row = read_per_row(per_row, rows, accumulate=accumulate, truncated=cut is not None)
        if dy is None and dstate is None and dc is None:
            one = len(layer.cell.states) == 1
            missing, none = ("dy, dstate", "both") if one else ("dy, dstate, dc", "all")
            raise ValueError(f"{missing}: expected at least one of them, got None for {none}")
        if dc is not None and len(layer.cell.states) < 2:
            raise ValueError(f"dc: cell {self.cell!r} has no memory c, got an array")
        like = ("the tape", layer.x.dtype)
        dhistory = self._read_history(dy, dc, like)
        final: tuple[Array | None, ...] | None = None
        if dstate is not None:
            shape = (rows.batch, layer.params.hidden_size)
            final = read_state("dstate", dstate, layer.cell, shape, like, "tape.state", partly=True)
        if out is not None or accumulate is not False:
            x, state = self._like_inputs()
            read = {
                "x": x,
                **by_part("state", layer.state),
                **dict(zip(("dy", "dc"), dhistory, strict=False)),
                **by_part("dstate", final or ()),
                **dict(zip(("tape.y", "tape.c"), record.history, strict=False)),
                **by_part("tape.state", record.state),
                **{f"tape.{'yc'[part]}, as shown": array for part, array in self._shown.items()},
            }
            check_grads(
                out,
                accumulate,
                layer.params,
                state,
                read,
                readout=False,
                wanted=names,
                per_row=per_row,
            )
        histories = 0 if cut is None else cut.histories
        if not is_small(layer.cell, layer.params, rows):
            self._require_memory(names, per_row, histories, out=out is not None)
        cuts = cut is not None and cut.cuts(*rows.extent)
        if cuts:
            layer = layer.own_rows()
        dy, *others = dhistory
        if dy is not None and layer.places is None:
            dy = rows.gather(dy)
        incoming = Incoming(
            (dy, *(d if d is None else rows.gather(d) for d in others)),
            None if final is None else rows.gather_dstate(final),
        )
        where = (bool(accumulate), names - {"w_ho", "b_o"}, per_row, layer.places)
        into = into_layer(rows, out, *where)
        plain = into is None and names is EVERYTHING and per_row is None
        request = ALL if plain else Request(into, bool(accumulate), names, per_row=per_row)
        if cut is not None and cuts:
            recorded = Recorded(self._backend, layer, record)
            grads = truncated_backward(cut, recorded, incoming, request)
        elif self._checkpoints is not None:
            grads = self._checkpoints.backward(self._backend, layer, record, incoming, request)
        else:
            grads = self._backend.backward(layer, record, incoming, request)
        return from_layer(rows, grads, out, bool(accumulate), per_row, layer.places)

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
            of a parameter or that of one that is None, if all three are missing, or if sequences
            (with resets: their pieces) have several lengths.
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
        rows = self._rows
        if rows.offsets is not None:
            raise ValueError("jvp: expected sequences of one length, got some of several")
        if dx is None and dstate is None and dparams is None:
            raise ValueError("dx, dstate, dparams: expected at least one of them, got None for all")
        like = ("the tape", layer.x.dtype)
        steps, batch = rows.extent
        if dx is not None:
            dx = checks.as_float_array("dx", dx, like)
            checks.expect_shape("dx", dx, (*rows.shape, params.input_size), "x")
            dx = rows.gather(checks.readable(dx))
        tangent = tuple(map(np.zeros_like, layer.state))
        if dstate is not None:
            shape = (rows.batch, params.hidden_size)
            given = read_state("dstate", dstate, layer.cell, shape, like, "the initial state")
            tangent = rows.gather_state(given)
        changes = read_dparams(layer.params, dparams, like)
        beside = self._backend.beside(layer.cell, "gates")
        needed = jvp_nbytes(layer.cell, params, steps, batch, self._kept, beside)
        memory.require_memory(needed, f"the derivatives of {steps} steps")
        recorded = Recorded(
            self._backend,
            layer.own_rows(),
            record if self._kept == "gates" else None,  # None: once more, with the gates
        )
        dsums = sums_of_tangents(recorded, dx, changes)
        passed = linearize(recorded)
        dy, last = passed.forward(tangent, dsums)
        return rows.scatter(dy), as_given(rows.scatter_state(last))

    def _read_history(
        self, dy: Array | None, dc: Array | None, like: tuple[str, np.dtype[Any]]
    ) -> tuple[Array | None, ...]:
        """The readable gradients of all steps of each part of the state."""
        shape = (*self._rows.shape, self._layer.params.hidden_size)
        read_dy = None if dy is None else checks.read_like("dy", dy, shape, like, "tape.y")
        if len(self._layer.cell.states) < 2:
            return (read_dy,)
        return read_dy, None if dc is None else checks.read_like("dc", dc, shape, like, "tape.c")

    def _require_memory(
        self, wanted: frozenset[str], per_row: str | None, histories: int, *, out: bool
    ) -> None:
        """Raise MemoryError if a pass back may not fit."""
        layer, rows = self._layer, self._rows
        beside = self._backend.beside(layer.cell, self._save)
        needed = backward_nbytes(
            layer.cell,
            layer.params,
            *rows.extent,
            self._save,
            beside,
            out=out,
            wanted=wanted,
            per_row=per_row,
            histories=histories,
        )
        copied = 0 if layer.places is not None and not histories else 1
        units = len(layer.state) - 1 + copied
        needed += moved_nbytes(layer.params, rows, inputs=2 * copied, units=units)
        if self._checkpoints is not None:
            needed += self._checkpoints.nbytes_again(self._backend)
        memory.require_memory(needed, f"BPTT through {rows.steps} steps")

    def release(self) -> None:
        """Let go of everything that is held; `backward` and `y` raise RuntimeError from now on."""
        self._record = None
        self._shown.clear()

    def _like_inputs(self) -> tuple[Array, State]:
        """What has the shapes of the caller's x and S_0, and is what the tape reads of them."""
        layer, rows = self._layer, self._rows
        x, state = layer.x, layer.state
        if not rows.same_rows and layer.places is None:
            nothing = np.empty((), x.dtype)
            x = np.broadcast_to(nothing, (*rows.shape, layer.params.input_size))
        return x, state if rows.same else rows.scatter_state(state)

    def _record_again(self, layer: Layer, rows: RowMap) -> Tape:
        """Record a pass into the arrays of the last one; all of it is checked."""
        into = self._held()
        self._record = None  # until it is whole again: a pass that ends early leaves neither
        self._layer, self._rows = layer, rows
        self._record = self._backend.forward(self._layer, self._save, into)
        if rows.same_rows:
            self._shown.clear()
        self._take_shown()
        for part, shown in self._shown.items():
            if shown is not self._record.shown:
                rows.scatter(self._record.history[part], shown)
        return self

    def _take_shown(self) -> None:
        """Show y where the pass has written it."""
        if self._record is not None and self._record.shown is not None:
            self._shown[0] = self._record.shown

    @property
    def _kept(self) -> str:
        """What there is of all steps."""
        return self._save if self._checkpoints is None else "minimal"

    def _held(self) -> Record:
        if self._record is None:
            raise RuntimeError("the tape was released; call bptt.forward again")
        return self._record

    def __repr__(self) -> str:
        if self._record is None:
            return f"Tape({self.cell!r}, released)"
        shape = (*self._rows.shape, self._layer.params.hidden_size)
        return f"Tape({self.cell!r}, y={shape}, backend={self.backend!r}, nbytes={self.nbytes})"
