"""`Recurrent`: a module of one layer of any cell, also of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .. import checks
from ..cells import Cell, get_cell
from ..layer_arguments import WEIGHTS
from ..sequence_options import Flags, Integers
from .modules import NAMES
from .one_layer import layer

__all__ = ["Recurrent"]


class Recurrent(torch.nn.Module):
    """A layer of any cell, with the weights of PyTorch's modules: their names, shapes, order and
    initialisation, so that a ``state_dict`` of a ``torch.nn.LSTM`` of one layer loads as it is.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
        As in `bptt.torch.layer`.
    input_size, hidden_size : int
    bias : bool
        Whether it has ``bias_ih_l0`` and ``bias_hh_l0``.
    batch_first : bool
        Inputs are (B, T, I) and outputs (B, T, H).
    device, dtype
        Of the weights, as in ``torch.nn.Linear``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import torch, bptt.torch
    >>> module = bptt.torch.Recurrent("linear", 3, 8)
    >>> y, state = module(torch.randn(50, 4, 3), lengths=[50, 3, 20, 0])
    """

    def __init__(
        self,
        cell: str | Cell,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.cell = get_cell(cell)
        self.input_size = checks.size("input_size", input_size)
        self.hidden_size = checks.size("hidden_size", hidden_size)
        self.bias = checks.boolean("bias", bias)
        self.batch_first = checks.boolean("batch_first", batch_first)
        rows = self.cell.gates * self.hidden_size
        shapes = ((rows, self.input_size), (rows, self.hidden_size), (rows,), (rows,))
        for name, shape in zip(NAMES, shapes, strict=True):
            weight = None
            if self.bias or len(shape) > 1:
                weight = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch's recurrent modules do."""
        bound = self.hidden_size**-0.5
        for weight in self.parameters():
            torch.nn.init.uniform_(weight, -bound, bound)

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Any = None,
        *,
        lengths: Integers | Tensor | None = None,
        batch_sizes: Integers | Tensor | None = None,
        reset: Flags | Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Any, Any]:
        """Run the layer over `x` from `state`, (B, H) or the pair (h, c); see `bptt.torch.layer`.

        A ``PackedSequence`` comes out as one; its states are in the order that its sequences had
        before they were packed, as of PyTorch's modules.
        """
        params = self._params()
        options = {"reset": reset, "reverse": reverse}
        if not isinstance(x, PackedSequence):
            options |= {"lengths": lengths, "batch_sizes": batch_sizes}
            by_batch = self.batch_first and batch_sizes is None
            with _errors_named_as_here():
                return layer(self.cell, params, x, state, batch_first=by_batch, **options)  # type: ignore[arg-type]
        if lengths is not None or batch_sizes is not None:
            raise ValueError("lengths, batch_sizes: expected neither beside a PackedSequence")
        state = _permuted(state, x.sorted_indices)
        options["batch_sizes"] = x.batch_sizes
        with _errors_named_as_here():
            y, last = layer(self.cell, params, x.data, state, **options)  # type: ignore[arg-type]
        return x._replace(data=y), _permuted(last, x.unsorted_indices)

    def _params(self) -> dict[str, Tensor | None]:
        return {of_cell: getattr(self, name) for of_cell, name in zip(WEIGHTS, NAMES, strict=True)}

    def extra_repr(self) -> str:
        found = f"{self.cell.name}, {self.input_size}, {self.hidden_size}"
        found += "" if self.bias else ", bias=False"
        return found + (", batch_first=True" if self.batch_first else "")


@contextmanager
def _errors_named_as_here() -> Iterator[None]:
    """Errors that speak of `WEIGHTS` by the names that the module has for them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        names = dict(zip(WEIGHTS, NAMES, strict=True))
        said = re.sub(rf"\b({'|'.join(WEIGHTS)})\b", lambda w: names[w[0]], str(error))
        error.args = (said,)
        raise


def _permuted(state: Any, index: Tensor | None) -> Any:
    """The rows of a state in another order; what is no state comes back as it is."""
    if index is None or state is None:
        return state
    if isinstance(state, (tuple, list)):
        return tuple(_permuted(part, index) for part in state)
    fits = isinstance(state, Tensor) and state.dim() == 2 and len(state) == len(index)
    return state.index_select(0, index) if fits else state
