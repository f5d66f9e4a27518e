"""This package's own backends, called as users call them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

import bptt
import numpy as np

from ..problem import Outputs, Problem, run_bptt, run_bptt_again
from .contract import Workload

__all__ = ["OwnBackend", "ReusingBackend"]


@dataclass
class OwnBackend:
    """``bptt.forward(..., backend=name)`` and ``Tape.backward``."""

    name: str
    is_own: bool = True

    def missing(self) -> str | None:
        status = bptt.backends()[self.name]
        return None if status.available else status.reason

    def refuses(self, cell: str, dtype: str) -> str | None:
        from bptt.backends import REGISTRY

        if REGISTRY[self.name].supports(bptt.CELLS[cell], np.dtype(dtype)):
            return None
        return f"the {self.name} backend does not compute {cell} in {dtype}"

    def version(self) -> str:
        if self.name == "native":
            info = bptt.info()
            return f"bptt {info.version}, {info.isa}, {info.compiler}"
        return f"bptt {bptt.__version__}, {self.name} {metadata.version(self.name)}"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        bptt.set_num_threads(threads)

        def call() -> Outputs:
            return run_bptt(
                problem.cell,
                problem.params,
                problem.x,
                problem.given_state,
                problem.dy,
                backend=self.name,
            )

        return Workload(call, outputs=lambda outputs: outputs)


class ReusingBackend(OwnBackend):
    """The same with ``out=``: into the tape and the gradients of the call before."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self.name = f"{backend}-reuse"
        self._backend = OwnBackend(backend)

    def missing(self) -> str | None:
        return self._backend.missing()

    def refuses(self, cell: str, dtype: str) -> str | None:
        return self._backend.refuses(cell, dtype)

    def version(self) -> str:
        return self._backend.version()

    def prepare(self, problem: Problem, threads: int) -> Workload:
        bptt.set_num_threads(threads)
        arrays = (problem.cell, problem.params, problem.x, problem.given_state)
        tape = bptt.forward(*arrays, backend=self._backend.name)
        grads = bptt.Grads.zeros(problem.params, *problem.x.shape[:2], cell=problem.cell)

        def call() -> Outputs:
            return run_bptt_again(
                *arrays, problem.dy, backend=self._backend.name, tape=tape, grads=grads
            )

        return Workload(call, outputs=lambda outputs: outputs)
