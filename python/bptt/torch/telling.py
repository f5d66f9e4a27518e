"""A warning, once for each reason, where a module is computed by PyTorch call after call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .arrays import DTYPES

__all__ = ["tell_of_torch"]

_told: set[str] = set()


def tell_of_torch(module: torch.nn.RNNBase, weights: Sequence[Tensor], reason: str) -> None:
    """Warn that PyTorch computes this call, if `reason` is one that will not pass by itself.

    Of what only this call is about (a transform, an empty or a wrong input) nothing is said.
    """
    if reason in _told or torch.compiler.is_compiling() or not _lasts(module, weights):
        return
    _told.add(reason)
    warnings.warn(
        f"bptt.torch.{type(module).__name__} is computed by PyTorch's own kernels: {reason} "
        "(this is said once; see bptt.torch.why)",
        stacklevel=5,  # the line that calls the module
    )


def _lasts(module: torch.nn.RNNBase, weights: Sequence[Tensor]) -> bool:
    if module.proj_size or torch.is_autocast_enabled("cpu"):
        return True
    one = weights[0]
    if not isinstance(one, Tensor) or one.device.type == "meta":  # which computes nothing at all
        return False
    return one.dtype not in DTYPES or not one.is_cpu
