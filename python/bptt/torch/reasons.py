"""Which calls of a module `bptt` leaves to PyTorch's own kernels, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .arrays import DTYPES
from .modes import PLAIN, TRACED, traced

__all__ = ["why_torch"]


def why_torch(
    module: torch.nn.RNNBase,
    weights: Sequence[Tensor],
    input: Tensor | PackedSequence,
    hx: Any = None,
) -> str | None:
    """Why `bptt` does not compute this call with these weights; None if it does."""
    x = input.data if isinstance(input, PackedSequence) else input
    states = hx if isinstance(hx, (tuple, list)) else () if hx is None else (hx,)
    return (
        _mode(isinstance(input, PackedSequence), x)
        or _module(module)
        or _tensors(x, states, weights)
    )


def _mode(packed: bool, x: Any) -> str | None:
    """What PyTorch is doing beside computing."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return "torch.jit traces PyTorch's own operation"
    if packed and traced(x):
        return "packed sequences are traced as PyTorch's own operation"
    return None


def _module(module: torch.nn.RNNBase) -> str | None:
    if module.proj_size:
        return "proj_size: there are no kernels for projections"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is enabled, and there are no kernels for bfloat16 and float16"
    return None


def _tensors(x: Any, states: Sequence[Any], weights: Sequence[Any]) -> str | None:
    dtype = x.dtype if isinstance(x, Tensor) else None
    seen = isinstance(x, Tensor) and traced(x)
    kinds = TRACED if seen else PLAIN
    device = "meta" if seen and x.device.type == "meta" else "cpu"
    for tensor in (x, *states, *weights):
        plain = type(tensor) in kinds and tensor.layout is torch.strided
        if (
            not plain
            or tensor.device.type != device
            or tensor.dtype is not dtype
            or dtype not in DTYPES
        ):
            names = ["input", *["hx"] * len(states), *["a weight"] * len(weights)]
            named = zip(names, (x, *states, *weights), strict=True)
            return next(
                reason for name, t in named if (reason := _tensor(name, t, kinds, device, dtype))
            )
    return None if x.numel() else f"input is empty, of shape {tuple(x.shape)}"


def _tensor(name: str, tensor: Any, kinds: Any, device: str, dtype: Any) -> str | None:
    if type(tensor) not in kinds:
        return f"{name} is a {type(tensor).__name__}, not a plain tensor"
    if tensor.device.type != device:
        return f"{name} is on {tensor.device}, and these kernels are for the CPU"
    if tensor.layout is not torch.strided:
        return f"{name} is of layout {tensor.layout}"
    if tensor.dtype not in DTYPES:
        return f"{name} is of {tensor.dtype}; there are kernels for float32 and float64"
    if tensor.dtype is not dtype:
        return f"{name} is of {tensor.dtype} and input of {dtype}, which PyTorch has to judge"
    return None
