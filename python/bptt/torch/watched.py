"""One call of a recurrent module in training, and what lags are measured of it on its way back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .. import Params
from ..cells import CELLS, Cell
from ..checks import Array
from ..row_map import RowMap
from ..sequence_options import described, read_row_map
from .arrays import DTYPES, array_of
from .modules import MODES, NAMES, Fused
from .recurrent import Recurrent

__all__ = ["Call", "expect_layer", "read_call"]

_OWN = (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM)


def expect_layer(module: Any) -> torch.nn.Module:
    """`module` itself, if lags can be measured of it.

    Raises
    ------
    TypeError
        If it is no recurrent module whose equations are known.
    ValueError
        If it has both directions, or projections.
    """
    if isinstance(module, Recurrent):
        return module
    if not isinstance(module, Fused) and type(module) not in _OWN:
        within = ""
        if isinstance(module, torch.nn.Module):
            kinds = (*_OWN, Recurrent)
            names = [name for name, each in module.named_modules() if isinstance(each, kinds)]
            within = f", which has these: {', '.join(names)}" if names else ""
        raise TypeError(
            f"module: expected an RNN, GRU, LSTM or Recurrent, got {type(module).__name__}{within}"
        )
    if module.bidirectional:
        raise ValueError(
            "module: expected layers in one direction, as the reverse one reads later steps, to "
            "which a loss at t has no lag t - k; got bidirectional=True"
        )
    if module.proj_size:
        raise ValueError(f"module: expected no projections, got proj_size={module.proj_size}")
    return module


@dataclass(eq=False)
class Call:
    """What a module was called with.

    Attributes
    ----------
    module : Module
    x, y_shape
        Its input, of packed rows their data, and the shape of y.
    state : tuple of tensors, or None
        The initial state, in the order of x's sequences, with an axis for layers if the module has
        one.
    how : dict
        The keywords of `bptt.forward` that say what the sequences are.
    outputs : tuple of tensors
        y and each part of the last state; dropped when gradients are waited for.
    unsorted : Tensor or None
        How the sequences of the last state are sorted into the order of x's.
    """

    module: torch.nn.Module
    x: Tensor
    y_shape: torch.Size
    state: tuple[Tensor, ...] | None
    how: dict[str, Any]
    outputs: tuple[Tensor, ...]
    unsorted: Tensor | None = None

    def arguments(self, grads: Sequence[Tensor | None]) -> dict[str, Any]:
        """Those of `bptt.lag_gradients`, of the gradients that came in at `outputs`."""
        cell, layers = _network(self.module)
        dtype = layers[0].dtype
        x = self._dense(_array(self.x, dtype))
        rows = read_row_map(x.shape[:-1], **self.how)
        dy = np.zeros((*x.shape[:-1], layers[-1].hidden_size), dtype)
        if grads[0] is not None:
            dy += self._dense(_array(grads[0], dtype))
        last = self._of_the_last(grads[1:], dtype)
        if last is not None:
            _add_at_the_end(dy, last, rows)
        state: Any = None
        if self.state is not None:
            parts = tuple(self._by_layer(_array(part, dtype), len(layers)) for part in self.state)
            state = parts if len(parts) > 1 else parts[0]
        params = layers if len(layers) > 1 else layers[0]
        return {"cell": cell, "params": params, "x": x, "dy": dy, "state": state, **self.how}

    def _dense(self, array: Array) -> Array:
        """With an axis for the batch, which one sequence may lack."""
        if array.ndim == 3 or self.how.get("batch_sizes") is not None:
            return array
        return array[None] if self.how.get("batch_first") else array[:, None]

    def _by_layer(self, state: Array, layers: int) -> Array:
        """As `bptt` has a state: (B, H) of one layer, (L, B, H) of a stack."""
        if isinstance(self.module, Recurrent):
            return state
        state = state if state.ndim == 3 else state[:, None]
        return state if layers > 1 else state[0]

    def _of_the_last(self, grads: Sequence[Tensor | None], dtype: Any) -> Array | None:
        """The gradient (B, H) of the top's h after each sequence's last step, or None."""
        if any(grad is not None and grad.any() for grad in grads[1:]):
            _tell("the last c")
        if grads[0] is None:
            return None
        grad = _array(grads[0], dtype)
        if not isinstance(self.module, Recurrent):
            grad = grad if grad.ndim == 3 else grad[:, None]
            if grad[:-1].any():
                _tell("the last h of layers below the top")
            grad = grad[-1]
        return grad if self.unsorted is None else grad[self.unsorted.numpy()]


def read_call(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Call:
    """What a forward hook with ``with_kwargs`` sees, named."""
    if isinstance(module, Recurrent):
        given = {**dict(zip(("x", "state"), args, strict=False)), **kwargs}
        x, state = given.pop("x"), given.pop("state", None)
        how = {name: given.get(name) for name in ("lengths", "batch_sizes", "reset")}
        how |= {"reverse": given.get("reverse", False)}
    else:
        given = {**dict(zip(("input", "hx"), args, strict=False)), **kwargs}
        x, state = given["input"], given.get("hx")
        how = {"lengths": None, "batch_sizes": None, "reset": None, "reverse": False}
    y, last = output
    sort = None
    if isinstance(x, PackedSequence):
        how["batch_sizes"], sort = x.batch_sizes, x.sorted_indices
        x, y = x.data, y.data
    batch_first = bool(module.batch_first) and how["batch_sizes"] is None
    state, last = (tuple(s) if isinstance(s, (tuple, list)) else (s,) for s in (state, last))
    known = None if state[0] is None else state
    if known is not None and sort is not None:
        known = tuple(part.index_select(-2, sort) for part in known)
    how = dict(described(**how, batch_first=batch_first))
    return Call(module, x, y.shape, known, how, (y, *last), sort)


def _network(module: torch.nn.Module) -> tuple[Cell, list[Params]]:
    """The cell and the weights of all layers."""
    if isinstance(module, Recurrent):
        cell, names = module.cell, [list(NAMES if module.bias else NAMES[:2])]
    else:
        cell, names = CELLS[MODES[module.mode]], module._all_weights
    weights = _undisturbed(module, lambda: [[getattr(module, n) for n in each] for each in names])
    dtype = DTYPES.get(weights[0][0].dtype, DTYPES[torch.float32])
    return cell, [Params(*(_array(w, dtype) for w in each)) for each in weights]


def _undisturbed(module: torch.nn.Module, read: Callable[[], Any]) -> Any:
    """What `read` returns, with parametrizations that do not take it for a step of training."""
    of_weights: Any = getattr(module, "parametrizations", None)
    training = of_weights is not None and of_weights.training
    if training:
        of_weights.eval()
    try:
        with torch.no_grad():
            return read()
    finally:
        if training:
            of_weights.train()


def _array(tensor: Tensor, dtype: np.dtype[Any]) -> Array:
    """The values on the host, in the one dtype of a measurement."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        raise TypeError(
            f"LagMonitor: expected plain tensors, got {type(tensor).__name__}; "
            "the lags of sharded weights cannot be measured"
        )
    wanted = torch.float64 if dtype == np.float64 else torch.float32
    return array_of(tensor.detach().to("cpu", wanted))


def _add_at_the_end(dy: Array, last: Array, rows: RowMap) -> None:
    """Add the gradients `last` (B, H) of the last states to those of y, of which they are rows."""
    lengths = np.full(rows.batch, rows.steps) if rows.lengths is None else rows.lengths
    sequence = np.flatnonzero(lengths)
    time = np.zeros_like(sequence) if rows.reverse else lengths[sequence] - 1
    flat = dy.reshape(-1, dy.shape[-1])
    flat[rows.layout.rows(time, sequence)] += last[sequence]


def _tell(what: str) -> None:
    warnings.warn(
        f"bptt.torch.LagMonitor: the gradient that comes in at {what} is left out: lags are "
        "measured of what comes in at y and at the top's last h",
        stacklevel=2,
    )
