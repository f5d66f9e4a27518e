"""`StackTape`: the record of a forward pass through a stack of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .. import checks, memory
from ..backends import Backend
from ..backends.protocol import Record, State
from ..cells import Cell
from ..checks import Array
from ..grads import StackGrads
from ..holdings import backward_nbytes, forward_nbytes, moved_nbytes
from ..releasing import Releasing
from ..row_map import RowMap
from ..stack import Stack
from ..states import GivenState, as_given, by_part, read_state
from ..wanted import Wanted
from .inputs import check_grads, new_grads, refuse
from .passes import Pass, Runner, deliver, pull_back, split, targets
from .wanted import Asked, read_asked

__all__ = ["StackTape", "pull_back_nbytes", "tape_nbytes"]


class _Ran(NamedTuple):
    """What a pass leaves behind: of each layer, and of the stack as a caller sees it."""

    passes: list[tuple[Pass, ...]]
    y: Array
    state: State


class StackTape(Releasing):
    """The record of a forward pass through a stack of layers: as `Tape` is of one layer's."""

    def __init__(self, runner: Runner, stack: Stack, x: Array, state: State) -> None:
        self._ran: _Ran | None = None
        self._record(runner, stack, x, state, ())

    def _record(
        self, runner: Runner, stack: Stack, x: Array, state: State, into: Sequence[Record]
    ) -> None:
        """Run through x, into the arrays of an earlier pass if there are some."""
        self._ran = None  # until it is whole: a pass that ends early leaves neither
        self._runner = runner
        self._stack = stack
        self._initial = state
        self._x = x
        states = runner.entering(stack, state)
        passes = list(runner.run(stack, runner.rows.gather(x), states, into))
        last = [record.state for layer in passes for _, record in layer]
        y = runner.rows.scatter(runner.y(passes[-1]))
        self._ran = _Ran(passes, y, runner.leaving(stack, last))

    @property
    def y(self) -> Array:
        """(T, B, H) of the top layer, the hidden state after every step; (T, B, 2 H) if it is one
        in both directions, the forward one's before the reverse one's. Its rows are those of x."""
        return self._held().y

    @property
    def state(self) -> GivenState:
        """(L*D, B, H), the state of each direction after the last step of a sequence that it runs;
        of an LSTM the pair (h, c) of such arrays."""
        return as_given(self._held().state)

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self._runner.cell.name

    @property
    def save(self) -> str:
        """What `forward` was asked to save: "gates" or "minimal"."""
        return self._runner.save

    @property
    def backend(self) -> str:
        """Name of the backend that ran the forward pass and will run `backward`."""
        return self._runner.backend.name

    @property
    def nbytes(self) -> int:
        """Bytes held for `backward` beyond the caller's own arrays; 0 once released."""
        if self._ran is None:
            return 0
        held = [self._ran.y, *self._ran.state]
        for passes in self._ran.passes:
            for layer, record in passes:
                held += [layer.x, *record.history, *record.state, *record.saved]
        return sum({id(array): array.nbytes for array in held if array is not self._x}.values())

    def backward(
        self,
        dy: Array | None = None,
        dstate: GivenState | None = None,
        *,
        dc: None = None,
        out: StackGrads | None = None,
        accumulate: bool = False,
        truncate: None = None,
        detach_every: None = None,
        wanted: Wanted = None,
        per_row: str | None = None,
    ) -> StackGrads:
        """Back-propagate through all layers and through time.

        Parameters
        ----------
        dy : array like `y`, optional
            Gradient of the loss with respect to it.
        dstate : (L*D, B, H) array, or pair of them, optional
            Gradient with respect to the final `state`, shaped like that. At least one of the two
            must be given.
        out : StackGrads, optional
            Written into and returned, in place of new arrays: the result of an earlier call, or
            ``Grads.zeros(params, T, B, cell=cell)``. The conditions are those of `Tape.backward`.
        accumulate : bool
            Add the gradients to what `out` holds.
        wanted : str or tuple of str, optional
            The gradients to compute: "x", "state", a parameter of all layers by its name ("w_hh"),
            or "params" for all of them; those of a layer or a direction ("layers[1]",
            "layers[1][0]"), or one of these ("layers[1].w_hh"). All by default. Others are as in
            `Tape.backward`: the way back ends at the lowest layer of which something is wanted.
        per_row : {"norm", "gradient"}, optional
            What there is of each parameter's gradient for each sequence, as in `Tape.backward`.
        dc, truncate, detach_every
            Of one layer alone.

        Returns
        -------
        StackGrads
            Without gradients of a readout, which a tape does not have. Or `out`.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, among them an array of `out`; if
            both gradients are missing; if `wanted` is empty or has a name that is none of the
            tape's gradients. Nothing has been written then.
        RuntimeError
            If the tape was released.
        """
        passes, y, state = self._held()
        refuse(dc=dc, truncate=truncate, detach_every=detach_every)
        runner, stack = self._runner, self._stack
        asked = read_asked(
            stack,
            runner.rows,
            wanted=wanted,
            per_row=per_row,
            accumulate=accumulate,
            readout=False,
        )
        if dy is None and dstate is None:
            raise ValueError("dy, dstate: expected at least one of them, got None for both")
        like = ("the tape", y.dtype)
        if dy is not None:
            dy = checks.as_float_array("dy", dy, like)
            checks.expect_shape("dy", dy, y.shape, "tape.y")
            dy = checks.readable(dy)
        final: State | None = None
        if dstate is not None:
            final = read_state("dstate", dstate, runner.cell, state[0].shape, like, "tape.state")
        if out is not None or accumulate is not False:
            self._check(out, asked, dy, final)
        self._require_memory(asked, out=out is not None)
        into = new_grads(stack, self._x, state, asked) if out is None else out
        if dy is not None:
            dy = runner.rows.gather(dy)
        dstates = None
        if final is not None:
            maps = runner.maps(stack)
            dstates = [m.gather_dstate(d) for m, d in zip(maps, split(final), strict=True)]
        requests = targets(runner, stack, into, asked)
        pull_back(runner, passes, dy, dstates, requests)
        deliver(runner, stack, into, requests)
        return into

    def _require_memory(self, asked: Asked, *, out: bool) -> None:
        """Raise MemoryError if a pass back may not fit."""
        runner, stack = self._runner, self._stack
        needed = pull_back_nbytes(runner, stack, asked, out=out)
        needed += moved_nbytes(stack.bottom, runner.rows, inputs=2, units=2)
        layers = len(stack.layers)
        memory.require_memory(needed, f"BPTT through {runner.rows.steps} steps of {layers} layers")

    def _check(self, out: object, asked: Asked, dy: Array | None, dstate: State | None) -> None:
        """Raise an error if `out` cannot be written to."""
        ran = self._held()
        read: dict[str, Array | None] = {
            **by_part("state", self._initial),
            "dy": dy,
            **by_part("dstate", dstate or ()),
            "tape.y": ran.y,
            **by_part("tape.state", ran.state),
        }
        for k, passes in enumerate(ran.passes):
            for d, (_, record) in enumerate(passes):
                read |= by_part(f"states of layer {k}, direction {d}", record.history)
        check_grads(out, self._stack, self._x, self._initial, asked, read)

    def jvp(self, *_: object, **__: object) -> None:
        """Forward mode is of one layer alone.

        Raises
        ------
        ValueError
        """
        raise ValueError("jvp: expected a tape of one layer, got one of a stack of layers")

    def release(self) -> None:
        """Let go of everything that is held; `backward` and `y` raise RuntimeError from now on."""
        self._ran = None

    def _held(self) -> _Ran:
        if self._ran is None:
            raise RuntimeError("the tape was released; call bptt.forward again")
        return self._ran

    def __repr__(self) -> str:
        if self._ran is None:
            return f"StackTape({self.cell!r}, released)"
        return (
            f"StackTape({self.cell!r}, {len(self._ran.passes)} layers, y={self._ran.y.shape}, "
            f"backend={self.backend!r}, nbytes={self.nbytes})"
        )


def tape_nbytes(backend: Backend, cell: Cell, stack: Stack, rows: RowMap, save: str) -> int:
    """The tapes of all directions; where there are two, x turned round and y side by side."""
    beside = backend.beside(cell, save)
    steps, batch = rows.extent
    needed = 0
    for layer in stack.layers:
        for params in layer:
            needed += forward_nbytes(cell, params, steps, batch, save, beside)
        if len(layer) > 1:
            width = layer[0].input_size + 2 * stack.hidden_size
            needed += steps * batch * width * stack.dtype.itemsize
    return needed + moved_nbytes(stack.bottom, rows, inputs=1, units=2)


def pull_back_nbytes(runner: Runner, stack: Stack, asked: Asked, *, out: bool) -> int:
    """The ways back through the directions of `stack`, some of the lowest, of which something is
    asked for; each above the lowest layer has a dL/dx of its own."""
    beside = runner.backend.beside(runner.cell, runner.save)
    needed = 0
    for params, names in zip(stack.directions, asked.names, strict=False):
        if names:
            needed += backward_nbytes(
                runner.cell,
                params,
                *runner.rows.extent,
                runner.save,
                beside,
                out=out and params is stack.bottom,
                wanted=names,
                per_row=asked.per_row,
            )
    return needed
