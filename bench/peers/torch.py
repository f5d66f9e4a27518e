"""PyTorch: ``torch.nn.RNN``, ``LSTM``, ``GRU``, and ``torch.autograd.grad``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..problem import Outputs, Problem
from .contract import WEIGHTS, Peer, Workload, named

if TYPE_CHECKING:
    import torch

__all__ = ["Torch"]

# PyTorch's names of `WEIGHTS`: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0.
_NAMES = [f"{n.replace('w_', 'weight_').replace('b_', 'bias_')}_l0" for n in WEIGHTS]


class Torch(Peer):
    """The module that PyTorch users take; its CPU path is C++, with MKL for the products, and for
    the LSTM in float32 oneDNN."""

    name = package = "torch"
    cells = ("tanh", "relu", "lstm", "gru")

    def refuses(self, cell: str, dtype: str) -> str | None:
        # A loop in Python would be no fair opponent for a cell that torch.nn does not have.
        return None if cell in self.cells else f"torch.nn has no {cell} cell"

    def version(self) -> str:
        import torch

        return f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        import torch

        torch.set_num_threads(threads)
        module = _module(problem)
        weights = [getattr(module, name) for name in _NAMES]
        x = torch.tensor(problem.x, requires_grad=True)
        states = [torch.tensor(s[None], requires_grad=True) for s in problem.state]
        state = tuple(states) if len(states) > 1 else states[0]
        dy = torch.tensor(problem.dy)

        def call() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            y, _ = module(x, state)
            return y, torch.autograd.grad(y, (x, *weights, *states), dy)

        return Workload(call, _outputs)


def _module(problem: Problem) -> torch.nn.RNNBase:
    """A module with the problem's weights."""
    import torch

    kinds: dict[str, Any] = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    more = {} if problem.cell in kinds else {"nonlinearity": problem.cell}
    sizes = (problem.case.input_size, problem.case.hidden_size)
    module: torch.nn.RNNBase = kinds.get(problem.cell, torch.nn.RNN)(*sizes, **more)
    module.to(dtype=getattr(torch, problem.dtype))
    with torch.no_grad():
        for name, torch_name in zip(WEIGHTS, _NAMES, strict=True):
            getattr(module, torch_name).copy_(torch.tensor(getattr(problem.params, name)))
    return module


def _outputs(result: Any) -> Outputs:
    y, (dx, *rest) = result
    dweights, dstate = rest[: len(WEIGHTS)], [d[0] for d in rest[len(WEIGHTS) :]]
    return named(y.detach(), dx, dstate, dweights)
