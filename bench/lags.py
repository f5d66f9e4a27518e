"""``python -m bench lags``: what the gradient by lag costs, beside BPTT and beside brute force.

Figures with their goals: the pass of one lag, for a loss at every step, against a backward sweep
of the same engine (the sweep has dx, which a lag does not need; neither has the measures of the
lag); all lags of a loss at the last step, with their measures, against the loss and all gradients
by `value_and_grad`; all lags of a loss at every step against autograd with a copy of the weights
for each step; and the memory of many lags against that of forward and backward. Pairs are timed in
alternation; a figure is the median of their ratios, and meets its goal if the third quartile does.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bptt
import numpy as np
from bptt.lags.question import read_question

from .figure import Figure, write_figures
from .records import quartiles

__all__ = ["main"]

CELLS = ("tanh", "lstm", "gru")
# B, T, I, H; the most that a lag may take of a sweep
SWEEPS = ((32, 128, 128, 128, 0.8), (64, 128, 256, 256, 0.8), (32, 128, 1, 128, 1.05))
LAST = ((32, 128, 128, 128), (64, 128, 256, 256), (16, 256, 256, 256))
ALL_LAGS_GOAL, MEMORY_GOAL, BRUTE_FORCE_GOAL = 2.0, 2.5, 50.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 if every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench lags", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(arguments)
    from . import machine

    load, figures = machine.load_average(), []
    for figure in _figures(options.rounds):
        figures.append(figure)
        print(figure, flush=True)
    print(f"(medians of {options.rounds} rounds [quartiles]; load average {load:.2f} at the start;")
    print(" a figure passes if its third quartile, unrounded, meets the goal)")
    if options.out is not None:
        write_figures(options.out, figures, load, options.rounds, {})
    return 0 if all(figure.is_met for figure in figures) else 1


def _figures(rounds: int) -> Iterator[Figure]:
    for cell in CELLS:
        for *sizes, goal in SWEEPS:
            yield one_lag(cell, sizes, goal, rounds)
        for last in LAST:
            yield all_lags(cell, last, rounds)
    yield from against_autograd(max(3, rounds // 5))
    yield memory()


def _problem(cell: str, sizes: Sequence[int]) -> tuple[bptt.Params, Any, Any]:
    """Parameters, x and dy."""
    batch, steps, inputs, hidden = sizes
    params = bptt.init_params(cell, input_size=inputs, hidden_size=hidden, output_size=10, rng=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, inputs), dtype=np.float32)
    return params, x, rng.standard_normal((steps, batch, hidden), dtype=np.float32)


def _ratio(
    name: str, goal: float, rounds: int, one: Callable[[], Any], other: Callable[[], Any]
) -> Figure:
    """Time of `one` over that of `other`."""
    ratios = []
    for round_ in range(rounds + 1):
        begun = time.perf_counter()
        one()
        between = time.perf_counter()
        other()
        if round_:  # the first brings everything into the caches
            ratios.append((between - begun) / (time.perf_counter() - between))
    return Figure(name, "x", *quartiles(ratios), goal=goal)


def one_lag(cell: str, sizes: Sequence[int], goal: float, rounds: int) -> Figure:
    """A pass of one lag with its parameters' gradients, over Tape.backward(dy, out=grads)."""
    params, x, dy = _problem(cell, sizes)
    tape = bptt.forward(cell, params, x)
    grads = bptt.Grads.zeros(params, len(x), x.shape[1], cell=cell)
    (terms,) = read_question(cell, params, x, dy=dy).groups
    recorded = terms.recorded
    deltas = (dy, *(np.zeros_like(dy) for _ in recorded.after[1:]))
    into = tuple(map(np.empty_like, deltas))
    return _ratio(
        f"{cell} {_shown(sizes)}: one lag / a backward sweep",
        goal,
        rounds,
        lambda: recorded.pull_back(deltas, params, weights=True, into=into),
        lambda: tape.backward(dy, out=grads),
    )


def all_lags(cell: str, sizes: Sequence[int], rounds: int) -> Figure:
    """lag_gradients of a loss at the last step, over value_and_grad of the same."""
    params, x, _ = _problem(cell, sizes)
    ids = np.zeros(x.shape[1], int)
    return _ratio(
        f"{cell} {_shown(sizes)}: all lags at the last step / BPTT",
        ALL_LAGS_GOAL,
        rounds,
        lambda: bptt.lag_gradients(cell, params, x, ids, loss="cross_entropy", at="last"),
        lambda: bptt.value_and_grad(cell, params, x, ids, loss="cross_entropy", at="last"),
    )


def against_autograd(rounds: int) -> Iterator[Figure]:
    """All lags of a tanh network's loss at every step; autograd needs a pass for each step."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no comparison with autograd")
        return
    torch.set_num_threads(bptt.get_num_threads())
    sizes = (16, 100, 64, 64)
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
    figure = _ratio(
        f"tanh {_shown(sizes)}: all lags at every step / autograd with weight copies",
        1 / BRUTE_FORCE_GOAL,
        rounds,
        lambda: bptt.lag_gradients("tanh", bare, x, dy=dy),
        brute_force,
    )
    print(f"      autograd takes {1 / figure.median:.0f} times as long")
    yield figure


def memory() -> Figure:
    """Peak of 64 lags at every step over that of forward and backward, LSTM."""
    params, x, dy = _problem("lstm", (32, 1000, 128, 128))
    lags = np.unique(np.geomspace(1, 999, 64).astype(int))

    def peak(call: Callable[[], Any]) -> float:
        tracemalloc.start()
        call()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    plain = peak(lambda: bptt.forward("lstm", params, x).backward(dy))
    many = peak(lambda: bptt.lag_gradients("lstm", params, x, dy=dy, lags=lags))
    ratio = many / plain
    name = f"lstm B=32 T=1000 H=128: memory of {len(lags)} lags / of BPTT"
    return Figure(name, "x", ratio, ratio, ratio, goal=MEMORY_GOAL)


def _shown(sizes: Sequence[int]) -> str:
    return "B={} T={} I={} H={}".format(*sizes)
