"""`Grads`: the gradients of a scalar with respect to every input of a recurrent layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks, memory
from .cells import Cell, get_cell
from .checks import Array
from .holdings import grads_nbytes
from .params import PARAM_NAMES, Params
from .states import GivenState, as_given, as_tuple, by_part

__all__ = ["EVERYTHING", "GRAD_NAMES", "Grads", "grads_of", "present", "some_of"]

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

    @classmethod
    def zeros(
        cls, params: Params, steps: int, batch: int, *, cell: str | Cell | None = None
    ) -> Grads:
        """Gradients that are all zero: ``out`` for any number of calls of these sizes.

        Parameters
        ----------
        params : Params
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
        """
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
        shapes = [f"{name}={array.shape}" for name, array in given.items()]
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
