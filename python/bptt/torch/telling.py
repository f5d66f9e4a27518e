"""A warning, once for each reason, where a module is computed by PyTorch call after call."""

from __future__ import annotations

import warnings

import torch

from .reasons import Reason

__all__ = ["tell_of_torch"]

_told: set[str] = set()


def tell_of_torch(module: torch.nn.RNNBase, reason: Reason) -> None:
    """Warn that PyTorch computes this call, if the reason will not pass by itself."""
    if not reason.lasts or reason.text in _told or torch.compiler.is_compiling():
        return
    _told.add(reason.text)
    warnings.warn(
        f"bptt.torch.{type(module).__name__} is computed by PyTorch's own kernels: {reason.text} "
        "(this is said once; see bptt.torch.why)",
        stacklevel=5,  # the line that calls the module
    )
