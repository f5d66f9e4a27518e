"""Who computes a call of a module, and why: `bptt`, or PyTorch's own kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..backends import REGISTRY
from . import gpu_passes
from .arguments import fits
from .modes import by_composite
from .modules import Fused
from .reasons import why_torch

__all__ = ["why"]

_UNTIMED = "nobody has timed these kernels on a GPU; see bptt.torch.allow_cuda"


def why(module: torch.nn.RNNBase, input: Tensor | PackedSequence, hx: Any = None) -> str:
    """Say who would compute ``module(input, hx)``, and why.

    Parameters
    ----------
    module : torch.nn.RNN, GRU or LSTM
    input, hx
        As the module takes them.

    Returns
    -------
    str
        ``"bptt native"``, or another backend of `bptt`, of which "cuda" goes with what is not known
        of it; ``"bptt composite"`` under forward-mode differentiation, which takes the same
        equations in PyTorch's operations; else ``"torch: "`` and the reason.

    Raises
    ------
    TypeError
        If `module` is none of these.
    """
    if not isinstance(module, torch.nn.RNNBase):
        raise TypeError(
            f"module: expected a torch.nn.RNN, GRU or LSTM, got {type(module).__name__}"
        )
    if not isinstance(module, Fused):
        return (
            f"torch: {type(module).__name__} is not a module of bptt.torch; see bptt.torch.replace"
        )
    weights = module._weights()
    reason = why_torch(module, weights, input, hx)
    if reason is not None:
        return f"torch: {reason.text}"
    if not fits(module, module._cell, weights, input, hx):
        return "torch: shapes do not fit together, and the error is PyTorch's"
    if by_composite():
        return "bptt composite"
    x = input.data if isinstance(input, PackedSequence) else input
    if not gpu_passes.on_host(x):
        return f"bptt cuda: {_UNTIMED}"
    available = (name for name, backend in REGISTRY.items() if backend.missing() is None)
    return f"bptt {next(available)}"
