"""JAX on the CPU, compiled by XLA, twice.

`JaxVjp` is what a JAX user writes: the cell in a ``lax.scan``, differentiated by ``jax.vjp``.
`JaxBptt` writes the backward pass out by hand as a second scan, with the products for dW and dx
taken once over all steps. JAX does not do that by itself, but it is up to twice as fast, and it
is the best that we know how to get from JAX: an opponent that should not be hidden.

Both project all inputs in one product before the scan, and hold it within one ``jax.jit``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..problem import Outputs, Problem
from .contract import Workload

if TYPE_CHECKING:
    import jax

__all__ = ["JaxBptt", "JaxVjp"]

_NAMES = ("x", "state", "w_ih", "w_hh", "b_ih", "b_hh")

# dy, then the arrays of _NAMES -> y, then the gradients of the arrays of _NAMES
Pass = Callable[..., tuple[Any, tuple[Any, ...]]]


class JaxVjp:
    """``jax.vjp`` through ``lax.scan``."""

    name = "jax"
    is_own = False

    def missing(self) -> str | None:
        if importlib.util.find_spec("jax") is None:
            return "JAX is not installed (pip install jax)"
        return None

    def refuses(self, cell: str, dtype: str) -> str | None:
        return None if cell in ("linear", "tanh", "relu") else f"no {cell} cell is written in JAX"

    def version(self) -> str:
        import jax

        return f"{jax.__version__}"

    def gradient_pass(self, cell: str) -> Pass:
        """Forward and backward, not yet compiled."""
        import jax

        forward = _forward(cell)

        def both(dy: jax.Array, *inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            y, pull_back = jax.vjp(forward, *inputs)
            return y, pull_back(dy)

        return both

    def prepare(self, problem: Problem, threads: int) -> Workload:
        # `threads` cannot be set any more: see bench.threads.set_environment.
        import jax
        import jax.numpy as jnp

        # A setting of the process: every prepared call of one problem has the same dtype.
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        values = [getattr(problem, n, getattr(problem.params, n, None)) for n in _NAMES]
        inputs = [jnp.array(value) for value in (problem.dy, *values)]
        compiled = jax.jit(self.gradient_pass(problem.cell))

        def call() -> Any:
            return jax.block_until_ready(compiled(*inputs))

        return Workload(call, _outputs)


class JaxBptt(JaxVjp):
    """The backward pass by hand: a scan for da_t, then dW_x, dW_s, dx and db over all steps."""

    name = "jax-bptt"

    def gradient_pass(self, cell: str) -> Pass:
        import jax.numpy as jnp
        from jax import lax

        forward = _forward(cell)
        chain: Callable[[Any, Any], Any] = {
            "linear": lambda ds, s: ds,
            "tanh": lambda ds, s: ds * (1 - s * s),
            "relu": lambda ds, s: jnp.where(s > 0, ds, 0),
        }[cell]

        def both(dy: Any, x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
            y = forward(x, state, w_ih, w_hh, b_ih, b_hh)

            def step(ds: Any, at_step: tuple[Any, Any]) -> tuple[Any, Any]:
                dy_t, y_t = at_step
                da = chain(dy_t + ds, y_t)
                return da @ w_hh, da

            dstate, da = lax.scan(step, jnp.zeros_like(state), (dy, y), reverse=True)
            previous = jnp.concatenate([state[None], y[:-1]])
            rows = da.reshape(-1, da.shape[-1])
            d_w_ih = rows.T @ x.reshape(len(rows), -1)
            d_w_hh = rows.T @ previous.reshape(len(rows), -1)
            d_b = rows.sum(axis=0)
            return y, (da @ w_ih, dstate, d_w_ih, d_w_hh, d_b, d_b)

        return both


def _forward(cell: str) -> Callable[..., Any]:
    """(x, state, w_ih, w_hh, b_ih, b_hh) -> y, by ``lax.scan``."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    activation: Callable[[Any], Any] = {
        "linear": lambda a: a,
        "tanh": jnp.tanh,
        "relu": jax.nn.relu,
    }[cell]

    def forward(x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        projected = x @ w_ih.T + (b_ih + b_hh)

        def step(s: Any, g_t: Any) -> tuple[Any, Any]:
            s = activation(g_t + s @ w_hh.T)
            return s, s

        return lax.scan(step, state, projected)[1]

    return forward


def _outputs(result: Any) -> Outputs:
    y, gradients = result
    return {name: np.asarray(a) for name, a in (("y", y), *zip(_NAMES, gradients, strict=True))}
