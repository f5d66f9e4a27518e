"""A stack's pass forward, layer upon layer, and its way back.

With y^0 = x, layer l reads y^{l-1} and leaves y^l; on the way back dL/dy^{l-1} is its dx.
A layer in both directions computes its reverse one of x turned round in time, and turns y back:

    y^l_t = [ forward S_t ; reverse S_t ],   dx_t = forward dx_t + reverse dx_t

Between layers rows stay as a backend has them, dense (T, B, ...) or packed (N, ...): a `RowMap`
gathers the caller's x once, at the bottom, and scatters y once, on top. States enter and leave each
direction by themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..backends import Backend
from ..backends.protocol import Incoming, Layer, Record, Request, State
from ..cells import Cell
from ..checks import Array
from ..grads import Grads, StackGrads
from ..params import Params
from ..row_map import RowMap
from ..stack import Stack
from ..states import as_given, as_tuple

__all__ = ["Pass", "Runner", "Turn", "deliver", "pull_back", "split", "targets"]


@dataclass(frozen=True, eq=False)
class Turn:
    """Rows with each sequence turned round within its own length; twice, they are as before.

    Attributes
    ----------
    index : (N,) int64, or None
        The mirror of each packed row. None turns dense rows (T, B, ...).
    """

    index: Array | None = None

    @classmethod
    def of(cls, offsets: Array | None) -> Turn:
        """The one of packed rows with these offsets; of dense rows if they are None."""
        if offsets is None:
            return cls()
        active = np.diff(offsets)
        time = np.repeat(np.arange(len(active)), active)
        sequence = np.arange(offsets[-1]) - offsets[time]
        # Sequence b has as many steps as there are with more than b rows.
        length = np.searchsorted(-active, -sequence, side="left")
        mirrored: Array = offsets[length - 1 - time] + sequence
        return cls(mirrored)

    def __call__(self, rows: Array) -> Array:
        """A new array, contiguous."""
        return np.ascontiguousarray(rows[::-1] if self.index is None else rows[self.index])


class Pass(NamedTuple):
    """One direction of a layer: what it read, and what it left behind."""

    layer: Layer
    record: Record


@dataclass(frozen=True, eq=False)
class Runner:
    """Who computes the layers of a stack, and how rows lie.

    Attributes
    ----------
    backend : Backend
    cell : Cell
    save : str
        What each layer keeps for its way back.
    rows : RowMap
        Between the caller's rows and those of the layers.
    turned : RowMap
        The one of the reverse directions.
    turn : Turn
        Of the rows of the layers.
    """

    backend: Backend
    cell: Cell
    save: str
    rows: RowMap
    turned: RowMap
    turn: Turn

    @classmethod
    def of(cls, backend: Backend, cell: Cell, save: str, stack: Stack, rows: RowMap) -> Runner:
        """The one for a stack; rows are turned round if a layer of it asks for that."""
        if all(len(layer) == 1 for layer in stack.layers):
            return cls(backend, cell, save, rows, rows, Turn())
        return cls(backend, cell, save, rows, rows.turned, Turn.of(rows.offsets))

    def maps(self, stack: Stack) -> list[RowMap]:
        """How the states of each direction enter and leave."""
        ways = (self.rows, self.turned)
        return [way for layer in stack.layers for way in ways[: len(layer)]]

    def entering(self, stack: Stack, state: State) -> list[State]:
        """The initial state of each direction, of the caller's (L*D, B, H) of each part."""
        return [
            way.gather_state(each) for way, each in zip(self.maps(stack), split(state), strict=True)
        ]

    def leaving(self, stack: Stack, states: Sequence[State]) -> State:
        """The caller's final states, (L*D, B, H) of each part."""
        maps = self.maps(stack)
        left = [way.scatter_state(each) for way, each in zip(maps, states, strict=True)]
        return tuple(np.stack(part) for part in zip(*left, strict=True))

    def layers(
        self, directions: Sequence[Params], x: Array, states: Sequence[State]
    ) -> Iterator[Layer]:
        """What each direction of one layer reads."""
        for params, state, rows in zip(directions, states, self.both(x), strict=False):
            yield Layer(self.cell, params, rows, state, self.rows.offsets)

    def both(self, rows: Array) -> Iterator[Array]:
        """The same rows for the forward direction, and turned for the reverse one if that asks."""
        yield rows
        yield self.turn(rows)

    def forward(self, layers: Sequence[Layer], into: Sequence[Record] = ()) -> tuple[Pass, ...]:
        """Run the directions of one layer, into the arrays of earlier passes if there are some."""
        return tuple(
            Pass(layer, self.backend.forward(layer, self.save, record))
            for layer, record in itertools.zip_longest(layers, into[: len(layers)])
        )

    def y(self, passes: Sequence[Pass]) -> Array:
        """What a layer gives to the one above, (T, B, D*H)."""
        first, *others = (passed.record.y for passed in passes)
        if not others:
            return first
        return np.concatenate([first, self.turn(others[0])], axis=-1)

    def run(
        self, stack: Stack, x: Array, states: Sequence[State], into: Sequence[Record] = ()
    ) -> Iterator[tuple[Pass, ...]]:
        """The passes of layer upon layer, from the initial state of each direction."""
        for directions in stack.layers:
            layers = list(self.layers(directions, x, states))
            passes = self.forward(layers, into)
            states, into = states[len(directions) :], into[len(directions) :]
            yield passes
            x = self.y(passes)

    def back(
        self,
        passes: Sequence[Pass],
        dy: Array | None,
        dstates: Sequence[State] | None,
        outs: Sequence[Grads],
        accumulate: bool,
    ) -> Array:
        """Pull dL/dy (T, B, D*H) of one layer back through it; returns dL/dx, ``outs[0].x``."""
        hidden = passes[0].layer.params.hidden_size
        for d, ((layer, record), out) in enumerate(zip(passes, outs, strict=True)):
            mine = None
            if dy is not None:
                part = dy[..., d * hidden : (d + 1) * hidden]
                mine = self.turn(part) if d else np.ascontiguousarray(part)
            nothing = (None,) * (len(layer.state) - 1)
            incoming = Incoming((mine, *nothing), None if dstates is None else dstates[d])
            self.backend.backward(layer, record, incoming, Request(out, accumulate))
            if d:
                outs[0].x[...] += self.turn(out.x)
                out.x = out.x[:0].copy()  # its memory is free from here on
        return outs[0].x


