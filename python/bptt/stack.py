"""`Stack`: layers one on the other, as a call gets them in a list, checked against each other.

The x of a layer is the y of the one below. A layer in both directions is a pair of parameters
(forward, reverse): the second reads x from its last step to its first, and y holds both side by
side, (T, B, 2 H). A stack's states are arrays (L*D, B, H) in PyTorch's order: layer by layer, and
the forward direction before the reverse one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, Union

import numpy as np

from .array_libraries import Place
from .cells import Cell, get_cell
from .checks import Array
from .params import Params

__all__ = ["LayerParams", "Layers", "Stack", "is_stack", "read_stack"]

# A layer, or the pair (forward, reverse) of one in both directions.
LayerParams = Union[Params, tuple[Params, Params]]
if TYPE_CHECKING:
    # What callers pass: a list or tuple of such.
    Layers = Sequence[Union[Params, Sequence[Params]]]
else:
    Layers = Any

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Stack:
    """Checked layers, the lowest first.

    Attributes
    ----------
    layers : tuple of tuples of Params
        Of each layer its directions: one, or forward and reverse.
    """

    layers: tuple[tuple[Params, ...], ...]

    @property
    def directions(self) -> tuple[Params, ...]:
        """All parameters, in the order of states."""
        return tuple(params for layer in self.layers for params in layer)

    @property
    def bottom(self) -> Params:
        return self.layers[0][0]

    @property
    def top(self) -> tuple[Params, ...]:
        return self.layers[-1]

    @property
    def input_size(self) -> int:
        return self.bottom.input_size

    @property
    def hidden_size(self) -> int:
        """H, of every direction of every layer."""
        return self.bottom.hidden_size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.bottom.dtype

    @property
    def names(self) -> tuple[str, ...]:
        """How a caller reaches each of `directions`: "[1]", or "[1][0]" in a pair."""
        return tuple(
            name
            for k, layer in enumerate(self.layers)
            for name in ((f"[{k}]",) if len(layer) == 1 else (f"[{k}][0]", f"[{k}][1]"))
        )

    def nested(self, values: Sequence[T]) -> list[Union[T, tuple[T, T]]]:
        """A value of each of `directions`, nested as callers have the layers."""
        rest = iter(values)
        return [
            next(rest) if len(layer) == 1 else (next(rest), next(rest)) for layer in self.layers
        ]

    def map(self, change: Callable[[Params], Params]) -> list[LayerParams]:
        """The layers after a change of each of them."""
        return self.nested([change(params) for params in self.directions])

    def arrays(self) -> dict[str, Array]:
        """The arrays that are present, by names like ``layers[1].w_ih``."""
        return {
            f"layers{where}.{name}": array
            for where, params in zip(self.names, self.directions, strict=True)
            for name, array in params.arrays().items()
        }


def is_stack(params: object) -> bool:
    """Whether a caller's `params` are the layers of a stack."""
    return isinstance(params, (list, tuple))


def read_stack(params: object, cell: Cell | str | None = None, place: Place | None = None) -> Stack:
    """Check the layers of a stack, in arrays that kernels can read if they are those of a `cell`,
    there on a GPU if that is a `place`.

    Raises
    ------
    TypeError, ValueError
        If it is no list of `Params` and pairs of them, or sizes or dtypes do not meet.
    """
    if not isinstance(params, (list, tuple)):
        raise TypeError(f"params: expected a list of bptt.Params, got {type(params).__name__}")
    if not params:
        raise ValueError("params: expected one layer at least, got an empty list")
    kind = None if cell is None else get_cell(cell)
    named = ((f"params[{k}]", layer) for k, layer in enumerate(params))
    stack = Stack(tuple(_read_layer(name, layer, kind, place) for name, layer in named))
    first = stack.bottom
    inputs = first.input_size
    for k, layer in enumerate(stack.layers):
        for params_of_it, name in zip(layer, _names_of(f"params[{k}]", layer), strict=True):
            _expect_to_meet(name, params_of_it, first, inputs, k)
        inputs = first.hidden_size * len(layer)
    return stack


def _read_layer(
    name: str, layer: object, cell: Cell | None, place: Place | None
) -> tuple[Params, ...]:
    """The directions of one layer."""
    directions: tuple[object, ...] = (layer,)
    if isinstance(layer, (list, tuple)):
        if len(layer) != 2:
            raise ValueError(
                f"{name}: expected bptt.Params, or a pair (forward, reverse) of them, got a "
                f"{type(layer).__name__} of length {len(layer)}"
            )
        directions = tuple(layer)
    read = []
    for params, where in zip(directions, _names_of(name, directions), strict=True):
        if not isinstance(params, Params):
            raise TypeError(f"{where}: expected bptt.Params, got {type(params).__name__}")
        try:
            if cell is not None and place is not None:
                params = params.readable_at(place, cell)
            elif cell is not None:
                params = params.readable_for(cell)
            read.append(params)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {str(error).removeprefix('params: ')}") from None
    return tuple(read)


def _names_of(name: str, directions: Sequence[object]) -> tuple[str, ...]:
    return (name,) if len(directions) == 1 else (f"{name}[0]", f"{name}[1]")


def _expect_to_meet(name: str, params: Params, first: Params, inputs: int, layer: int) -> None:
    """Raise an error unless `params` reads `inputs` features and has the sizes of the `first`."""
    if params.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
        raise TypeError(f"{name}: expected dtype {first.dtype} like params[0], got {params.dtype}")
    if params.w_hh.shape != first.w_hh.shape:
        raise ValueError(
            f"{name}: expected w_hh of shape {tuple(first.w_hh.shape)} like that of the first "
            "layer, as all states of a stack are one array (layers, B, H), got "
            f"{tuple(params.w_hh.shape)}"
        )
    if params.input_size == inputs:
        return
    like = f"to match the y of params[{layer - 1}]" if layer else "like the forward direction"
    hint = ""
    if name == "params[1]" and params.input_size == first.input_size:
        hint = "; a layer in both directions is a pair in the list, [(forward, reverse)]"
    raise ValueError(f"{name}: expected input_size={inputs} {like}, got {params.input_size}{hint}")
