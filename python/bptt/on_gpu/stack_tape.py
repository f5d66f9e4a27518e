"""`GpuStackTape`: the record of a forward pass through a stack of layers on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ..array_libraries import Library
from ..backends.cuda import Gradients
from ..grads import StackGrads
from ..releasing import Releasing
from ..stack import Stack
from ..stacked.inputs import refuse
from ..stacked.wanted import read_asked
from ..states import GivenState, as_given, read_state
from ..wanted import Wanted
from .concerned import expect_none
from .inputs import reader
from .layers import Pass, Runner, by_layer

__all__ = ["GpuStackTape", "stack_grads_for_caller"]


class _Ran(NamedTuple):
    """What a pass leaves behind, and how to go back."""

    runner: Runner
    stack: Stack
    passes: Sequence[tuple[Pass, ...]]
    y: Any


class GpuStackTape(Releasing):
    """What `bptt.forward` returns for a list of layers on a GPU: as much of `bptt.StackTape` as
    there is there. Arrays are those of the library that owns x, on its device."""

    def __init__(
        self,
        runner: Runner,
        stack: Stack,
        passes: Sequence[tuple[Pass, ...]],
        save: str,
        state_given: bool,
    ) -> None:
        y = runner.rows.scatter(runner.y(passes[-1]))
        self._ran: _Ran | None = _Ran(runner, stack, passes, y)
        self._cell, self._place, self._save = runner.lowest.cell, runner.lowest.place, save
        self._precision = runner.lowest.precision
        self._state_given = state_given

    @property
    def y(self) -> Any:
        """(T, B, H) of the top layer, or (T, B, 2 H) if it is one in both directions."""
        y = self._held().y
        with self._on_device():
            return self._library.given(y)

    @property
    def state(self) -> GivenState:
        """(L*D, B, H), the state of each direction after the last step of a sequence that it runs;
        of an LSTM the pair (h, c) of such arrays."""
        ran = self._held()
        states = [record.state for passes in ran.passes for _, record in passes]
        with self._on_device():
            found = ran.runner.leaving(states)
            return as_given(tuple(map(self._library.given, found)))

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self._cell.name

    @property
    def save(self) -> str:
        """What `forward` was asked to save: "gates" or "minimal"."""
        return self._save

    @property
    def backend(self) -> str:
        """ "cuda" """
        return "cuda"

    @property
    def precision(self) -> str | None:
        """What the products of a step were rounded to, as `forward` was asked; None: nothing."""
        return self._precision

    @property
    def nbytes(self) -> int:
        """Bytes on the device held for `backward` beyond the caller's own arrays; 0 once
        released."""
        if self._ran is None:
            return 0
        runner, stack, every, y = self._ran
        moved = runner.rows.map.index is not None
        ways = by_layer(stack, runner.maps)
        held = [y] if moved or len(stack.top) > 1 else []
        for k, passes in enumerate(every):
            for d, (layer, record) in enumerate(passes):
                held += [*record.history, *record.state]
                if not self._state_given or ways[k][d].moves_state:
                    held += layer.state
                held += [] if record.saved is None else [record.saved]
                # The caller's x is not counted, nor y of a layer in one direction a second time.
                own = len(stack.layers[k - 1]) > 1 if k else moved
                held += [layer.x] if d or own else []
        return sum(math.prod(array.shape) * stack.dtype.itemsize for array in held)

    def backward(
        self,
        dy: Any = None,
        dstate: GivenState | None = None,
        *,
        dc: None = None,
        wanted: Wanted = None,
        out: StackGrads | None = None,
        accumulate: bool = False,
        truncate: None = None,
        detach_every: None = None,
        per_row: str | None = None,
    ) -> StackGrads:
        """Back-propagate through all layers and through time; see ``StackTape.backward``.

        Parameters
        ----------
        dy : array like `y`, optional
        dstate : (L*D, B, H) array, or pair of them, optional
            Gradient with respect to the final `state`. At least one of the two must be given.
        wanted : str or tuple of str, optional
            As of ``StackTape.backward``.
        dc
            Of one layer alone.
        out, accumulate, truncate, detach_every, per_row
            Not on a GPU yet.

        Returns
        -------
        StackGrads
            New arrays on the device.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, or lives elsewhere.
        RuntimeError
            If the tape was released.
        MemoryError
            If the device has too little.
        """
        runner, stack, passes, y = self._held()
        refuse(dc=dc)
        expect_none(
            out=out,
            accumulate=accumulate,
            truncate=truncate,
            detach_every=detach_every,
            per_row=per_row,
        )
        options: dict[str, Any] = {"per_row": None, "accumulate": False, "readout": False}
        asked = read_asked(stack, runner.rows.map, wanted=wanted, **options)
        if dy is None and dstate is None:
            raise ValueError("dy, dstate: expected at least one of them, got None for both")
        like = ("the tape", stack.dtype)
        of_state = (len(stack.directions), runner.rows.map.batch, stack.hidden_size)
        with self._on_device():
            read, dstates = reader(self._place), None
            if dy is not None:
                dy = runner.rows.gather(read("dy", dy, tuple(y.shape), like, "tape.y"))
            if dstate is not None:
                why = "tape.state"
                given = read_state("dstate", dstate, self._cell, of_state, like, why, read=read)
                dstates = runner.entering_gradients(given)
            names = by_layer(stack, asked.names)
            kept = [passed for passed, each in zip(passes, names, strict=True) if any(each)]
            found, dx = runner.pull_back(kept, dy, dstates, names)
            return stack_grads_for_caller(runner, stack, found, dx)

    def release(self) -> None:
        """Let go of everything that is held; `backward` and `y` raise RuntimeError from now on."""
        self._ran = None

    @property
    def _library(self) -> Library:
        return self._place.library

    def _on_device(self) -> AbstractContextManager[Any]:
        return self._library.on(self._place.device)

    def _held(self) -> _Ran:
        if self._ran is None:
            raise RuntimeError("the tape was released; call bptt.forward again")
        return self._ran

    def __repr__(self) -> str:
        if self._ran is None:
            return f"GpuStackTape({self.cell!r}, released)"
        return (
            f"GpuStackTape({self.cell!r}, {len(self._ran.passes)} layers, "
            f"y={tuple(self._ran.y.shape)}, on {self._place}, nbytes={self.nbytes})"
        )


def stack_grads_for_caller(
    runner: Runner, stack: Stack, found: Sequence[Gradients], dx: Any
) -> StackGrads:
    """`StackGrads` of what was found of each direction, and of x, in the caller's rows."""
    given = runner.lowest.place.library.given
    state: Any = None
    if all("state" in grads for grads in found):
        state = runner.leaving_gradients([grads["state"] for grads in found])
        state = as_given(tuple(map(given, state)))
    x: Any = None if dx is None else given(runner.rows.scatter(dx))
    layers = [
        params.holding({name: given(g) for name, g in grads.items() if name != "state"})
        for params, grads in zip(stack.directions, found, strict=True)
    ]
    return StackGrads(x, state, stack.nested(layers))