def pull_back(
    runner: Runner,
    passes: Sequence[tuple[Pass, ...]],
    dy: Array | None,
    dstates: Sequence[State] | None,
    outs: Sequence[Grads],
    accumulate: bool,
) -> None:
    """BPTT of layer after layer, from the top down; each direction writes to its `outs`."""
    end = len(outs)
    for layer in reversed(passes):
        mine = slice(end - len(layer), end)
        of_layer = None if dstates is None else dstates[mine]
        dy = runner.back(layer, dy, of_layer, outs[mine], accumulate)
        for out in outs[end : end + 1]:
            out.x = out.x[:0].copy()  # the layer above, whose dx was read
        end = mine.start


def split(state: State) -> list[State]:
    """The state of each direction, views of (B, H) each, of (L*D, B, H) of each part."""
    return list(zip(*state, strict=True))


def targets(
    runner: Runner, stack: Stack, into: StackGrads, xs: Sequence[Array], accumulate: bool
) -> list[Grads]:
    """Where each direction writes, in the order of states; `xs` are what the layers read.

    Parameters' gradients are the arrays of `into`, and so are those of the states and the lowest
    dx, where rows are the caller's. All other dx are new: zeros where the pass adds to what is
    there. `deliver` ends it.
    """
    make = np.zeros_like if accumulate else np.empty_like
    read = [x for layer, x in zip(stack.layers, xs, strict=True) for _ in layer]
    each = zip(runner.maps(stack), read, split(as_tuple(into.state)), into.directions, strict=True)
    found: list[Grads] = []
    for rows, x, state, params in each:
        dx = make(x) if found else into.x
        if not found and not rows.same_rows:
            dx = rows.gather(into.x) if accumulate else rows.empty_like(into.x)
        found.append(Grads(dx, as_given(rows.gather_state(state)), **params.arrays()))
    return found


def deliver(
    runner: Runner, stack: Stack, into: StackGrads, outs: Sequence[Grads], accumulate: bool
) -> None:
    """Take what `targets` has in the layers' rows to the caller's."""
    if not runner.rows.same_rows:
        runner.rows.scatter(outs[0].x, into.x, keep=accumulate)
    for rows, out, state in zip(runner.maps(stack), outs, split(as_tuple(into.state)), strict=True):
        if rows.first is None and rows.anew is None:
            continue
        used = slice(None) if rows.anew is None or not accumulate else ~rows.anew
        found = rows.scatter_dstate(as_tuple(out.state))
        for target, part in zip(state, found, strict=True):
            target[used] = part[used]
