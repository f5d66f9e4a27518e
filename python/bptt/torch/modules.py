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
from .arguments import fits, offsets_of
from .directions import Rows, Stack, run_stack
from .reasons import why_torch
from .telling import tell_of_torch

__all__ = ["GRU", "LSTM", "MODES", "RNN", "Fused"]

MODES = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "LSTM": "lstm", "GRU": "gru"}


class Fused(torch.nn.RNNBase):
    """What the three have in common: a ``forward`` that `bptt` computes where it can."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the layers over `input`, from `hx` or zeros: arguments, results and errors are
        those of the module of PyTorch that this one is derived from.

        ``bptt.torch.why(module, input, hx)`` tells who computes a call.
        """
        weights = self._weights()
        reason = why_torch(self, weights, input, hx)
        if reason is not None:
            found = super().forward(input, hx)
            tell_of_torch(self, weights, reason)
            return found
        if not fits(self, self._cell, weights, input, hx):
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            offsets = offsets_of(input.batch_sizes, len(input.data))
            if offsets is None:
                return super().forward(input, hx)
            return self._forward_packed(weights, input, hx, Rows(offsets))
        batched, axis = input.dim() == 3, 0 if self.batch_first else 1
        state = self._parts(hx)
        if not batched:
            input = input.unsqueeze(axis)
            state = None if state is None else tuple(part.unsqueeze(1) for part in state)
        x = input.transpose(0, 1) if self.batch_first else input
        y, last = run_stack(self._stack(weights), x, state, Rows(None))
        y = y.transpose(0, 1) if self.batch_first else y
        if not batched:
            y, last = y.squeeze(axis), tuple(part.squeeze(1) for part in last)
        return y, self._given(last)

    def _forward_packed(
        self, weights: list[Tensor], input: PackedSequence, hx: Any, rows: Rows
    ) -> Any:
        x, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None:
            hx = self.permute_hidden(hx, sorted_indices)
        y, last = run_stack(self._stack(weights), x, self._parts(hx), rows)
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

    def _parts(self, hx: Any) -> tuple[Tensor, ...] | None:
        """Each part of the initial state (L*D, B, H), or None for zeros."""
        if hx is None:
            return None
        return tuple(hx) if self._cell.states[1:] else (hx,)

    @property
    def _cell(self) -> Cell:
        return CELLS[MODES[self.mode]]

    def _stack(self, weights: list[Tensor]) -> Stack:
        each = 4 if self.bias else 2
        absent = (None,) * (4 - each)
        of_directions = [(*weights[i : i + each], *absent) for i in range(0, len(weights), each)]
        dropout = self.dropout if self.training else 0.0
        return Stack(self._cell, of_directions, 2 if self.bidirectional else 1, dropout)

    def _given(self, state: tuple[Tensor, ...]) -> Any:
        """A state as PyTorch has it."""
        return state if self._cell.states[1:] else state[0]


class RNN(Fused, torch.nn.RNN):
    """`torch.nn.RNN`, computed by `bptt`."""


class GRU(Fused, torch.nn.GRU):
    """`torch.nn.GRU`, computed by `bptt`."""


class LSTM(Fused, torch.nn.LSTM):
    """`torch.nn.LSTM`, computed by `bptt`."""
