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
from ..checks import Array
from .arguments import fits, offsets_of
from .autograd import run, run_layered
from .directions import run_stack, turn_of
from .modes import undisturbed
from .passes import Direction, Inputs
from .reasons import why_torch
from .telling import tell_of_torch
from .traced import forward_traced

__all__ = ["GRU", "LSTM", "MODES", "RNN", "Fused"]

# What the weights of the first layer are called.
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
MODES = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "LSTM": "lstm", "GRU": "gru"}
_DIRECTIONS = {mode: Direction(CELLS[cell]) for mode, cell in MODES.items()}


class Fused(torch.nn.RNNBase):
    """What the three have in common: a ``forward`` that `bptt` computes where it can."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the layers over `input`, from `hx` or zeros: arguments, results and errors are
        those of the module of PyTorch that this one is derived from.

        ``bptt.torch.why(module, input, hx)`` tells who computes a call.
        """
        if torch.compiler.is_dynamo_compiling():
            found = forward_traced(self, input, hx)
        else:
            found = self._forward_of_one(input, hx) if undisturbed() else None
        if found is not None:
            return found
        weights = self._weights()
        reason = why_torch(self, weights, input, hx)
        if reason is not None:
            found = super().forward(input, hx)
            tell_of_torch(self, reason)
            return found
        if not fits(self, self._cell, weights, input, hx):
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            offsets = offsets_of(input.batch_sizes, len(input.data))
            if offsets is None:
                return super().forward(input, hx)
            return self._forward_packed(weights, input, hx, offsets)
        batched, axis = input.dim() == 3, 0 if self.batch_first else 1
        state = self._parts(hx)
        if not batched:
            input = input.unsqueeze(axis)
            state = None if state is None else tuple(part.unsqueeze(1) for part in state)
        x = input.transpose(0, 1) if self.batch_first else input
        y, last = self._run(weights, x, state, None)
        y = y.transpose(0, 1) if self.batch_first else y
        if not batched:
            y, last = y.squeeze(axis), tuple(part.squeeze(1) for part in last)
        return y, self._given(last)

    def _forward_of_one(self, x: Any, hx: Any) -> Any:
        """The commonest call, of a layer in one direction, with few questions asked: those about
        tensors the kernels ask. None if it is another call, or not as it should be."""
        if self.num_layers != 1 or self.bidirectional or self.batch_first or self.proj_size:
            return None
        own, how = self._parameters, _DIRECTIONS[self.mode]
        w_ih, w_hh, b_ih, b_hh = map(own.get, NAMES)
        given = hx is not None
        if not given:
            hx = (None,) * how.parts
        elif how.parts == 1:
            hx = (hx,)
        if (
            type(x) is not Tensor
            or w_hh is None
            or type(hx) is not tuple
            or len(hx) != how.parts
            or (given and (hx[0] is None or hx[-1] is None))
            or (b_ih is not None) is not self.bias
            or (b_hh is not None) is not self.bias
            or x.shape[-1:] != (self.input_size,)
            or w_hh.shape[-1:] != (self.hidden_size,)
        ):
            return None
        found = run_layered(how, (x, *hx, w_ih, w_hh, b_ih, b_hh))
        return None if found is None else (found[0], found[1] if how.parts == 1 else found[1:])

    def _forward_packed(
        self, weights: list[Tensor], input: PackedSequence, hx: Any, offsets: Array
    ) -> Any:
        x, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None:
            hx = self.permute_hidden(hx, sorted_indices)
        y, last = self._run(weights, x, self._parts(hx), offsets)
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

    def _run(
        self,
        weights: list[Tensor],
        x: Tensor,
        state: tuple[Tensor, ...] | None,
        offsets: Array | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """y and the final state of rows (T, B, I), or of packed ones, which have offsets."""
        how = _DIRECTIONS[self.mode] if offsets is None else Direction(self._cell, offsets)
        each = 4 if self.bias else 2
        absent = (None,) * (4 - each)
        of_directions = [(*weights[i : i + each], *absent) for i in range(0, len(weights), each)]
        entering: list[Any] = [(None,) * how.parts] * len(of_directions)
        if state is not None:
            entering = list(zip(*(part.unbind(0) for part in state), strict=True))
        turns = (None, turn_of(offsets, x)) if self.bidirectional else (None,)
        dropout = self.dropout if self.training else 0.0
        return run_stack(
            lambda x, state, own: run(how, Inputs(x, state, own)),
            *(x, entering, of_directions, turns, dropout),
        )

    def _given(self, state: tuple[Tensor, ...]) -> Any:
        """A state as PyTorch has it."""
        return state if self._cell.states[1:] else state[0]


class RNN(Fused, torch.nn.RNN):
    """`torch.nn.RNN`, computed by `bptt`."""


class GRU(Fused, torch.nn.GRU):
    """`torch.nn.GRU`, computed by `bptt`."""


class LSTM(Fused, torch.nn.LSTM):
    """`torch.nn.LSTM`, computed by `bptt`."""
