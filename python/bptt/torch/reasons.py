"""Which calls of a module `bptt` leaves to PyTorch's own kernels, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["why_torch"]

_DTYPES = (torch.float32, torch.float64)
_PLAIN = (Tensor, torch.nn.Parameter)


def why_torch(
    module: torch.nn.RNNBase,
    weights: Sequence[Tensor],
    input: Tensor | PackedSequence,
    hx: Any = None,
) -> str | None:
    """Why `bptt` does not compute this call with these weights; None if it does."""
    x = input.data if isinstance(input, PackedSequence) else input
    states = hx if isinstance(hx, (tuple, list)) else () if hx is None else (hx,)
    return _mode() or _module(module) or _tensors(x, states, weights)


def _mode() -> str | None:
    """What PyTorch is doing beside computing."""
    if torch.compiler.is_compiling():
        return "torch.compile and torch.export trace PyTorch's own operation"
    if torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined, unused-ignore]
        return "a transform of torch.func is active"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode is active"
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return "torch.jit traces PyTorch's own operation"
    return None


def _module(module: torch.nn.RNNBase) -> str | None:
    if module.proj_size:
        return "proj_size: there are no kernels for projections"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is enabled, and there are no kernels for bfloat16 and float16"
    return None


def _tensors(x: Any, states: Sequence[Any], weights: Sequence[Any]) -> str | None:
    dtype = x.dtype if isinstance(x, Tensor) else None
    for tensor in (x, *states, *weights):
        plain = type(tensor) in _PLAIN and tensor.is_cpu and tensor.layout is torch.strided
        if not plain or tensor.dtype is not dtype or dtype not in _DTYPES:
            names = ["input", *["hx"] * len(states), *["a weight"] * len(weights)]
            named = zip(names, (x, *states, *weights), strict=True)
            return next(reason for name, t in named if (reason := _tensor(name, t, dtype)))
    return None if x.numel() else f"input is empty, of shape {tuple(x.shape)}"


def _tensor(name: str, tensor: Any, dtype: Any) -> str | None:
    if type(tensor) not in _PLAIN:
        return f"{name} is a {type(tensor).__name__}, not a plain tensor"
    if not tensor.is_cpu:
        return f"{name} is on {tensor.device}, and these kernels are for the CPU"
    if tensor.layout is not torch.strided:
        return f"{name} is of layout {tensor.layout}"
    if tensor.dtype not in _DTYPES:
        return f"{name} is of {tensor.dtype}; there are kernels for float32 and float64"
    if tensor.dtype is not dtype:
        return f"{name} is of {tensor.dtype} and input of {dtype}, which PyTorch has to judge"
    return None
