"""Which calls of a module `bptt` leaves to PyTorch's own kernels, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import gpu_passes
from .arrays import DTYPES
from .gpu_use import refused
from .modes import PLAIN, TRACED, traced

__all__ = ["Reason", "why_torch"]


_DEVICES = ("cpu", "cuda")


class Reason(NamedTuple):
    """Why PyTorch computes a call, and whether it will compute the next ones of the module, too:
    that which only this call is about (a transform, an empty or a wrong input) passes."""

    text: str
    lasts: bool


def why_torch(
    module: torch.nn.RNNBase,
    weights: Sequence[Tensor],
    input: Tensor | PackedSequence,
    hx: Any = None,
) -> Reason | None:
    """Why `bptt` does not compute this call with these weights; None if it does."""
    x = input.data if isinstance(input, PackedSequence) else input
    states = hx if isinstance(hx, (tuple, list)) else () if hx is None else (hx,)
    return (
        _mode(isinstance(input, PackedSequence), x)
        or _module(module, x)
        or _tensors(x, states, weights)
        or _on_gpu(x)
    )


def _mode(packed: bool, x: Any) -> Reason | None:
    """What PyTorch is doing beside computing."""
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return Reason("torch.jit traces PyTorch's own operation", lasts=False)
    if packed and traced(x):
        text = "packed sequences are traced as PyTorch's own operation: an operator for them would "
        return Reason(f"{text}need the sizes of all steps, which have no values yet", lasts=False)
    return None


def _module(module: torch.nn.RNNBase, x: Any) -> Reason | None:
    if module.proj_size:
        return Reason("proj_size: there are no kernels for projections", lasts=True)
    on_gpu = isinstance(x, Tensor) and x.is_cuda
    if torch.is_autocast_enabled("cuda" if on_gpu else "cpu"):
        text = "autocast is enabled, and there are no kernels for bfloat16 and float16"
        return Reason(text, lasts=True)
    return None


def _tensors(x: Any, states: Sequence[Any], weights: Sequence[Any]) -> Reason | None:
    dtype = x.dtype if isinstance(x, Tensor) else None
    seen = isinstance(x, Tensor) and traced(x)
    kinds = TRACED if seen else PLAIN
    device = x.device if isinstance(x, Tensor) else None
    for tensor in (x, *states, *weights):
        plain = type(tensor) in kinds and tensor.layout is torch.strided
        if not plain or tensor.device != device or tensor.dtype is not dtype or dtype not in DTYPES:
            names = ["input", *["hx"] * len(states), *["a weight"] * len(weights)]
            named = zip(names, (x, *states, *weights), strict=True)
            found = (_tensor(name, t, kinds, device, dtype) for name, t in named)
            return Reason(next(filter(None, found)), _without_kernels(weights[0]))
    if x.device.type not in _DEVICES and not (seen and x.device.type == "meta"):
        text = f"input is on {x.device}; there are kernels for CPUs and for GPUs by CUDA"
        return Reason(text, _without_kernels(weights[0]))
    if x.numel():
        return None
    return Reason(f"input is empty, of shape {tuple(x.shape)}", lasts=False)


def _without_kernels(weight: Any) -> bool:
    """Whether a module with this weight has none; on "meta" nothing is computed at all."""
    if not isinstance(weight, Tensor) or weight.device.type == "meta":
        return False
    return weight.dtype not in DTYPES or weight.device.type not in _DEVICES


def _on_gpu(x: Tensor) -> Reason | None:
    if gpu_passes.on_host(x):
        return None
    reason = refused()
    return None if reason is None else Reason(f"input is on {x.device}, and {reason[0]}", reason[1])


def _tensor(name: str, tensor: Any, kinds: Any, device: Any, dtype: Any) -> str | None:
    if type(tensor) not in kinds:
        return f"{name} is a {type(tensor).__name__}, not a plain tensor"
    if tensor.device != device:
        return f"{name} is on {tensor.device} and input on {device}, which PyTorch has to judge"
    if tensor.layout is not torch.strided:
        return f"{name} is of layout {tensor.layout}"
    if tensor.dtype not in DTYPES:
        return f"{name} is of {tensor.dtype}; there are kernels for float32 and float64"
    if tensor.dtype is not dtype:
        return f"{name} is of {tensor.dtype} and input of {dtype}, which PyTorch has to judge"
    return None
