"""JAX on the CPU, compiled by XLA: `jax_passes` has what is compiled."""

from typing import Any

from ..problem import Peer, Problem, Workload, named


class Jax(Peer):
    """A function of `jax_passes`: ``by_vjp`` is what a JAX user writes, ``jax.vjp`` through
    ``lax.scan``. ``by_hand`` is up to twice as fast, and the best that we know how to get from JAX:
    an opponent that should not be hidden. It is written for Elman cells."""

    package = "jax"

    def __init__(self, name: str, passes: str, *cells: str) -> None:
        self.name, self.cells, self._passes = name, cells, passes

    def prepare(self, problem: Problem, threads: int) -> Workload:
        # `threads` cannot be set any more: see bench.options.set_environment.
        import jax

        from . import jax_passes

        # A setting of the process: every prepared call of one problem has the same dtype.
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        arrays = (problem.dy, problem.x, problem.state, *problem.weights)
        inputs = jax.tree.map(jax.numpy.array, arrays)
        compiled = jax.jit(getattr(jax_passes, self._passes)(problem.cell))

        def call() -> Any:
            return jax.block_until_ready(compiled(*inputs))

        return Workload(call, lambda result: named(*result))
