"""Modules of `bptt.torch` against torch.nn's with the same weights, each figure with a goal.

- steps: a training step (forward, the loss sum(y * dy), backward, SGD) at the shapes of the family
  `design`, of two layers, of both directions, and with the batch first
- packed: the same of a PackedSequence, whose lengths rise evenly from 1 to T
- calls: one call at T = B = 1, without gradients and with
- compiled: a training step of a layer and a readout by torch.compile, over the same without it; as
  a control, without a goal, with a torch.nn.Linear for the layer; and the first step, which
  compiles, of bptt.torch over torch.nn's
- beside: a call (forward, and the gradients of the weights) in alternation with a product of two
  512 x 512 matrices by torch.matmul, each over its own time alone; as controls, without a goal,
  torch.nn's beside it, and the product beside a copy of as many bytes as the call has in arrays,
  beside a larger product, and after a while of nothing

As in training, x is data, whose gradient nobody asks for. The two of a pair take turns, outputs and
gradients are compared first. Some eight minutes; needs PyTorch.
"""

import copy
import itertools
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import bptt
import numpy as np

from . import session
from .cases import Case, load_families
from .options import choose, make_parser, names, parse
from .peers import all_peers, versions
from .problem import Outputs, make_problem, tolerance, worst_output
from .records import Record, Row
from .timing import Sample, Task, Timed, alternate, judged

# Makes the call that is timed, of a module, x and dy.
Kind = Callable[[Any, Any, Any], Callable[[], object]]

_CELLS = ("lstm", "gru", "tanh")
_VARIANTS = ({"num_layers": 2}, {"bidirectional": True}, {"batch_first": True})
_OF_VARIANTS = (32, 128, 128, 128)  # B, T, I, H
_RAGGED, _SMALL_LONG = (32, 128, 128, 128), (8, 2000, 64, 64)
_SMALL, _SMALLER = (1, 1, 64, 64), (4, 40, 17, 33)  # the second with --quick
_STEP_GOAL, _RAGGED_GOAL, _SMALL_LONG_GOAL = 1.0, 1 / 8, 1 / 20
_COMPILED_GOAL = 1.0
_COMPILING = (4, 8, 32, 32)  # torch.compile traces all steps of torch.nn's
_CALL_GOALS = {"without gradients": 0.6, "with gradients": 0.7}
_BESIDE_GOAL = 1.05
_MEANS = {"lstm": 1 / 1.5, "gru": 1 / 3, "tanh": 1 / 2.5}  # of the steps of a cell
_STEP = "a training step of bptt.torch over torch.nn's, {}"
_RATE = 1e-9  # of learning: the next step finds the same weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = make_parser("torch", __doc__, rounds=(7, 1), min_time=(0.03, 0))
    parser.add_argument("--part", type=names, default=(), metavar="LIST", help=", ".join(_PARTS))
    parser.add_argument("--cell", type=names, default=(), metavar="LIST", help=", ".join(_CELLS))
    options = parse(parser, arguments)
    parts = choose(parser, "--part", options.part, _PARTS)
    options.cell = tuple(choose(parser, "--cell", options.cell, dict.fromkeys(_CELLS)))
    if reason := all_peers()["torch"].missing():
        parser.error(reason)
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tasks = itertools.chain.from_iterable(part(options) for part in parts.values())
    return session.run(
        options,
        tasks,
        titles={"torch": "PyTorch's modules"},
        versions=versions("native", "torch"),
        means={_STEP.format(cell): goal for cell, goal in _MEANS.items()},
    )


def _steps(options: Namespace) -> Iterator[Task]:
    shapes = [_SMALLER]
    if not options.quick:
        cases = load_families()["design"].cases
        shapes = [(c.batch, c.steps, c.input_size, c.hidden_size) for c in cases]
    of_variants = _SMALLER if options.quick else _OF_VARIANTS
    for cell in options.cell:
        pairs = [Pair.make(cell, shape) for shape in shapes]
        pairs += [Pair.make(cell, of_variants, **how) for how in _VARIANTS]
        for pair in pairs:
            yield _contest(pair, _STEP.format(cell), Step, _STEP_GOAL, options)


