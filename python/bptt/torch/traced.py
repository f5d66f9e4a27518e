"""`RNN`, `GRU` and `LSTM` as torch.compile sees them.

Dynamo traces what Python does, and makes a guard of whatever is read on the way: each global, each
attribute, the code of each function, the class of each object. A compiled program asks all of them
before each call. So this is what `modules` does, of the commonest calls, and reads little: whether
weights have the right shapes is for the operator to judge.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import gpu_passes
from .directions import run_stack
from .gpu_use import refused
from .operators import layer_operator

__all__ = ["forward_traced"]


def forward_traced(module: torch.nn.RNNBase, x: Any, hx: Any) -> Any:
    """What the module returns of a dense batch, (T, B, I) or (B, T, I), without projections; None
    if this is another call, or not as it should be."""
    if (
        not isinstance(x, Tensor)
        or x.dim() != 3
        or x.shape[2] != module.input_size
        or x.numel() == 0
        or module.proj_size
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or x.device.type not in ("cpu", "cuda")
        or torch.is_autocast_enabled(x.device.type)
        or not (gpu_passes.on_host(x) or refused() is None)
    ):
        return None

    def weight(name: str) -> Any:
        """Or what stands in its place now, as `modules` finds it."""
        own = module._parameters.get(name)
        return getattr(module, name) if own is None else own

    lstm, both_ways, by_batch = module.mode == "LSTM", module.bidirectional, module.batch_first
    kinds = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")[: 4 if module.bias else 2]
    weights = [
        tuple([weight(f"{kind}{layer}{side}") for kind in kinds])
        for layer in range(module.num_layers)
        for side in (("", "_reverse") if both_ways else ("",))
    ]
    state = [] if hx is None else hx if lstm and isinstance(hx, (tuple, list)) else [hx]
    if hx is not None and len(state) != (2 if lstm else 1):
        return None
    if not _plain([x, *state, *[w for each in weights for w in each]], x.dtype, x.device):
        return None
    shape = (len(weights), x.shape[0 if by_batch else 1], module.hidden_size)
    if any(part.shape != shape for part in state):
        return None

    cell = module.mode.removeprefix("RNN_").lower()
    grad = torch.is_grad_enabled()

    def run(x: Tensor, own: Any, each: Any) -> Any:
        flat = (x, *own, *each, *((None,) * (4 - len(each))))
        save = grad and any(t is not None and t.requires_grad for t in flat)
        y, _, h_n, c_n, _ = layer_operator(cell, *flat, save)
        return (y, h_n, c_n) if lstm else (y, h_n)

    h, c = (*state, None, None)[:2]
    places = range(len(weights))
    entering = [(None if h is None else h[at], None if c is None else c[at]) for at in places]
    turns = (None, lambda rows: rows.flip(0)) if both_ways else (None,)
    dropout = module.dropout if module.training else 0.0
    rows = x.transpose(0, 1) if by_batch else x
    y, last = run_stack(run, rows, entering, weights, turns, dropout)
    return y.transpose(0, 1) if by_batch else y, last if lstm else last[0]


def _plain(tensors: list[Any], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether all are tensors of that dtype that the kernels take, and live there."""
    if dtype is not torch.float32 and dtype is not torch.float64:
        return False
    for tensor in tensors:
        if type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter:
            return False
        if tensor.dtype is not dtype or tensor.device != device:
            return False
        if tensor.layout is not torch.strided:
            return False
    return True
