"""From naive loops to the kernels, rung by rung, at one shape: tanh, float32, B=32, T=I=H=128.

The rungs: loops compiled by Numba; NumPy; the Numba backend; the native backend with each
instruction set of this CPU on one thread, and with the best on all. Each computes the forward pass
and all gradients, which are checked before they are timed. The peak of a rung is that of as many
threads as it has. Half a minute; needs Numba.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import bptt
from bptt.backends import native

from . import session
from .cases import Case
from .options import make_parser, parse
from .peers import OwnBackend, Peer, Workload, versions
from .peers.naive import NaiveLoops
from .problem import Problem, make_problem
from .timing import contest

__all__ = ["main"]

_CASE = Case("ladder", batch=32, steps=128, input_size=128, hidden_size=128)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the ladder; the exit status is `session.run`'s."""
    full, quick = {"rounds": 9, "min_time": 0.05}, {"rounds": 1, "min_time": 0.0}
    parser = make_parser("ladder", __doc__, full, quick)
    parser.set_defaults(max_call=math.inf)
    options = parse(parser, arguments)
    task = contest(make_problem(_CASE, "tanh", "float32"), _rungs(options.threads), options)
    titles = {_CASE.family: "from naive loops to the kernels"}
    return session.run(options, [task], titles=titles, versions=versions())


def _rungs(threads: int) -> Iterator[Peer]:
    yield NaiveLoops()
    yield Rung("NumPy, a product of its BLAS each step", "numpy", threads)
    yield Rung("Numba backend: fused, parallel over rows", "numba", threads)
    isas = native._core.isas()
    for isa in reversed(isas):
        yield Rung(f"native, {isa}, one thread", "native", 1, isa)
    yield Rung(f"native, {isas[0]}", "native", threads, isas[0])


class Rung(OwnBackend):
    """A backend with a number of threads and an instruction set of its own."""

    def __init__(self, name: str, backend: str, threads: int, isa: str | None = None) -> None:
        super().__init__(backend)
        self.name, self.threads, self._isa = name, threads, isa

    def prepare(self, problem: Problem, threads: int) -> Workload:
        workload = super().prepare(problem, threads)

        def call() -> object:
            bptt.set_num_threads(threads)
            if self._isa is not None:
                native._core.select_isa(self._isa)
            return workload.call()

        return Workload(call, workload.outputs)
