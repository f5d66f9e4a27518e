"""JAX on the CPU, compiled by XLA, twice.

`JaxVjp` is what a JAX user writes: the cell in a ``lax.scan``, differentiated by ``jax.vjp``.
`JaxBptt` writes the backward pass out by hand as a second scan, with the products for dW and dx
taken once over all steps. JAX does not do that by itself, but it is up to twice as fast, and it
is the best that we know how to get from JAX: an opponent that should not be hidden. It is written
for Elman cells.

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

_WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")

# dy, x, state (a tuple), then the arrays of _WEIGHTS -> y, then the gradients of all but dy
Pass = Callable[..., tuple[Any, tuple[Any, ...]]]


class JaxVjp:
    """``jax.vjp`` through ``lax.scan``."""

    name = "jax"
    is_own = False
    cells: tuple[str, ...] = ("linear", "tanh", "relu", "lstm", "gru")

    def missing(self) -> str | None:
        if importlib.util.find_spec("jax") is None:
            return "JAX is not installed (pip install jax)"
        return None

    def refuses(self, cell: str, dtype: str) -> str | None:
        return None if cell in self.cells else f"no {cell} cell is written for {self.name}"

    def version(self) -> str:
        import jax

        return f"{jax.__version__}"

    def gradient_pass(self, cell: str) -> Pass:
        """Forward and backward, not yet compiled."""
        import jax

        forward = _forward(cell)

        def both(dy: jax.Array, *inputs: Any) -> tuple[jax.Array, tuple[Any, ...]]:
            y, pull_back = jax.vjp(forward, *inputs)
            return y, pull_back(dy)

        return both

    def prepare(self, problem: Problem, threads: int) -> Workload:
        # `threads` cannot be set any more: see bench.threads.set_environment.
        import jax
        import jax.numpy as jnp

        # A setting of the process: every prepared call of one problem has the same dtype.
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        weights = [jnp.array(getattr(problem.params, name)) for name in _WEIGHTS]
        state = tuple(map(jnp.array, problem.state))
        inputs = (jnp.array(problem.dy), jnp.array(problem.x), state, *weights)
        compiled = jax.jit(self.gradient_pass(problem.cell))

        def call() -> Any:
            return jax.block_until_ready(compiled(*inputs))

        return Workload(call, _outputs)


class JaxBptt(JaxVjp):
    """The backward pass by hand: a scan for da_t, then dW_x, dW_s, dx and db over all steps."""

    name = "jax-bptt"
    cells = ("linear", "tanh", "relu")

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

            dstate, da = lax.scan(step, jnp.zeros_like(state[0]), (dy, y), reverse=True)
            previous = jnp.concatenate([state[0][None], y[:-1]])
            rows = da.reshape(-1, da.shape[-1])
            d_w_ih = rows.T @ x.reshape(len(rows), -1)
            d_w_hh = rows.T @ previous.reshape(len(rows), -1)
            d_b = rows.sum(axis=0)
            return y, (da @ w_ih, (dstate,), d_w_ih, d_w_hh, d_b, d_b)

        return both


def _forward(cell: str) -> Callable[..., Any]:
    """(x, state, w_ih, w_hh, b_ih, b_hh) -> y, by ``lax.scan``."""
    from jax import lax

    gru = cell == "gru"  # takes both affine maps apart
    step = _gru if gru else _lstm if cell == "lstm" else _elman(cell)

    def forward(x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        projected = x @ w_ih.T + (b_ih if gru else b_ih + b_hh)

        def scanned(state: Any, g_t: Any) -> tuple[Any, Any]:
            recurrent = state[0] @ w_hh.T + (b_hh if gru else 0)
            state = step(g_t, recurrent, state)
            return state, state[0]

        return lax.scan(scanned, state, projected)[1]

    return forward


def _elman(cell: str) -> Callable[[Any, Any, Any], Any]:
    import jax
    import jax.numpy as jnp

    activation: Callable[[Any], Any] = {
        "linear": lambda a: a,
        "tanh": jnp.tanh,
        "relu": jax.nn.relu,
    }[cell]
    return lambda g_i, g_h, state: (activation(g_i + g_h),)


def _lstm(g_i: Any, g_h: Any, state: Any) -> Any:
    import jax
    import jax.numpy as jnp

    i, f, g, o = jnp.split(g_i + g_h, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(g_i: Any, g_h: Any, state: Any) -> Any:
    import jax
    import jax.numpy as jnp

    (i_r, i_z, i_n), (h_r, h_z, h_n) = (jnp.split(g, 3, axis=-1) for g in (g_i, g_h))
    r, z = jax.nn.sigmoid(i_r + h_r), jax.nn.sigmoid(i_z + h_z)
    return ((1 - z) * jnp.tanh(i_n + r * h_n) + z * state[0],)


def _outputs(result: Any) -> Outputs:
    y, (dx, dstate, *dweights) = result
    arrays = {"y": y, "x": dx, **dict(zip(_WEIGHTS, dweights, strict=True))}
    arrays.update(zip(("state", "c"), dstate, strict=False))
    return {name: np.asarray(array) for name, array in arrays.items()}
