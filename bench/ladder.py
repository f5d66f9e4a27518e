"""From naive loops to the kernels, rung by rung, at one shape: tanh, float32, B=32, T=I=H=128.

The rungs: loops compiled by Numba; NumPy; the Numba backend; the native backend with each
instruction set of this CPU on one thread, and with the best on all. Each computes the forward pass
and all gradients, which are checked before they are timed. Half a minute; needs Numba.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import bptt
from bptt.backends import native

from . import machine
from .cases import Case
from .naive import compile_naive
from .options import add_out, add_rounds, sub_parser
from .peers import all_peers
from .problem import Outputs, Problem, disagreement, make_problem, run_bptt, tolerance
from .records import quartiles

__all__ = ["main"]

_SHAPE = (32, 128, 128, 128)  # B, T, I, H


@dataclass
class Rung:
    """One way to do the work.

    Attributes
    ----------
    isa : str or None
        Instruction set of the native kernels; None where they are not used.
    """

    name: str
    threads: int
    call: Callable[[], Outputs]
    isa: str | None = None
    seconds: list[float] = field(default_factory=list)

    def take_turn(self) -> None:
        bptt.set_num_threads(self.threads)
        if self.isa is not None:
            native._core.select_isa(self.isa)
        time.sleep(0.04)  # until others' threads sleep
        self.call()
        begun, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - begun < 0.05:
            self.call()
            calls += 1
        self.seconds.append((time.perf_counter() - begun) / calls)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the ladder."""
    parser = sub_parser("ladder", __doc__)
    add_rounds(parser, 9)
    add_out(parser)
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 9)
    threads, isa = bptt.get_num_threads(), native._core.isa()
    problem = make_problem(Case("ladder", *_SHAPE), "tanh", "float32")
    rungs = list(_rungs(problem, threads))
    _check(problem, rungs)
    peaks = []
    for _ in range(options.rounds):
        peaks.append(native._core.fma_peak("float32", 1))
        for rung in rungs:
            rung.take_turn()
    bptt.set_num_threads(threads)
    native._core.select_isa(isa)
    b, t, i, h = _SHAPE
    flops, peak = 6 * t * b * h * (i + h), quartiles(peaks).median
    print(machine.cpu_name(machine.machine()))
    print(f"tanh float32 B={b} T={t} I={i} H={h}, forward and all gradients; one core's FMA peak")
    print(f"{peak:.0f} GF/s; medians of {options.rounds} rounds, quartiles")
    for rung in rungs:
        low, median, high = quartiles(rung.seconds)
        rate = flops / median / 1e9
        print(
            f"{rung.name:<44} {1e3 * median:9.3f} ms [{1e3 * low:.3f} - {1e3 * high:.3f}]"
            f" {rate:7.1f} GF/s {100 * rate / peak / rung.threads:5.1f} % of {rung.threads} core(s)"
        )
    if options.out is not None:
        own = [peer for peer in all_peers().values() if peer.is_own]
        document = {
            "machine": machine.machine(),
            "software": machine.software(own),
            "peak": peak,
            "shape": dict(zip("BTIH", _SHAPE, strict=True)),
            "rungs": [{"name": r.name, "threads": r.threads, "seconds": r.seconds} for r in rungs],
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _rungs(p: Problem, threads: int) -> Iterator[Rung]:
    arrays = (p.cell, p.params, p.x, p.given_state, p.dy)

    def by(backend: str) -> Callable[[], Outputs]:
        return lambda: run_bptt(*arrays, backend=backend)

    yield Rung("naive loops, compiled by Numba", 1, compile_naive(p))
    yield Rung("NumPy, a product of its BLAS each step", threads, by("numpy"))
    yield Rung("Numba backend: fused, parallel over rows", threads, by("numba"))
    for isa in reversed(native._core.isas()):
        yield Rung(f"native, {isa}, one thread", 1, by("native"), isa)
    yield Rung(f"native, {native._core.isas()[0]}", threads, by("native"), native._core.isas()[0])


def _check(problem: Problem, rungs: Sequence[Rung]) -> None:
    want = problem.reference()
    for rung in rungs:
        worst = max(disagreement(rung.call(), want).values())
        if not worst <= tolerance(problem):
            raise SystemExit(f"{rung.name}: off by {worst:.1e}")
