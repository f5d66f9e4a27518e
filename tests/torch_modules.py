"""Modules of PyTorch beside ours, with the same weights; needs PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bptt.torch
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

torch.set_num_threads(1)  # the layers are small

PAIRS = {torch.nn.RNN: bptt.torch.RNN, torch.nn.GRU: bptt.torch.GRU, torch.nn.LSTM: bptt.torch.LSTM}
KINDS = pytest.mark.parametrize("kind", PAIRS, ids=lambda kind: kind.__name__)
ATOL = {torch.float32: 2e-5, torch.float64: 1e-11}
SHAPE = {"input_size": 3, "hidden_size": 5}
X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))


def pair(kind: type, *args: Any, **options: Any) -> tuple[torch.nn.RNNBase, torch.nn.RNNBase]:
    """A module of PyTorch's and ours, with the same weights."""
    theirs, ours = kind(*args, **options), PAIRS[kind](*args, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def tensors(value: Any) -> list[torch.Tensor]:
    """Those of floats in nested tuples, in order."""
    if isinstance(value, (tuple, list)):
        return [t for each in value for t in tensors(each)]
    return [value] if isinstance(value, torch.Tensor) and value.is_floating_point() else []


def leaf(value: Any) -> Any:
    """A copy that takes gradients, of a tensor, a PackedSequence, or tuples of tensors."""
    if isinstance(value, PackedSequence):
        return value._replace(data=leaf(value.data))
    if isinstance(value, (tuple, list)):
        return tuple(map(leaf, value))
    return value.detach().clone().requires_grad_() if isinstance(value, torch.Tensor) else value


def results(module: torch.nn.Module, args: Sequence[Any], seed: int = 0) -> list[torch.Tensor]:
    """The outputs, and the gradients of all inputs and weights, of a random sum of the outputs."""
    args = leaf(args)
    module.zero_grad()
    torch.manual_seed(seed)
    outputs = tensors(module(*args))
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in outputs
    )
    loss.backward()
    leaves = [*tensors(args), *module.parameters()]
    return [*(y.detach() for y in outputs), *(t.grad for t in leaves)]


def same(theirs: torch.nn.Module, ours: torch.nn.Module, args: Sequence[Any]) -> None:
    expected, found = results(theirs, args), results(ours, args)
    assert len(expected) == len(found)
    for e, f in zip(expected, found, strict=True):
        if e is None or f is None:
            assert e is f
            continue
        assert (f.shape, f.dtype) == (e.shape, e.dtype)
        scale = max(1.0, float(e.abs().max())) if e.numel() else 1.0
        torch.testing.assert_close(f, e, atol=ATOL[e.dtype] * scale, rtol=0)


def error(call: Any, *args: Any, **options: Any) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011  whichever PyTorch has
        call(*args, **options)
    return caught.type, str(caught.value)


def state_of(module: torch.nn.RNNBase, *batch: int, dtype: torch.dtype = torch.float32) -> Any:
    layers = module.num_layers * (2 if module.bidirectional else 1)
    h = torch.randn(layers, *batch, module.hidden_size, dtype=dtype)
    return (h, torch.randn_like(h)) if isinstance(module, torch.nn.LSTM) else h


def made(kind: type, **options: Any) -> torch.nn.RNNBase:
    torch.manual_seed(0)
    return PAIRS[kind](**SHAPE, **options)


def loss_of(module: torch.nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    return sum(y.square().sum() for y in tensors(module(x)))


def grads_of(module: torch.nn.Module, x: torch.Tensor = X) -> list[torch.Tensor]:
    module.zero_grad()
    loss_of(module, x).backward()
    return [p.grad.clone() for p in module.parameters()]


def equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


class Model(torch.nn.Module):
    def __init__(self, cls: type = torch.nn.LSTM) -> None:
        super().__init__()
        self.below = torch.nn.GRU(3, 5, batch_first=True)
        self.above = torch.nn.ModuleList([torch.nn.RNN(5, 5), cls(5, 2, num_layers=2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.above[1](self.above[0](self.below(x)[0])[0])[0]
