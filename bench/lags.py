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
from typing import Any

import bptt
import numpy as np
from bptt.lags.question import read_question

from .figure import Figure, ratio, run_figures
from .options import add_out, add_rounds, sub_parser

__all__ = ["main"]

CELLS = ("tanh", "lstm", "gru")
# B, T, I, H; the most that a lag may take of a sweep
SWEEPS = ((32, 128, 128, 128, 0.8), (64, 128, 256, 256, 0.8), (32, 128, 1, 128, 1.05))
LAST = ((32, 128, 128, 128), (64, 128, 256, 256), (16, 256, 256, 256))
ALL_LAGS_GOAL, MEMORY_GOAL, BRUTE_FORCE_GOAL = 2.0, 2.5, 50.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 if every goal is met."""
    parser = sub_parser("lags", __doc__)
    add_rounds(parser, 15)
    add_out(parser)
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 15)
    return run_figures(options, _figures(options.rounds, quick=options.quick))


def _figures(rounds: int, *, quick: bool) -> Iterator[Figure]:
    """All of them; if `quick`, of each kind the first shape, which is the smallest."""
    for cell in CELLS:
        for *sizes, goal in SWEEPS[: 1 if quick else None]:
            yield one_lag(cell, sizes, goal, rounds)
        for last in LAST[: 1 if quick else None]:
            yield all_lags(cell, last, rounds)
    yield from against_autograd(1 if quick else max(3, rounds // 5), steps=10 if quick else 100)
    yield memory(steps=100 if quick else 1000)


def _problem(cell: str, sizes: Sequence[int]) -> tuple[bptt.Params, Any, Any]:
    """Parameters, x and dy."""
    batch, steps, inputs, hidden = sizes
    params = bptt.init_params(cell, input_size=inputs, hidden_size=hidden, output_size=10, rng=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, inputs), dtype=np.float32)
    return params, x, rng.standard_normal((steps, batch, hidden), dtype=np.float32)


def one_lag(cell: str, sizes: Sequence[int], goal: float, rounds: int) -> Figure:
    """A pass of one lag with its parameters' gradients, over Tape.backward(dy, out=grads)."""
    params, x, dy = _problem(cell, sizes)
    tape = bptt.forward(cell, params, x)
    grads = bptt.Grads.zeros(params, len(x), x.shape[1], cell=cell)
    (terms,) = read_question(cell, params, x, dy=dy).groups
    recorded = terms.recorded
    deltas = (dy, *(np.zeros_like(dy) for _ in recorded.after[1:]))
    into = tuple(map(np.empty_like, deltas))
    return ratio(
        f"{cell} {_shown(sizes)}: one lag / Tape.backward",
        goal,
        rounds,
        lambda: recorded.pull_back(deltas, params, weights=True, into=into),
        lambda: tape.backward(dy, out=grads),
    )


def all_lags(cell: str, sizes: Sequence[int], rounds: int) -> Figure:
    """lag_gradients of a loss at the last step, over value_and_grad of the same."""
    params, x, _ = _problem(cell, sizes)
    ids = np.zeros(x.shape[1], int)
    return ratio(
        f"{cell} {_shown(sizes)}: all lags at the last step / BPTT",
        ALL_LAGS_GOAL,
        rounds,
        lambda: bptt.lag_gradients(cell, params, x, ids, loss="cross_entropy", at="last"),
        lambda: bptt.value_and_grad(cell, params, x, ids, loss="cross_entropy", at="last"),
    )


def against_autograd(rounds: int, steps: int) -> Iterator[Figure]:
    """All lags of a tanh network's loss at every step; autograd needs a pass for each step."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no comparison with autograd")
        return
    torch.set_num_threads(bptt.get_num_threads())
    sizes = (16, steps, 64, 64)
    params, x, dy = _problem("tanh", sizes)
    inputs, incoming = torch.tensor(x), torch.tensor(dy)

    def brute_force() -> list[float]:
        w = [tuple(map(torch.tensor, (params.w_ih, params.w_hh))) for _ in x]
        for copies in w:
            for copy in copies:
                copy.requires_grad_()
        s, states = torch.zeros(x.shape[1], params.hidden_size), []
        for (w_ih, w_hh), x_t in zip(w, inputs, strict=True):
            s = torch.tanh(x_t @ w_ih.T + s @ w_hh.T)
            states.append(s)
        terms = [(torch.zeros(64, 64), torch.zeros(64, 64)) for _ in x]
        for t, s in enumerate(states):
            wanted = [copy for copies in w[: t + 1] for copy in copies]
            found = torch.autograd.grad(s, wanted, incoming[t], retain_graph=True)
            for k in range(t + 1):
                terms[t - k][0].add_(found[2 * k])
                terms[t - k][1].add_(found[2 * k + 1])
        return [float(term[1].norm()) for term in terms]

    bare = bptt.Params(params.w_ih, params.w_hh)
    expected = brute_force()
    lags = bptt.lag_gradients("tanh", bare, x, dy=dy)
    np.testing.assert_allclose(lags.norm["w_hh"], expected, rtol=1e-3)
    figure = ratio(
        f"tanh {_shown(sizes)}: all lags at every step / autograd with weight copies",
        1 / BRUTE_FORCE_GOAL,
        rounds,
        lambda: bptt.lag_gradients("tanh", bare, x, dy=dy),
        brute_force,
    )
    print(f"      autograd takes {1 / figure.median:.0f} times as long")
    yield figure


def memory(steps: int) -> Figure:
    """Peak of 64 lags at every step over that of forward and backward, LSTM."""
    params, x, dy = _problem("lstm", (32, steps, 128, 128))
    lags = np.unique(np.geomspace(1, steps - 1, 64).astype(int))

    def peak(call: Callable[[], Any]) -> float:
        tracemalloc.start()
        call()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    plain = peak(lambda: bptt.forward("lstm", params, x).backward(dy))
    many = peak(lambda: bptt.lag_gradients("lstm", params, x, dy=dy, lags=lags))
    found = many / plain
    name = f"lstm B=32 T={steps} H=128: memory of {len(lags)} lags / of BPTT"
    return Figure(name, "x ", found, found, found, goal=MEMORY_GOAL)


def _shown(sizes: Sequence[int]) -> str:
    return "B={} T={} I={} H={}".format(*sizes)
