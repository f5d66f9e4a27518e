"""Layers upon layers on a GPU: a stack's pass forward and its way back, as `..stacked.passes` has
them on the host.

Between layers rows stay as kernels have them, (N, ...). Gradients are new arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from ..backends.cuda import DeviceLayer, DeviceRecord, Gradients, backward, forward
from ..row_map import mirrored_rows
from ..stack import Stack
from .rows import DeviceRows

__all__ = ["Pass", "Runner", "by_layer"]

T = TypeVar("T")

State = tuple[Any, ...]
# What is asked of each direction of each layer, by the names of `Grads`.
Names = Sequence[Sequence[frozenset[str]]]


class Pass(NamedTuple):
    """One direction of a layer: what it read, and what it left behind."""

    layer: DeviceLayer
    record: DeviceRecord


def by_layer(stack: Stack, each: Iterable[T]) -> list[tuple[T, ...]]:
    """A value of each direction, together for each layer."""
    rest = iter(each)
    return [tuple(next(rest) for _ in layer) for layer in stack.layers]


class Runner:
    """Who computes the layers of a stack, and how rows lie.

    Attributes
    ----------
    lowest : DeviceLayer
        The lowest layer as it gets x, without a state.
    rows : DeviceRows
        Between the caller's rows and those of the layers.
    """

    def __init__(self, lowest: DeviceLayer, rows: DeviceRows, stack: Stack) -> None:
        self.lowest, self.rows = lowest, rows
        self._library = lowest.place.library
        ways = (rows, rows.turned)
        self.maps = [way for layer in stack.layers for way in ways[: len(layer)]]

    def run(self, stack: Stack, state: State, saves: Sequence[bool]) -> Iterator[tuple[Pass, ...]]:
        """The passes of layer upon layer, of which some save what their way back reads; from the
        caller's states (L*D, B, H) of each part."""
        x, entering = self.lowest.x, zip(*state, strict=True)
        states = [way.gather_state(each) for way, each in zip(self.maps, entering, strict=True)]
        passes: tuple[Pass, ...] = ()
        for directions, save in zip(stack.layers, saves, strict=True):
            x = self.y(passes) if passes else x
            mine, states = states[: len(directions)], states[len(directions) :]
            both = zip(directions, self._both(x), mine, strict=False)
            layers = [replace(self.lowest, params=p, x=rows, state=s) for p, rows, s in both]
            passes = tuple(Pass(layer, forward(layer, save=save)) for layer in layers)
            yield passes

    def _both(self, x: Any) -> Iterator[Any]:
        """The same rows for the forward direction, and turned for the reverse one if that asks."""
        yield x
        yield self._turn(x)

    def y(self, passes: Sequence[Pass]) -> Any:
        """What a layer gives to the one above, (N, D*H)."""
        first, *others = (passed.record.history[0] for passed in passes)
        if not others:
            return first
        return self._library.concatenate([first, self._turn(others[0])], 1)

    def leaving(self, states: Sequence[State]) -> State:
        """The caller's final states, (L*D, B, H) of each part."""
        left = [way.scatter_state(each) for way, each in zip(self.maps, states, strict=True)]
        return tuple(self._library.stack(part) for part in zip(*left, strict=True))

    def entering_gradients(self, dstate: State) -> list[State]:
        """Those of the final state of each direction, of the caller's (L*D, B, H)."""
        each = zip(*dstate, strict=True)
        return [way.gather_dstate(d) for way, d in zip(self.maps, each, strict=True)]

    def leaving_gradients(self, dstates: Sequence[State]) -> State:
        """The caller's of the initial states."""
        left = [way.scatter_dstate(each) for way, each in zip(self.maps, dstates, strict=True)]
        return tuple(self._library.stack(part) for part in zip(*left, strict=True))

    def pull_back(
        self,
        passes: Sequence[tuple[Pass, ...]],
        dy: Any,
        dstates: Sequence[State] | None,
        names: Names,
    ) -> tuple[list[Gradients], Any]:
        """BPTT of layer after layer, from the top of these down: the gradients of each direction
        of all layers that are asked for, and of x if the lowest of these asks for it.

        `passes` are those of the layers on top, down to the lowest of which something is asked.
        """
        found: list[Gradients] = []
        end, dx = sum(map(len, names)), None
        for layer, wanted in zip(reversed(passes), reversed(names), strict=False):
            mine = slice(end - len(layer), end)
            of_layer, dx = self._back(layer, dy, None if dstates is None else dstates[mine], wanted)
            found, dy, end = [*of_layer, *found], dx, mine.start
        return [*({} for _ in range(end)), *found], dx

    def _back(
        self,
        passes: Sequence[Pass],
        dy: Any,
        dstates: Sequence[State] | None,
        names: Sequence[frozenset[str]],
    ) -> tuple[list[Gradients], Any]:
        """Pull dL/dy (N, D*H) of one layer back through it. A direction of which nothing is asked
        for is left out."""
        found: list[Gradients] = []
        hidden, dx = self.lowest.hidden, None
        nothing = (None,) * (len(self.lowest.cell.states) - 1)
        for d, ((layer, record), wanted) in enumerate(zip(passes, names, strict=True)):
            if not wanted:
                found.append({})
                continue
            mine = dy
            if dy is not None and len(passes) > 1:
                mine = self._library.columns(dy, slice(d * hidden, (d + 1) * hidden))
                mine = self._turn(mine) if d else mine
            dlast = None if dstates is None else dstates[d]
            grads = backward(layer, record, (mine, *nothing), dlast, wanted)
            of_x = grads.pop("x", None)
            if of_x is not None:
                of_x = self._turn(of_x) if d else of_x
                dx = of_x if dx is None else dx + of_x
            found.append(grads)
        return found, dx

    def _turn(self, rows: Any) -> Any:
        """Rows with each sequence turned round within its own length."""
        if self.lowest.offsets is not None:
            return self._library.take(rows, self._mirrored)
        steps, batch = self.lowest.steps, self.rows.map.inner_batch
        width = rows.shape[1]
        return self._library.turned(rows.reshape(steps, batch * width)).reshape(rows.shape)

    @cached_property
    def _mirrored(self) -> Any:
        assert self.lowest.offsets is not None
        return self.rows.upload(mirrored_rows(self.lowest.offsets))
