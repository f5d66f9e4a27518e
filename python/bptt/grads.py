"""`Grads`: the gradients of a scalar with respect to every input of a recurrent layer.

`StackGrads` are those of a stack of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from . import checks, memory
from .cells import Cell, get_cell
from .checks import Array
from .holdings import grads_nbytes
from .params import PARAM_NAMES, Params
from .stack import LayerParams, Layers, Stack, is_stack, read_stack
from .states import GivenState, as_given, as_tuple, by_part

__all__ = [
    "EVERYTHING",
    "GRAD_NAMES",
    "Grads",
    "StackGrads",
    "grads_of",
    "present",
    "some_of",
]

GRAD_NAMES = ("x", "state", *PARAM_NAMES)
EVERYTHING = frozenset(GRAD_NAMES)


@dataclass(eq=False)
class Grads:
    """Gradients by name. A parameter that is absent (None) has gradient None, and so has all that
    was not ``wanted``.

    Attributes
    ----------
    x : (T, B, I), or (B, T, I) or (N, I) as x is
    state : (B, H), or a pair of them
        With respect to the initial state S_0, shaped like it: for an LSTM (h_0, c_0).
    w_ih, w_hh, b_ih, b_hh, w_ho, b_o
        Shaped like the entries of `Params`. Where the two biases enter as a sum (all cells but
        the GRU), their gradients are equal (two arrays, not one). ``Tape.backward`` knows no
        readout: it leaves ``w_ho`` and ``b_o`` None. With ``per_row`` they have an axis B in
        front, or are norms of shape (B,).
    """

    x: Array
    state: GivenState
    w_ih: Array
    w_hh: Array
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_ho: Array | None = None
    b_o: Array | None = None

    @overload
    @classmethod
    def zeros(
        cls, params: Params, steps: int, batch: int, *, cell: str | Cell | None = None
    ) -> Grads: ...

    @overload
    @classmethod
    def zeros(
        cls, params: Layers, steps: int, batch: int, *, cell: str | Cell | None = None
    ) -> StackGrads: ...

    @classmethod
    def zeros(
        cls, params: Params | Layers, steps: int, batch: int, *, cell: str | Cell | None = None
    ) -> Grads | StackGrads:
        """Gradients that are all zero: ``out`` for any number of calls of these sizes.

        Parameters
        ----------
        params : Params, or list of layers
            Each of its arrays gets a gradient, the readout's too.
        steps, batch : int
            T and B of x, at least 0.
        cell : str, optional
            Needed where a state is more than one array, as for "lstm".

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type or is negative.
        MemoryError
            If they do not fit the memory.

        Returns
        -------
        Grads, or StackGrads for a list of layers
        """
        if is_stack(params):
            return _zeros_of_stack(read_stack(params, cell), steps, batch, cell)
        if not isinstance(params, Params):
            raise TypeError(f"params: expected bptt.Params, got {type(params).__name__}")
        t = checks.size("steps", steps, least=0)
        b = checks.size("batch", batch, least=0)
        dtype = params.dtype.newbyteorder("=")
        parts = 1
        if cell is not None:
            kind = get_cell(cell)
            params.readable_for(kind)  # or an error
            parts = len(kind.states)
        memory.require_memory(grads_nbytes(params, t, b, parts), f"gradients of {t} steps")
        return cls(
            x=np.zeros((t, b, params.input_size), dtype),
            state=as_given(tuple(np.zeros((b, params.hidden_size), dtype) for _ in range(parts))),
            **{name: np.zeros(array.shape, dtype) for name, array in params.arrays().items()},
        )

    def arrays(self) -> dict[str, Array]:
        """The parameters' gradients that are present, by the names that ``Params`` uses.

        ``x`` and ``state`` are left out: what is returned is what an optimizer updates.
        """
        present = ((name, getattr(self, name)) for name in PARAM_NAMES)
        return {name: array for name, array in present if array is not None}

    def __repr__(self) -> str:
        state = {} if self.state is None else by_part("state", as_tuple(self.state))
        found = {"x": self.x, **state, **self.arrays()}
        given = {name: array for name, array in found.items() if array is not None}
        shapes = [f"{name}={tuple(array.shape)}" for name, array in given.items()]
        dtypes = {f"dtype={array.dtype}" for array in given.values()}
        return f"Grads({', '.join([*shapes, *dtypes])})"


def grads_of(arrays: Mapping[str, Any]) -> Grads:
    """`Grads` of what is wanted, by name, and None under other names."""
    named: dict[str, Any] = {name: arrays.get(name) for name in GRAD_NAMES}
    return Grads(**named)


def some_of(grads: Grads, names: frozenset[str]) -> Grads:
    """The same arrays under these names, and None under others."""
    return grads_of({name: getattr(grads, name) for name in names})


def present(grads: Grads) -> frozenset[str]:
    """The names under which there are arrays."""
    return frozenset(name for name in GRAD_NAMES if getattr(grads, name) is not None)


@dataclass(eq=False)
class StackGrads:
    """The gradients of a stack of layers; None is what was not ``wanted``.

    Attributes
    ----------
    x : (T, B, I)
    state : (L*D, B, H), or a pair of them
        With respect to the initial states, shaped like them: layer by layer, the forward direction
        before the reverse one.
    layers : list of Params, and of pairs of them
        The gradients of each layer's parameters by their names, nested as `params` was. With
        ``per_row`` they have an axis B in front, or are norms of shape (B,).
    """

    x: Array
    state: GivenState
    layers: list[LayerParams]

    def as_stack(self) -> Stack:
        """`layers` as a stack's; nothing is checked."""
        return Stack(
            tuple((layer,) if isinstance(layer, Params) else tuple(layer) for layer in self.layers)
        )

    @property
    def directions(self) -> tuple[Params, ...]:
        """The gradients of all parameters in the order of states."""
        return self.as_stack().directions

    def arrays(self) -> dict[str, Array]:
        """The parameters' gradients that are present, by names like ``layers[1].w_ih``."""
        return self.as_stack().arrays()

    def map(self, change: Callable[[Array], Array]) -> StackGrads:
        """Gradients after a change of each array that is present."""
        layers = self.as_stack().map(lambda params: params.like(change))
        x, state = self.x, self.state
        return StackGrads(
            x if x is None else change(x),
            state if state is None else as_given(tuple(map(change, as_tuple(state)))),
            layers,
        )

    def __repr__(self) -> str:
        state = {} if self.state is None else by_part("state", as_tuple(self.state))
        found = {"x": self.x, **state}
        given = {name: array for name, array in found.items() if array is not None}
        shapes = [f"{name}={array.shape}" for name, array in given.items()]
        dtypes = {f"dtype={array.dtype}" for array in (*given.values(), *self.arrays().values())}
        return f"StackGrads({', '.join([*shapes, f'{len(self.layers)} layers', *dtypes])})"


def _zeros_of_stack(stack: Stack, steps: int, batch: int, cell: str | Cell | None) -> StackGrads:
    t = checks.size("steps", steps, least=0)
    b = checks.size("batch", batch, least=0)
    dtype = stack.dtype.newbyteorder("=")
    parts = 1 if cell is None else len(get_cell(cell).states)
    needed = sum(grads_nbytes(params, 0, b, parts) for params in stack.directions)
    needed += t * b * stack.input_size * dtype.itemsize
    memory.require_memory(needed, f"gradients of {t} steps")
    # Shapes that take no memory.
    x = np.broadcast_to(np.zeros((), dtype), (t, b, stack.input_size))
    of_states = (len(stack.directions), b, stack.hidden_size)
    state = tuple(np.broadcast_to(np.zeros((), dtype), of_states) for _ in range(parts))
    like = StackGrads(x, as_given(state), stack.nested(stack.directions))
    return like.map(lambda array: np.zeros(array.shape, dtype))
