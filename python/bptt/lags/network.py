"""`Network`: the layers whose gradient is resolved by lag, and what they read, checked.

One layer, or a stack of layers in one direction: a reverse direction reads later steps, so that a
loss would also reach steps behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends import Backend
from ..backends.protocol import Layer, State
from ..cells import Cell
from ..checks import Array
from ..holdings import lags_nbytes, terms_nbytes
from ..inputs import initial_state, read_sequences
from ..params import Params
from ..recorded import Recorded
from ..row_map import RowMap
from ..stack import Stack, is_stack
from ..stacked.inputs import read_stack_inputs
from ..stacked.readout import expect_readout
from ..states import GivenState, as_given

__all__ = ["Network", "read_network"]


@dataclass(frozen=True, eq=False)
class Network:
    """Layers, x and the states before the first step.

    Attributes
    ----------
    cell : Cell
    layers : dict of Params
        The lowest first, each by what stands before the names of its parameters: nothing of a
        layer alone, ``layers[1].`` in a stack.
    x : Array
        As the caller has it.
    states : list of tuples of (B, H), or None
        Of each layer; None for zeros, which are not made before there is memory for them.
    rows : RowMap
    """

    cell: Cell
    layers: Mapping[str, Params]
    x: Array
    states: list[State] | None
    rows: RowMap

    @property
    def is_stack(self) -> bool:
        return "" not in self.layers

    @property
    def top(self) -> Params:
        return list(self.layers.values())[-1]

    @property
    def seen(self) -> Params:
        """What a caller sees: the inputs of the lowest layer, the outputs of the top."""
        bottom, top = next(iter(self.layers.values())), self.top
        return bottom if bottom is top else replace(bottom, w_ho=top.w_ho, b_o=top.b_o)

    def expect_readout(self) -> None:
        """Raise ValueError unless the top, and no other layer, has a readout."""
        if self.is_stack:
            expect_readout(Stack(tuple((each,) for each in self.layers.values())), "lag_gradients")
        elif self.top.w_ho is None:
            raise ValueError("params: a loss needs the readout weights w_ho, got None")

    def initial(self) -> list[State]:
        """The states before the first step, of each layer."""
        if self.states is not None:
            return self.states
        return [
            initial_state(self.cell, params, self.rows.batch, None)
            for params in self.layers.values()
        ]

    def given_state(self, states: list[State]) -> GivenState:
        """Those of all layers as a caller has them."""
        if self.is_stack:
            return as_given(tuple(np.stack(parts) for parts in zip(*states, strict=True)))
        return as_given(states[0])

    def recorded(self, backend: Backend, steps: int, rows: Any) -> dict[str, Recorded]:
        """Run some sequences of a dense batch through the first steps, layer upon layer."""
        found: dict[str, Recorded] = {}
        read = np.ascontiguousarray(self.x[:steps, rows])
        for (prefix, params), state in zip(self.layers.items(), self.initial(), strict=True):
            own = tuple(np.ascontiguousarray(s[rows]) for s in state)
            found[prefix] = Recorded(backend, Layer(self.cell, params, read, own))
            read = found[prefix].y
        return found

    def nbytes(self, backend: Backend, steps: int, batch: int, *, lags: int, one_step: bool) -> int:
        """What so many lags take; what is kept of each lag counts once, not with every layer."""
        beside, needed = backend.beside(self.cell, "gates"), 0
        for params in self.layers.values():
            needed += lags_nbytes(
                self.cell,
                params,
                steps,
                batch,
                beside,
                lags=lags if params is self.top else 0,
                one_step=one_step,
            )
        if self.is_stack:  # dL/dx of a layer, on its way to the one below
            needed += 2 * steps * batch * self.top.hidden_size * self.x.itemsize
        return needed

    def terms_nbytes(self, batch: int, *, lags: int, deltas: int) -> int:
        """The terms of so many lags, with delta at so many steps of all of them."""
        return sum(
            terms_nbytes(self.cell, params, batch, lags=lags, deltas=deltas)
            for params in self.layers.values()
        )


def read_network(
    cell: Cell, params: object, x: object, state: object, how: Mapping[str, object]
) -> Network:
    """Check layers, x and a state; see `inputs.read_sequences`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    """
    if not is_stack(params):
        layer, array, given, rows = read_sequences(cell, params, x, state, how)
        return Network(cell, {"": layer}, array, None if given is None else [given], rows)
    stack, array, given, rows = read_stack_inputs(cell, params, x, state, how)
    for k, directions in enumerate(stack.layers):
        if len(directions) > 1:
            raise ValueError(
                f"params[{k}]: expected a layer in one direction, as the reverse one reads later "
                "steps, to which a loss at t has no lag t - k, got a pair"
            )
    named = zip(stack.names, stack.directions, strict=True)
    layers = {f"layers{name}.": each for name, each in named}
    states = None if given is None else list(zip(*given, strict=True))
    return Network(cell, layers, array, states, rows)
