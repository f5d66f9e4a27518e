"""What the gradient by lag costs, each figure with a goal, as a ratio of two times:

- the pass of one lag, of a loss at every step, over a backward pass of the same network (which has
  the gradient of x too, and a lag does not)
- all lags of a loss at the last step, by `lag_gradients`, over its loss and gradients by
  `value_and_grad`
- all lags of a loss at every step over PyTorch's autograd with a copy of the weights for each step
- memory: the peak of 64 lags over that of `forward` and `Tape.backward`

The two of a pair take turns. Some three minutes; the third needs PyTorch.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import bptt
import numpy as np
from bptt.lags.question import read_question

from . import session
from .cases import Case
from .options import make_parser, parse
from .peers import all_peers, versions
from .problem import Problem, make_problem
from .records import Row
from .timing import Sample, Task, Timed, judged

__all__ = ["main"]

_CELLS = ("tanh", "lstm", "gru")
_FAMILY = "lags"
# B, T, I, H; the most that a lag may take of a sweep
_ONE = {(32, 128, 128, 128): 0.8, (64, 128, 256, 256): 0.8, (32, 128, 1, 128): 1.05}
_LAST = ((32, 128, 128, 128), (64, 128, 256, 256), (16, 256, 256, 256))
_ALL_LAGS_GOAL, _MEMORY_GOAL, _BRUTE_FORCE_GOAL = 2.0, 2.5, 1 / 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is `session.run`'s."""
    full, quick = {"rounds": 15, "min_time": 0.0}, {"rounds": 1, "min_time": 0.0}
    options = parse(make_parser("lags", __doc__, full, quick), arguments)
    found = versions("native", "numba", "numpy", "torch")
    titles = {_FAMILY: "the gradient by lag"}
    tasks = _tasks(options.rounds, options.threads, quick=options.quick)
    return session.run(options, tasks, titles=titles, versions=found)


def _tasks(rounds: int, threads: int, *, quick: bool) -> Iterator[Task]:
    """All of them; if `quick`, of each kind the first shape, which is the smallest."""
    most = 1 if quick else None
    for cell in _CELLS:
        for shape in list(_ONE)[:most]:
            yield one_lag(_problem(cell, *shape), _ONE[shape], rounds)
    for cell in _CELLS:
        for last in _LAST[:most]:
            yield all_lags(_problem(cell, *last), rounds)
    if all_peers()["torch"].missing() is None:
        steps, fewer = (10, 1) if quick else (100, max(3, rounds // 5))
        yield against_autograd(_problem("tanh", 16, steps, 64, 64), fewer, threads)
    yield memory(_problem("lstm", 32, 100 if quick else 1000, 128, 128))


def _problem(cell: str, *shape: int) -> Problem:
    return make_problem(Case(_FAMILY, *shape), cell, "float32")


def _row(work: str, p: Problem, unit: str = "ms") -> Row:
    return Row(_FAMILY, work, f"{p.cell} {p.case.name}", unit=unit)


def one_lag(p: Problem, goal: float, rounds: int) -> Task:
    """A pass of one lag with its parameters' gradients, over Tape.backward(dy, out=grads)."""
    tape = bptt.forward(p.cell, p.params, p.x)
    grads = bptt.Grads.zeros(p.params, *p.x.shape[:2], cell=p.cell)
    (terms,) = read_question(p.cell, p.params, p.x, dy=p.dy).groups
    recorded = terms.recorded
    deltas = (p.dy, *(np.zeros_like(p.dy) for _ in recorded.after[1:]))
    into = tuple(map(np.empty_like, deltas))
    turns = {
        "one lag": Timed(lambda: recorded.pull_back(deltas, p.params, weights=True, into=into)),
        "Tape.backward": Timed(lambda: tape.backward(p.dy, out=grads)),
    }
    return judged(_row("one lag over a backward pass", p), goal, turns, rounds)


def all_lags(p: Problem, rounds: int) -> Task:
    """lag_gradients of a loss at the last step, over value_and_grad of the same."""
    i, h = p.case.input_size, p.case.hidden_size
    params = bptt.init_params(p.cell, input_size=i, hidden_size=h, output_size=10, rng=0)
    inputs = (p.cell, params, p.x, np.zeros(p.case.batch, int))
    turns = {
        call.__name__: Timed(partial(call, *inputs, loss="cross_entropy", at="last"))
        for call in (bptt.lag_gradients, bptt.value_and_grad)
    }
    row = _row("all lags of a loss at the last step, over BPTT", p)
    return judged(row, _ALL_LAGS_GOAL, turns, rounds)


def against_autograd(p: Problem, rounds: int, threads: int) -> Task:
    """All lags of a tanh network's loss at every step; autograd needs a pass for each step."""
    import torch

    torch.set_num_threads(threads)
    bare = bptt.Params(p.params.w_ih, p.params.w_hh)
    inputs, incoming = torch.tensor(p.x), torch.tensor(p.dy)

    def by_lag() -> Any:
        return bptt.lag_gradients("tanh", bare, p.x, dy=p.dy)

    def autograd() -> list[float]:
        weights = [tuple(map(torch.tensor, (bare.w_ih, bare.w_hh))) for _ in p.x]
        for copies in weights:
            for copy in copies:
                copy.requires_grad_()
        s, states = torch.zeros(p.case.batch, bare.hidden_size), []
        for (w_ih, w_hh), x_t in zip(weights, inputs, strict=True):
            s = torch.tanh(x_t @ w_ih.T + s @ w_hh.T)
            states.append(s)
        terms = [tuple(map(torch.zeros_like, pair)) for pair in weights]
        for t, s in enumerate(states):
            wanted = [copy for copies in weights[: t + 1] for copy in copies]
            found = torch.autograd.grad(s, wanted, incoming[t], retain_graph=True)
            for k in range(t + 1):
                for term, part in zip(terms[t - k], found[2 * k :], strict=False):
                    term.add_(part)
        return [float(term.norm()) for _, term in terms]

    np.testing.assert_allclose(by_lag().norm["w_hh"], autograd(), rtol=1e-3)
    turns = {"lag_gradients": Timed(by_lag), "autograd": Timed(autograd)}
    row = _row("all lags of a loss at every step, over autograd with copies of the weights", p)
    return judged(row, _BRUTE_FORCE_GOAL, turns, rounds)


def memory(p: Problem) -> Task:
    """Peak of 64 lags at every step over that of forward and backward."""
    lags = np.unique(np.geomspace(1, p.case.steps - 1, 64).astype(int))

    def peak(call: Callable[[], object]) -> Sample:
        tracemalloc.start()
        call()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return Sample(found)

    inputs = (p.cell, p.params, p.x)
    lagged = partial(bptt.lag_gradients, *inputs, dy=p.dy, lags=lags)
    turns = {
        f"{len(lags)} lags": partial(peak, lagged),
        "BPTT": partial(peak, lambda: bptt.forward(*inputs).backward(p.dy)),
    }
    return judged(_row("memory of lags over BPTT", p, "MB"), _MEMORY_GOAL, turns, 1)
