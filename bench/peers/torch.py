"""PyTorch: ``torch.nn.RNN`` and ``torch.autograd.grad``."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from ..problem import Outputs, Problem
from .contract import Workload

if TYPE_CHECKING:
    import torch

__all__ = ["Torch"]

_NONLINEARITIES = ("tanh", "relu")
_WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


class Torch:
    """The module that PyTorch users take; its CPU path is C++, with MKL for the products."""

    name = "torch"
    is_own = False

    def missing(self) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "PyTorch is not installed (pip install torch)"
        return None

    def refuses(self, cell: str, dtype: str) -> str | None:
        # A loop in Python would be no fair opponent for a cell that torch.nn does not have.
        return None if cell in _NONLINEARITIES else f"torch.nn has no {cell} cell"

    def version(self) -> str:
        import torch

        return f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        import torch

        torch.set_num_threads(threads)
        module = _module(problem)
        weights = [getattr(module, f"{name}_l0") for name in _torch_names()]
        x = torch.tensor(problem.x, requires_grad=True)
        state = torch.tensor(problem.state[None], requires_grad=True)
        dy = torch.tensor(problem.dy)

        def call() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            y, _ = module(x, state)
            return y, torch.autograd.grad(y, (x, state, *weights), dy)

        return Workload(call, _outputs)


def _torch_names() -> tuple[str, ...]:
    """PyTorch's names of `_WEIGHTS`: weight_ih, weight_hh, bias_ih, bias_hh."""
    return tuple(n.replace("w_", "weight_").replace("b_", "bias_") for n in _WEIGHTS)


def _module(problem: Problem) -> torch.nn.RNN:
    """An RNN with the problem's weights."""
    import torch

    case = problem.case
    module = torch.nn.RNN(case.input_size, case.hidden_size, nonlinearity=problem.cell)
    module.to(dtype=getattr(torch, problem.dtype))
    with torch.no_grad():
        for name, torch_name in zip(_WEIGHTS, _torch_names(), strict=True):
            weight = getattr(module, f"{torch_name}_l0")
            weight.copy_(torch.tensor(getattr(problem.params, name)))
    return module


def _outputs(result: Any) -> Outputs:
    y, (dx, dstate, *dweights) = result
    arrays = {"y": y, "x": dx, "state": dstate[0], **dict(zip(_WEIGHTS, dweights, strict=True))}
    return {name: tensor.detach().numpy() for name, tensor in arrays.items()}
