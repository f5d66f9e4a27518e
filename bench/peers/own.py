"""This package's own backends, called as users call them."""

from importlib import metadata

import bptt
import numpy as np
from bptt import compiled
from bptt.backends import REGISTRY

from ..problem import Outputs, Peer, Problem, Workload, run_bptt


class OwnBackend(Peer):
    """``bptt.forward(..., backend=name)`` and ``Tape.backward``.

    If it `reuses`, with ``out=``: into the tape and the gradients of the call before. A rung of the
    ladder has a `label`, and threads and an instruction set of its own.
    """

    is_own = True

    def __init__(
        self,
        backend: str,
        label: str = "",
        threads: int | None = None,
        isa: str | None = None,
        *,
        reuses: bool = False,
    ) -> None:
        self.name = label or (f"{backend}-reuse" if reuses else backend)
        self.threads, self._isa = threads, isa
        self._backend, self._reuses = backend, reuses

    def missing(self) -> str | None:
        status = bptt.backends()[self._backend]
        return None if status.available else status.reason

    def refuses(self, cell: str, dtype: str) -> str | None:
        if REGISTRY[self._backend].supports(bptt.CELLS[cell], np.dtype(dtype)):
            return None
        return f"the {self._backend} backend does not compute {cell} in {dtype}"

    def version(self) -> str:
        info = bptt.info()
        if self._backend == "native":
            return f"bptt {info.version}, {info.isa}, {info.compiler}"
        return f"bptt {info.version}, {self._backend} {metadata.version(self._backend)}"

    def predicted(self, problem: Problem, threads: int) -> float | None:
        if self._backend != "native" or self._isa:  # its rates are those of the best
            return None
        (steps, batch, inputs), hidden = problem.x.shape, problem.dy.shape[-1]
        plan = bptt.plan(problem.cell, steps, batch, inputs, hidden, problem.dtype, threads=threads)
        return plan.seconds["total"]

    def prepare(self, problem: Problem, threads: int) -> Workload:
        bptt.set_num_threads(threads)
        tape = grads = None
        if self._reuses:
            inputs = (problem.cell, problem.params, problem.x, problem.given_state)
            tape = bptt.forward(*inputs, backend=self._backend)
            grads = bptt.Grads.zeros(problem.params, *problem.x.shape[:2], cell=problem.cell)

        def call() -> Outputs:
            if self.threads:
                bptt.set_num_threads(self.threads)
            if self._isa:
                compiled.core.select_isa(self._isa)
            return run_bptt(problem, self._backend, tape, grads)

        return Workload(call, outputs=lambda outputs: outputs)
