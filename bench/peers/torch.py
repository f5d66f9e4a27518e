"""PyTorch: ``torch.nn.RNN``, ``LSTM``, ``GRU``, and ``torch.autograd.grad``."""

from typing import Any

from ..problem import WEIGHTS, Outputs, Peer, Problem, Workload, named


def layer(problem: Problem) -> Any:
    """A module of one layer that has the problem's weights."""
    import torch

    kinds: dict[str, Any] = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    more = {} if problem.cell in kinds else {"nonlinearity": problem.cell}
    sizes, dtype = (problem.case.input_size, problem.case.hidden_size), problem.x.dtype.name
    module = kinds.get(problem.cell, torch.nn.RNN)(*sizes, dtype=getattr(torch, dtype), **more)
    module.load_state_dict(problem.params.to_torch())
    return module


class Torch(Peer):
    """The module that PyTorch users take; its CPU path is C++, with MKL for the products, and for
    the LSTM in float32 oneDNN. A loop in Python would be no fair opponent for a linear cell."""

    name = package = "torch"
    cells = ("tanh", "relu", "lstm", "gru")

    def version(self) -> str:
        import torch

        return f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        import torch

        torch.set_num_threads(threads)
        module = layer(problem)
        weights = list(module.parameters())  # in the order of `WEIGHTS`
        x = torch.tensor(problem.x, requires_grad=True)
        states = [torch.tensor(s[None], requires_grad=True) for s in problem.state]
        state = tuple(states) if len(states) > 1 else states[0]
        dy = torch.tensor(problem.dy)

        def call() -> Any:
            y, _ = module(x, state)
            return y, torch.autograd.grad(y, (x, *weights, *states), dy)

        return Workload(call, _outputs)


def _outputs(result: Any) -> Outputs:
    y, (dx, *rest) = result
    dweights, dstate = rest[: len(WEIGHTS)], [d[0] for d in rest[len(WEIGHTS) :]]
    return named(y.detach(), dx, dstate, dweights)
