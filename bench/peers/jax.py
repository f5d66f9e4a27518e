"""JAX on the CPU, compiled by XLA, twice: `jax_passes` has what is compiled.

`JaxVjp` is what a JAX user writes. `JaxBptt` writes the backward pass out by hand. JAX does not do
that by itself, but it is up to twice as fast, and it is the best that we know how to get from JAX:
an opponent that should not be hidden. It is written for Elman cells.
"""

from __future__ import annotations

from typing import Any

from ..problem import Problem
from .contract import WEIGHTS, Peer, Workload, named

__all__ = ["JaxBptt", "JaxVjp"]


class JaxVjp(Peer):
    """``jax.vjp`` through ``lax.scan``."""

    name = package = "jax"
    cells: tuple[str, ...] = ("linear", "tanh", "relu", "lstm", "gru")
    by_hand = False

    def version(self) -> str:
        import jax

        return f"{jax.__version__}"

    def prepare(self, problem: Problem, threads: int) -> Workload:
        # `threads` cannot be set any more: see bench.threads.set_environment.
        import jax
        import jax.numpy as jnp

        from .jax_passes import by_hand, by_vjp

        # A setting of the process: every prepared call of one problem has the same dtype.
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        weights = [jnp.array(getattr(problem.params, name)) for name in WEIGHTS]
        state = tuple(map(jnp.array, problem.state))
        inputs = (jnp.array(problem.dy), jnp.array(problem.x), state, *weights)
        compiled = jax.jit((by_hand if self.by_hand else by_vjp)(problem.cell))

        def call() -> Any:
            return jax.block_until_ready(compiled(*inputs))

        return Workload(call, lambda result: named(*result))


class JaxBptt(JaxVjp):
    """The backward pass by hand: a scan for da_t, then dW_x, dW_s, dx and db over all steps."""

    name = "jax-bptt"
    cells = ("linear", "tanh", "relu")
    by_hand = True
