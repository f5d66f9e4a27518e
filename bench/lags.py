"""What the gradient by lag costs, each figure with a goal, as a ratio of two times:

- the pass of one lag, of a loss at every step, over a backward pass of the same network (which has
  the gradient of x too, and a lag does not)
- all lags of a loss at the last step, by `lag_gradients`, over its loss and gradients by
  `value_and_grad`
- all lags of a loss at every step over PyTorch's autograd with a copy of the weights for each step
- memory: the peak of 64 lags over that of `forward` and `Tape.backward`

The two of a pair take turns. Some three minutes; the third needs PyTorch.
"""

import itertools
import tracemalloc
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import bptt
import numpy as np
from bptt.lags.question import read_question

from . import session
from .cases import Case
from .peers import all_peers
from .problem import Problem, make_problem
from .timing import Sample, Task, Timed, judged

_CELLS = ("tanh", "lstm", "gru")
# B, T, I, H; the most that a lag may take of a sweep
_ONE = {(32, 128, 128, 128): 0.8, (64, 128, 256, 256): 0.8, (32, 128, 1, 128): 1.05}
_LAST = ((32, 128, 128, 128), (64, 128, 256, 256), (16, 256, 256, 256))
_ALL_LAGS_GOAL, _MEMORY_GOAL, _BRUTE_FORCE_GOAL = 2.0, 2.5, 1 / 50


def _tasks(options: Namespace) -> Iterator[Task]:
    """All of them; if quick, of each kind the first shape, which is the smallest."""
    rounds, most = options.rounds, 1 if options.quick else None
    for cell, shape in itertools.product(_CELLS, list(_ONE)[:most]):
        yield one_lag(_problem(cell, *shape), _ONE[shape], rounds)
    for cell, shape in itertools.product(_CELLS, _LAST[:most]):
        yield all_lags(_problem(cell, *shape), rounds)
    if all_peers()["torch"].missing() is None:
        steps, fewer = (10, 1) if options.quick else (100, max(3, rounds // 5))
        yield against_autograd(_problem("tanh", 16, steps, 64, 64), fewer, options.threads)
    yield memory(_problem("lstm", 32, 100 if options.quick else 1000, 128, 128))


_PEERS = ("native", "numba", "numpy", "torch")
main = session.command(
    "lags", __doc__, "the gradient by lag", _tasks, *_PEERS, rounds=(15, 1), min_time=(0, 0)
)


def _problem(cell: str, *shape: int) -> Problem:
    return make_problem(Case("lags", *shape), cell, "float32")


def one_lag(p: Problem, goal: float, rounds: int) -> Task:
    """A pass of one lag with its parameters' gradients, over Tape.backward(dy, out=grads)."""
    tape = bptt.forward(p.cell, p.params, p.x)
    grads = bptt.Grads.zeros(p.params, *p.x.shape[:2], cell=p.cell)
    (terms,) = read_question(p.cell, p.params, p.x, dy=p.dy).groups
    recorded = terms.layers[0].recorded
    deltas = (p.dy, *(np.zeros_like(p.dy) for _ in recorded.after[1:]))
    into = tuple(map(np.empty_like, deltas))
    lag = partial(recorded.pull_back, deltas, weights=True, into=into)
    turns = {
        "one lag": Timed(lag),
        "Tape.backward": Timed(lambda: tape.backward(p.dy, out=grads)),
    }
    return judged(p.row("one lag over a backward pass"), goal, turns, rounds)


def all_lags(p: Problem, rounds: int) -> Task:
    """lag_gradients of a loss at the last step, over value_and_grad of the same."""
    i, h = p.case.input_size, p.case.hidden_size
    params = bptt.init_params(p.cell, input_size=i, hidden_size=h, output_size=10, rng=0)
    inputs = (p.cell, params, p.x, np.zeros(p.case.batch, int))
    turns = {
        call.__name__: Timed(partial(call, *inputs, loss="cross_entropy", at="last"))
        for call in (bptt.lag_gradients, bptt.value_and_grad)
    }
    row = p.row("all lags of a loss at the last step, over BPTT")
    return judged(row, _ALL_LAGS_GOAL, turns, rounds)


def against_autograd(p: Problem, rounds: int, threads: int) -> Task:
    """All lags of a tanh network's loss at every step; autograd needs a pass for each step."""
    import torch

    torch.set_num_threads(threads)
    bare = bptt.Params(p.params.w_ih, p.params.w_hh)
    by_lag = partial(bptt.lag_gradients, "tanh", bare, p.x, dy=p.dy)

    def autograd() -> list[float]:
        def leaf(array: Any) -> Any:
            return torch.tensor(array, requires_grad=True)

        copies: list[Any] = []  # w_ih and w_hh of step 0, of step 1, ...
        terms = [torch.zeros(len(p.x), *w.shape) for w in (bare.w_ih, bare.w_hh)]
        s = torch.zeros(p.case.batch, bare.hidden_size)
        for x_t, dy_t in zip(torch.tensor(p.x), torch.tensor(p.dy), strict=True):
            copies += map(leaf, (bare.w_ih, bare.w_hh))
            s = torch.tanh(x_t @ copies[-2].T + s @ copies[-1].T)
            found = torch.autograd.grad(s, copies, dy_t, retain_graph=True)
            for lag, (d_w_ih, d_w_hh) in enumerate(zip(found[-2::-2], found[::-2], strict=True)):
                terms[0][lag] += d_w_ih
                terms[1][lag] += d_w_hh
        return [float(term.norm()) for term in terms[1]]

    np.testing.assert_allclose(by_lag().norm["w_hh"], autograd(), rtol=1e-3)
    turns = {"lag_gradients": Timed(by_lag), "autograd": Timed(autograd)}
    row = p.row("all lags of a loss at every step, over autograd with copies of the weights")
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
    return judged(p.row("memory of lags over BPTT", "MB"), _MEMORY_GOAL, turns, 1)
