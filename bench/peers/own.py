"""This package's own backends, called as users call them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

import bptt
import numpy as np

from ..problem import Outputs, Problem, run_bptt
from .contract import Workload

__all__ = ["OwnBackend"]


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
                problem.state,
                problem.dy,
                backend=self.name,
            )

        return Workload(call, outputs=lambda outputs: outputs)