def _packed(options: Namespace) -> Iterator[Task]:
    kinds = [(_RAGGED, _RAGGED_GOAL), (_SMALL_LONG, _SMALL_LONG_GOAL)]
    for shape, goal in [(_SMALLER, _RAGGED_GOAL)] if options.quick else kinds:
        for cell in options.cell:
            pair = Pair.make(cell, shape)
            work = "a training step of a PackedSequence over torch.nn's"
            yield _contest(pair.packed(), work, Step, goal, options, most=3)


def _calls(options: Namespace) -> Iterator[Task]:
    kinds: dict[str, Kind] = {"without gradients": Inference, "with gradients": Gradients}
    for (name, kind), cell in itertools.product(kinds.items(), options.cell):
        pair = Pair.make(cell, _SMALL)
        work = f"one call {name} over torch.nn's"
        yield _contest(pair, work, kind, _CALL_GOALS[name], options, unit="us")


def _compiled(options: Namespace) -> Iterator[Task]:
    import bptt.torch
    import torch

    bptt.torch.allow_compile()
    backend = "aot_eager" if options.quick else "inductor"  # which needs a C++ compiler
    compiled = partial(torch.compile, fullgraph=True, backend=backend)
    work = "a training step by torch.compile, over without"
    for shape in [_SMALLER] if options.quick else [_OF_VARIANTS, _SMALL]:
        for cell in options.cell[: 1 if options.quick else None]:
            pair = Pair.make(cell, shape)
            yield _over_eager(pair.name, pair.ours, pair, _COMPILED_GOAL, compiled, work, options)
        name = f"Linear {pair.name.partition(' ')[2]}"
        layer = _linear_layer(*shape[2:])
        yield _over_eager(name, layer, pair, None, compiled, work, options)
    for cell in options.cell[: 1 if options.quick else None]:
        pair = Pair.make(cell, _COMPILING)
        row = Row("torch", "a first training step by torch.compile over torch.nn's", pair.name)
        turns: dict[str, FirstStep] = {}
        for name, module in (("bptt.torch", pair.ours), ("torch.nn", pair.theirs)):
            turn = FirstStep(module, pair.x, pair.dy, compiled)
            try:
                turn()
                turns[name] = turn
            except Exception as error:  # Inductor takes no LSTM of PyTorch 2.13's own
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]:.80}"
                row.records[name] = Record("refused" if name == "torch.nn" else "failed", reason)
        yield judged(row, _COMPILED_GOAL if len(turns) > 1 else None, turns, 1)


def _over_eager(
    name: str,
    layer: Any,
    pair: "Pair",
    goal: float | None,
    compiled: Callable[[Any], Any],
    work: str,
    options: Namespace,
) -> Task:
    import torch

    torch._dynamo.reset()  # else it asks the guards of the models before, too
    model = _with_readout(layer)
    modules = {"compiled": compiled(copy.deepcopy(model)), "eager": model}
    turns = {}
    for who, module in modules.items():
        step = Step(module, pair.x, pair.dy)
        for _ in range(3):
            step()  # compiles, which is not what the number of calls of a turn goes by
        turns[who] = Timed(step, options.min_time)
    return judged(Row("torch", work, name), goal, turns, options.rounds)


def _linear_layer(inputs: int, hidden: int) -> Any:
    """A torch.nn.Linear that returns what a layer does."""
    import torch

    class Linear(torch.nn.Linear):  # type: ignore[misc, unused-ignore]
        hidden_size = hidden

        def forward(self, x: Any) -> Any:
            return (super().forward(x),)

    return Linear(inputs, hidden)


