"""``python -m bench builds A.so [B.so ...]``: compiled modules against each other, in alternation.

For changes of a kernel: `A.so` is `bptt._core` as it was built before, `B.so` after. Each is called
directly, with outputs that are written again and again, so that neither Python nor fresh memory is
in the figures. Without a name, the module that `bptt` uses is timed. Outputs are compared first:
builds may differ by rounding, not more.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bptt
import numpy as np
from bptt.backends import native

from .cases import Case, load_families, select
from .problem import Outputs, Problem, disagreement, make_problem, tolerance
from .records import quartiles

__all__ = ["main"]

_TURN = 0.03  # seconds of timed calls


def main(arguments: Sequence[str] | None = None) -> int:
    """Time every build at every case; print medians, quartiles, and the share of the FMA peak."""
    parser = argparse.ArgumentParser(prog="python -m bench builds", description=main.__doc__)
    parser.add_argument("builds", nargs="*", type=Path, metavar="CORE.so")
    parser.add_argument("--case", default="*", help="patterns of the design's cases, as 'B1-*'")
    parser.add_argument("--cell", default="tanh", choices=tuple(bptt.CELLS))
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--threads", type=int, default=bptt.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    options = parser.parse_args(arguments)
    cores = {path.name: _load(path, i) for i, path in enumerate(options.builds)}
    cores = cores or {"bptt._core": native._core}
    isa = native._core.isa()
    for core in cores.values():
        core.select_isa(isa)
    print(f"{options.cell} {options.dtype}, {isa}, {options.threads} threads; ms, [quartiles]")
    for case in select([load_families()["design"]], options.case.split(",")):
        print(_row(case, cores, options), flush=True)
    return 0


def _row(case: Case, cores: dict[str, Any], options: argparse.Namespace) -> str:
    problem = make_problem(case, options.cell, options.dtype)
    calls = [_bind(core, problem, options.threads) for core in cores.values()]
    for name, call in zip(cores, calls, strict=True):
        worst = max(disagreement(call(), problem.reference()).values())
        if not worst <= tolerance(problem):
            raise SystemExit(f"{name}, {case.name}: off by {worst:.1e}")
    samples: list[list[float]] = [[] for _ in calls]
    peaks = []
    for round_ in range(options.rounds):
        core = next(iter(cores.values()))
        peaks.append(core.fma_peak(options.dtype, options.threads))
        for i in range(len(calls)):
            turn = (i + round_) % len(calls)
            samples[turn].append(_turn(calls[turn]))
    text = f"{case.name:<22}"
    for seconds in samples:
        low, median, high = quartiles(seconds)
        share = case.flops(bptt.CELLS[options.cell].gates) / median / 1e9 / statistics.median(peaks)
        text += f"  {1e3 * median:9.4f} [{1e3 * low:.4f} - {1e3 * high:.4f}] {share:6.1%}"
    return text


def _turn(call: Callable[[], object]) -> float:
    """Seconds of a call, as the mean of some after one that is not timed."""
    call()
    begun, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - begun < _TURN:
        call()
        calls += 1
    return (time.perf_counter() - begun) / calls


def _load(path: Path, number: int) -> Any:
    """A build under a name of its own, so that several can be loaded."""
    spec = importlib.util.spec_from_file_location(f"build{number}._core", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path}: expected a compiled module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _bind(core: Any, p: Problem, threads: int) -> Callable[[], Outputs]:
    """Forward and backward of a problem by one build, into arrays of its own."""
    w = p.params
    state = p.state
    history = tuple(np.zeros_like(p.dy) for _ in state)
    last, ds = (tuple(map(np.zeros_like, state)) for _ in range(2))
    dx, dy = np.zeros_like(p.x), (p.dy, *(None for _ in state[1:]))
    values = core.SAVED[p.cell]
    saved = np.zeros((*p.dy.shape[:2], values, p.dy.shape[2]), p.dy.dtype) if values else None
    grads = {name: np.zeros_like(array) for name, array in w.arrays().items()}

    def call() -> Outputs:
        layer = (p.cell, threads, p.x, state, w.w_ih, w.w_hh)
        core.forward(*layer, w.b_ih, w.b_hh, history, last, saved)
        core.backward(
            *layer, w.b_ih, w.b_hh, history, saved, dy, None, False, dx, ds, *grads.values()
        )
        states = dict(zip(("state", "c"), ds, strict=False))
        return {"y": history[0], "x": dx, **states, **grads}

    return call
