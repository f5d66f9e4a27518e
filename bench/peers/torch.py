"""PyTorch: ``torch.nn.RNN``, ``LSTM``, ``GRU``, and ``torch.autograd.grad``."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from ..problem import Outputs, Problem
from .contract import Workload

if TYPE_CHECKING:
    import torch

__all__ = ["Torch"]

_CELLS = ("tanh", "relu", "lstm", "gru")
_WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


class Torch:
    """The module that PyTorch users take; its CPU path is C++, with MKL for the products, and for
    the LSTM in float32 oneDNN."""

    name = "torch"
    is_own = False

    def missing(self) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "PyTorch is not installed (pip install torch)"
        return None

    def refuses(self, cell: str, dtype: str) -> str | None:
        # A loop in Python would be no fair opponent for a cell that torch.nn does not have.
        return None if cell in _CELLS else f"torch.nn has no {cell} cell"

    def version(self) -> str:
        import torch

        return f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        import torch

        torch.set_num_threads(threads)
        module = _module(problem)
        weights = [getattr(module, f"{name}_l0") for name in _torch_names()]
        x = torch.tensor(problem.x, requires_grad=True)
        states = [torch.tensor(s[None], requires_grad=True) for s in problem.state]
        state = tuple(states) if len(states) > 1 else states[0]
        dy = torch.tensor(problem.dy)

        def call() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            y, _ = module(x, state)
            return y, torch.autograd.grad(y, (x, *weights, *states), dy)

        return Workload(call, _outputs)


def _torch_names() -> tuple[str, ...]:
    """PyTorch's names of `_WEIGHTS`: weight_ih, weight_hh, bias_ih, bias_hh."""
    return tuple(n.replace("w_", "weight_").replace("b_", "bias_") for n in _WEIGHTS)


def _module(problem: Problem) -> torch.nn.RNNBase:
    """A module with the problem's weights."""
    import torch

    sizes = (problem.case.input_size, problem.case.hidden_size)
    module: torch.nn.RNNBase
    if problem.cell == "lstm":
        module = torch.nn.LSTM(*sizes)
    elif problem.cell == "gru":
        module = torch.nn.GRU(*sizes)
    else:
        module = torch.nn.RNN(*sizes, nonlinearity=problem.cell)
    module.to(dtype=getattr(torch, problem.dtype))
    with torch.no_grad():
        for name, torch_name in zip(_WEIGHTS, _torch_names(), strict=True):
            weight = getattr(module, f"{torch_name}_l0")
            weight.copy_(torch.tensor(getattr(problem.params, name)))
    return module


def _outputs(result: Any) -> Outputs:
    y, (dx, *rest) = result
    arrays = {"y": y, "x": dx, **dict(zip(_WEIGHTS, rest[: len(_WEIGHTS)], strict=True))}
    dstates = rest[len(_WEIGHTS) :]
    arrays.update((name, d[0]) for name, d in zip(("state", "c"), dstates, strict=False))
    return {name: tensor.detach().numpy() for name, tensor in arrays.items()}
