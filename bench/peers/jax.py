"""JAX on the CPU, compiled by XLA, twice: `jax_passes` has what is compiled.

`JaxVjp` is what a JAX user writes. `JaxBptt` writes the backward pass out by hand. JAX does not do
that by itself, but it is up to twice as fast, and it is the best that we know how to get from JAX:
an opponent that should not be hidden. It is written for Elman cells.
"""

from typing import Any

from ..problem import Peer, Problem, Workload, named


class JaxVjp(Peer):
    """``jax.vjp`` through ``lax.scan``."""

    name = package = "jax"
    cells: tuple[str, ...] = ("linear", "tanh", "relu", "lstm", "gru")
    differentiated = "by_vjp"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        # `threads` cannot be set any more: see bench.options.set_environment.
        import jax

        from . import jax_passes

        # A setting of the process: every prepared call of one problem has the same dtype.
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        arrays = (problem.dy, problem.x, problem.state, *problem.weights)
        inputs = jax.tree.map(jax.numpy.array, arrays)
        compiled = jax.jit(getattr(jax_passes, self.differentiated)(problem.cell))

        def call() -> Any:
            return jax.block_until_ready(compiled(*inputs))

        return Workload(call, lambda result: named(*result))


class JaxBptt(JaxVjp):
    """A second scan backwards for da_t; then dW_x, dW_s, dx and db over all steps at once."""

    name = "jax-bptt"
    cells = ("linear", "tanh", "relu")
    differentiated = "by_hand"
