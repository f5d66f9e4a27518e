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
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend
from ..backends.protocol import Incoming, Layer, Record, Request, State
from ..cells import Cell
from ..checks import Array
from ..grads import Grads, StackGrads, grads_of, some_of
from ..outputs import from_layer, into_layer
from ..params import Params
from ..row_map import RowMap, mirrored_rows
from ..stack import Stack
from ..states import as_given, as_tuple
from .wanted import Asked

__all__ = ["Pass", "Runner", "Turn", "deliver", "pull_back", "split", "targets", "with_dx"]


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
        return cls(mirrored_rows(offsets))

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

    def keeping(self, requests: Sequence[Request]) -> Runner:
        """The one for a layer of which this is asked for: nothing is saved for no way back."""
        return self if any(r.wanted for r in requests) else replace(self, save="minimal")

    def back(
        self,
        passes: Sequence[Pass],
        dy: Array | None,
        dstates: Sequence[State] | None,
        requests: Sequence[Request],
    ) -> Array | None:
        """Pull dL/dy (T, B, D*H) of one layer back through it; returns dL/dx if that is asked for.

        A direction of which nothing is asked for is left out.
        """
        hidden, dx = passes[0].layer.params.hidden_size, None
        for d, ((layer, record), request) in enumerate(zip(passes, requests, strict=True)):
            if not request.wanted:
                continue
            mine = None
            if dy is not None:
                part = dy[..., d * hidden : (d + 1) * hidden]
                mine = self.turn(part) if d else np.ascontiguousarray(part)
            nothing = (None,) * (len(layer.state) - 1)
            incoming = Incoming((mine, *nothing), None if dstates is None else dstates[d])
            out = with_dx(request, layer)
            self.backend.backward(layer, record, incoming, replace(request, out=out))
            if d and dx is not None:
                dx += self.turn(out.x)
            else:
                dx = out.x
        return dx


def pull_back(
    runner: Runner,
    passes: Sequence[tuple[Pass, ...]],
    dy: Array | None,
    dstates: Sequence[State] | None,
    requests: Sequence[Request],
) -> None:
    """BPTT of layer after layer, from the top of these down, each direction as it is asked for."""
    end = len(requests)
    for layer in reversed(passes):
        mine = slice(end - len(layer), end)
        dy = runner.back(layer, dy, None if dstates is None else dstates[mine], requests[mine])
        end = mine.start


def split(state: State) -> list[State]:
    """The state of each direction, views of (B, H) each, of (L*D, B, H) of each part."""
    return list(zip(*state, strict=True))


def targets(runner: Runner, stack: Stack, into: StackGrads, asked: Asked) -> list[Request]:
    """What each direction is asked for and where it writes, in the order of states.

    These are the arrays of `into` as far as rows are the caller's, of the lowest layer's forward
    direction dL/dx among them; all other dL/dx are made on the way (`with_dx`). `deliver` ends it.
    """
    accumulate, per_row = asked.accumulate, asked.per_row
    each = zip(runner.maps(stack), _by_direction(into, asked.names), asked.names, strict=True)
    return [
        Request(
            into_layer(rows, out, accumulate, names, per_row), accumulate, names, per_row=per_row
        )
        for rows, out, names in each
    ]


def with_dx(request: Request, layer: Layer) -> Grads:
    """Where a direction writes: with a new dL/dx, to add to where it adds, if it has none to go to
    and is asked for it."""
    out = request.out
    assert out is not None
    if out.x is not None or "x" not in request.wanted:
        return out
    return replace(out, x=(np.zeros_like if request.accumulate else np.empty_like)(layer.x))


def deliver(runner: Runner, stack: Stack, into: StackGrads, requests: Sequence[Request]) -> None:
    """Take what `targets` has in the layers' rows to the caller's."""
    if runner.rows.same and runner.turned.same:
        return
    outs = _by_direction(into, [request.wanted for request in requests])
    for rows, request, out in zip(runner.maps(stack), requests, outs, strict=True):
        assert request.out is not None
        from_layer(rows, request.out, out, request.accumulate, request.per_row)


def _by_direction(grads: StackGrads, names: Sequence[frozenset[str]]) -> list[Grads]:
    """The arrays of each direction that have these names; of x the first one has the gradient."""
    found = []
    for d, (params, wanted) in enumerate(zip(grads.directions, names, strict=True)):
        arrays: dict[str, Any] = dict(params.arrays())
        if not d:
            arrays["x"] = grads.x
        if "state" in wanted:
            arrays["state"] = as_given(tuple(part[d] for part in as_tuple(grads.state)))
        found.append(some_of(grads_of(arrays), wanted))
    return found