def _with_readout(layer: Any) -> Any:
    """A model that holds the layer: of y as many outputs, in a tuple as the layer has them."""
    import torch

    class Model(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer
            self.readout = torch.nn.Linear(layer.hidden_size, layer.hidden_size)

        def forward(self, x: Any) -> Any:
            return (self.readout(self.layer(x)[0]),)

    return Model()


def _beside(options: Namespace) -> Iterator[Task]:
    import torch

    square, larger = torch.randn(2, 512, 512), torch.randn(2, 1024, 1024)
    product = partial(torch.matmul, *square)
    pair = Pair.make(options.cell[0], _SMALLER if options.quick else _OF_VARIANTS)
    copied = torch.empty(2, pair.nbytes() // 8)  # float32, as many read as written
    controls: dict[str, Callable[[], object]] = {
        f"a copy of {pair.nbytes() >> 20} MiB": partial(copied[0].copy_, copied[1]),
        "a product of 1024 x 1024": partial(torch.matmul, *larger),
        "a loop of 10 ms": partial(_wait, 0.01),
    }
    for name, control in controls.items():
        work = "torch.matmul beside other work, over alone"
        yield _alternating(work, product, control, f"beside {name}", None, options)
    for cell in options.cell[: 1 if options.quick else None]:
        pair = Pair.make(cell, _SMALLER if options.quick else _OF_VARIANTS)
        for name, module in (("bptt.torch", pair.ours), ("torch.nn", pair.theirs)):
            call = Gradients(module, pair.x, pair.dy)
            goal = _BESIDE_GOAL if name == "bptt.torch" else None
            for work, one, other in (
                (f"a call of {name} beside torch.matmul, over alone", call, product),
                (f"torch.matmul beside a call of {name}, over alone", product, call),
            ):
                yield _alternating(work, one, other, pair.name, goal, options)


def _wait(seconds: float) -> None:
    """Busy, but with next to no memory."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _alternating(
    work: str,
    one: Callable[[], object],
    other: Callable[[], object],
    name: str,
    goal: float | None,
    options: Namespace,
) -> Task:
    turns = {
        "beside": Alternating(one, options.min_time, other=other),
        "alone": Alternating(one, options.min_time),
    }
    return judged(Row("torch", work, name), goal, turns, options.rounds)


_PARTS = {
    "steps": _steps,
    "packed": _packed,
    "calls": _calls,
    "compiled": _compiled,
    "beside": _beside,
}


@dataclass(frozen=True)
class Pair:
    """Two modules with the same weights, and what they are to do.

    Attributes
    ----------
    name : str
        Of the row.
    ours, theirs : torch.nn.Module
        Of `bptt.torch`, and of torch.nn.
    x : Tensor or PackedSequence
    dy : Tensor
        dL/dy, of the shape of y, or of its packed rows.
    allowed : float
        How far outputs may differ, as ||ours - theirs|| / ||theirs||.
    """

    name: str
    ours: Any
    theirs: Any
    x: Any
    dy: Any
    allowed: float

    @classmethod
    def make(cls, cell: str, shape: tuple[int, int, int, int], **how: Any) -> "Pair":
        """`how` is for the constructor of the modules."""
        import bptt.torch
        import torch

        case = Case("torch", *shape)
        kinds: dict[str, Any] = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "tanh": torch.nn.RNN}
        theirs = kinds[cell](case.input_size, case.hidden_size, **how)
        ours = copy.deepcopy(theirs)
        bptt.torch.replace(ours)
        first, second = (shape[0], shape[1]) if "batch_first" in how else (shape[1], shape[0])
        x = torch.randn(first, second, case.input_size)
        dy = torch.randn(first, second, case.hidden_size * (2 if "bidirectional" in how else 1))
        options = (f"{k}={v}" if v is not True else k for k, v in how.items())
        name = " ".join([cell, case.name, *options])
        # Each of the two errs by as much at most, in each layer.
        allowed = 2 * how.get("num_layers", 1) * tolerance(make_problem(case, cell, "float32"))
        return cls(name, ours, theirs, x, dy, allowed)

    def nbytes(self) -> int:
        """Of the arrays with a row for each step and sequence that a call of ours reads and writes:
        x, dy, states, gates, and their gradients."""
        cell = bptt.CELLS[self.name.split()[0]]
        hidden = (1 + len(cell.states) + cell.saved + cell.gates) * self.ours.hidden_size
        steps, batch, inputs = self.x.shape
        return int(steps * batch * (inputs + hidden) * 4)

    def packed(self) -> "Pair":
        """The same with rows of the lengths 1 ... T."""
        from torch.nn.utils.rnn import pack_padded_sequence

        steps, batch, _ = self.x.shape
        lengths = np.linspace(steps, 1, batch).round().astype(int).tolist()
        x, dy = (pack_padded_sequence(a, lengths) for a in (self.x, self.dy))
        return Pair(self.name, self.ours, self.theirs, x, dy.data, self.allowed)


@dataclass
class Inference:
    """The outputs alone."""

    module: Any
    x: Any
    dy: Any

    def __call__(self) -> object:
        import torch

        with torch.no_grad():
            return self.module(self.x)


@dataclass
class Gradients:
    """The outputs, and the gradients of the weights."""

    module: Any
    x: Any
    dy: Any

    def __post_init__(self) -> None:
        self.weights = list(self.module.parameters())

    def __call__(self) -> object:
        import torch

        return torch.autograd.grad(self.module(self.x)[0], self.weights, self.dy)


@dataclass
class Step:
    """A training step."""

    module: Any
    x: Any
    dy: Any

    def __post_init__(self) -> None:
        import torch

        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=_RATE)

    def __call__(self) -> object:
        self.optimizer.zero_grad()
        loss = (_values(self.module(self.x)[0]) * self.dy).sum()
        loss.backward()
        self.optimizer.step()
        return loss


@dataclass
class FirstStep:
    """A training step that begins with compiling, which nothing is remembered of."""

    module: Any
    x: Any
    dy: Any
    compiled: Callable[[Any], Any]

    def __call__(self) -> Sample:
        import torch

        torch._dynamo.reset()
        warnings.filterwarnings("ignore", "dynamo_pgo force disabled")
        with torch._inductor.config.patch(force_disable_caches=True):
            module = self.compiled(copy.deepcopy(self.module))
            began, used = time.perf_counter(), time.process_time()
            Step(module, self.x, self.dy)()
            wall, cpu = time.perf_counter() - began, time.process_time() - used
        return Sample(wall, cpu / wall)


@dataclass
class Alternating(Timed):
    """A call that is timed alone, with another one that is not before each."""

    other: Callable[[], object] = lambda: None

    def _clock(self) -> tuple[float, float]:
        wall = cpu = 0.0
        for _ in range(self.calls):
            self.other()
            began, used = time.perf_counter(), time.process_time()
            self.call()
            wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - used
        return wall / self.calls, cpu / self.calls


def _contest(
    pair: Pair,
    work: str,
    kind: Kind,
    goal: float,
    options: Namespace,
    *,
    most: int = sys.maxsize,  # rounds
    unit: str = "ms",
) -> Task:
    """Ours over torch.nn's, if it does equal work."""
    row = Row("torch", work, pair.name, unit=unit)
    both = {"bptt.torch": pair.ours, "torch.nn": pair.theirs}
    worst, error = worst_output(*(_outputs(module, pair) for module in both.values()))
    if not error <= pair.allowed:
        reason = f"{worst} is off by {error:.1e}, allowed is {pair.allowed:.1e}"
        row.records["bptt.torch"] = Record("wrong", reason)
        return Task(row, alternate({}, 0))
    turns = {
        name: Timed(kind(module, pair.x, pair.dy), options.min_time)
        for name, module in both.items()
    }
    return judged(row, goal, turns, min(options.rounds, most))


def _outputs(module: Any, pair: Pair) -> Outputs:
    """y, and the gradients of the weights, in float64."""
    import torch

    weights = dict(module.named_parameters())
    y = _values(module(pair.x)[0])
    grads = torch.autograd.grad(y, [*weights.values()], pair.dy)
    found = {"y": y.detach(), **dict(zip(weights, grads, strict=True))}
    return {name: tensor.double().numpy() for name, tensor in found.items()}


def _values(y: Any) -> Any:
    """Of a tensor or a PackedSequence: its rows."""
    return getattr(y, "data", y) if isinstance(y, tuple) else y
