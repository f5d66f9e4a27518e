"""What PyTorch is doing beside computing: which of three routes a pass takes.

- **eager**: nothing; the kernels are called right away
- **transforms**: of ``torch.func``, or forward-mode differentiation: Functions that these can take
  apart
- **operators**: torch.compile, torch.export, dispatch modes, tensors without values: an operator of
  PyTorch, known by its name and by the shapes of its results
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

__all__ = [
    "PLAIN",
    "TRACED",
    "Route",
    "by_composite",
    "forward_mode",
    "legacy_batch",
    "route",
    "traced",
    "transforms",
    "undisturbed",
]

PLAIN = (torch.Tensor, torch.nn.Parameter)
# Those of tensors that stand for others while PyTorch traces.
TRACED = (*PLAIN, FakeTensor, FunctionalTensor)


class Route(Enum):
    EAGER = "eager"
    TRANSFORMS = "transforms"
    OPERATORS = "operators"


def route(x: Any) -> Route:
    """Which one a pass over `x` takes now."""
    if transforms() or forward_mode():
        return Route.TRANSFORMS
    return Route.OPERATORS if traced(x) else Route.EAGER


def undisturbed() -> bool:
    """Whether PyTorch does nothing beside computing, whatever it computes with."""
    return not (
        torch.compiler.is_compiling()
        or transforms()
        or forward_mode()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._is_tracing()
        or torch.is_autocast_enabled("cpu")
    )


def transforms() -> bool:
    """Whether a transform of ``torch.func`` is active, or one that ``torch.autograd`` uses."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def legacy_batch(*tensors: Any) -> bool:
    """Whether one is a batch of ``torch.autograd.functional``: its vmap is not that of
    ``torch.func``, and no Function can take it apart."""
    is_batch = torch._C._functorch.is_legacy_batchedtensor
    return any(t is not None and is_batch(t) for t in tensors)


def forward_mode() -> bool:
    """Whether tensors may carry tangents."""
    return torch.autograd.forward_ad._current_level >= 0


def by_composite() -> bool:
    """Whether the transforms that are active take the equations in PyTorch's own operations."""
    return forward_mode() or (torch.compiler.is_compiling() and transforms())


def traced(x: Any) -> bool:
    """Whether somebody watches the operators that are called, or `x` has no values to compute."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    return type(x) not in PLAIN or not (x.is_cpu or x.is_cuda)
