"""`RNN`, `GRU` and `LSTM`: PyTorch's modules, computed by `bptt`.

Subclasses, of which ``forward`` alone is another one: constructors, initialisation, ``state_dict``,
``extra_repr`` and all checks are PyTorch's own. What `bptt` does not compute goes to the method of
PyTorch, and so does what it refuses: the errors are its.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..cells import CELLS, Cell
from .directions import Rows, Stack, run_stack
from .reasons import why_torch

__all__ = ["GRU", "LSTM", "RNN", "Fused"]

_CELLS = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "LSTM": "lstm", "GRU": "gru"}


class Fused(torch.nn.RNNBase):
    """What the three have in common: a ``forward`` that `bptt` computes where it can."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the layers over `input`, from `hx` or zeros: arguments, results and errors are
        those of the module of PyTorch that this one is derived from.

        ``bptt.torch.why(module, input, hx)`` tells who computes a call.
        """
        weights = self._weights()
        if why_torch(self, weights, input, hx) is not None or not _has_axes(input, hx):
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            return self._forward_packed(weights, input, hx)
        batched, axis = input.dim() == 3, 0 if self.batch_first else 1
        if not batched:
            input = input.unsqueeze(axis)
            hx = _each(hx, lambda h: h.unsqueeze(1))
        state = self._checked(input, hx, None)
        x = input.transpose(0, 1) if self.batch_first else input
        y, last = run_stack(self._stack(weights), x, state, Rows(None))
        y = y.transpose(0, 1) if self.batch_first else y
        if not batched:
            y, last = y.squeeze(axis), tuple(part.squeeze(1) for part in last)
        return y, self._given(last)

    def _forward_packed(self, weights: list[Tensor], input: PackedSequence, hx: Any) -> Any:
        x, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None:
            hx = self.permute_hidden(hx, sorted_indices)
        state = self._checked(x, hx, batch_sizes)
        y, last = run_stack(self._stack(weights), x, state, Rows.of_packed(batch_sizes))
        packed = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
        return packed, self.permute_hidden(self._given(last), unsorted_indices)

    def _weights(self) -> list[Tensor]:
        """Those of all directions, whatever stands in their place now: a parametrization, or what
        ``torch.func.functional_call`` put there."""
        own = self._parameters
        found = [own.get(name) for name in self._flat_weights_names]
        if any(weight is None for weight in found):
            return [getattr(self, name) for name in self._flat_weights_names]
        return found

    def _checked(
        self, input: Tensor, hx: Any, batch_sizes: Tensor | None
    ) -> tuple[Tensor, ...] | None:
        """Each part of the initial state (L*D, B, H), or None for zeros, with PyTorch's own checks
        of all of it."""
        if hx is None:
            if input.shape[-1] != self.input_size:
                self.check_input(input, batch_sizes)
            return None
        self.check_forward_args(input, hx, batch_sizes)
        return tuple(hx) if self._cell.states[1:] else (hx,)

    @property
    def _cell(self) -> Cell:
        return CELLS[_CELLS[self.mode]]

    def _stack(self, weights: list[Tensor]) -> Stack:
        each = 4 if self.bias else 2
        absent = (None,) * (4 - each)
        of_directions = [(*weights[i : i + each], *absent) for i in range(0, len(weights), each)]
        dropout = self.dropout if self.training else 0.0
        return Stack(self._cell, of_directions, 2 if self.bidirectional else 1, dropout)

    def _given(self, state: tuple[Tensor, ...]) -> Any:
        """A state as PyTorch has it."""
        return state if self._cell.states[1:] else state[0]


def _has_axes(input: Any, hx: Any) -> bool:
    """Whether all have the numbers of axes that are wanted; PyTorch says what is wrong if not."""
    if isinstance(input, PackedSequence):
        return input.data.dim() == 2
    states = hx if isinstance(hx, (tuple, list)) else () if hx is None else (hx,)
    return input.dim() in (2, 3) and all(h.dim() == input.dim() for h in states)


def _each(state: Any, f: Any) -> Any:
    if state is None:
        return None
    return tuple(map(f, state)) if isinstance(state, (tuple, list)) else f(state)


class RNN(Fused, torch.nn.RNN):
    """`torch.nn.RNN`, computed by `bptt`."""


class GRU(Fused, torch.nn.GRU):
    """`torch.nn.GRU`, computed by `bptt`."""


class LSTM(Fused, torch.nn.LSTM):
    """`torch.nn.LSTM`, computed by `bptt`."""
