"""Forward and backward passes in JAX, not yet compiled: from dy, x, the state (a tuple) and the
arrays of `WEIGHTS` to y, dx, the state's gradients and those of the weights.

All inputs are projected in one product before the scan. Importing this imports JAX.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def by_vjp(cell: str) -> Callable[..., Any]:
    """The cell in a ``lax.scan``, differentiated by ``jax.vjp``."""

    def both(dy: Any, *inputs: Any) -> Any:
        y, pull_back = jax.vjp(_forward(cell), *inputs)
        dx, dstate, *dweights = pull_back(dy)
        return y, dx, dstate, dweights

    return both


def by_hand(cell: str) -> Callable[..., Any]:
    """A second scan backwards; the products for dW and dx are taken once over all steps."""

    def both(dy: Any, x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        y = _forward(cell)(x, state, w_ih, w_hh, b_ih, b_hh)

        def step(ds: Any, at_step: tuple[Any, Any]) -> tuple[Any, Any]:
            dy_t, y_t = at_step
            da = _CHAINS[cell](dy_t + ds, y_t)
            return da @ w_hh, da

        dstate, da = lax.scan(step, jnp.zeros_like(state[0]), (dy, y), reverse=True)
        previous = jnp.concatenate([state[0][None], y[:-1]])
        rows = da.reshape(-1, da.shape[-1])
        d_w_ih = rows.T @ x.reshape(len(rows), -1)
        d_w_hh = rows.T @ previous.reshape(len(rows), -1)
        d_b = rows.sum(axis=0)
        return y, da @ w_ih, (dstate,), (d_w_ih, d_w_hh, d_b, d_b)

    return both


def _forward(cell: str) -> Callable[..., Any]:
    """(x, state, w_ih, w_hh, b_ih, b_hh) -> y."""
    gru = cell == "gru"  # takes both affine maps apart

    def forward(x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        projected = x @ w_ih.T + (b_ih if gru else b_ih + b_hh)

        def step(state: Any, g_t: Any) -> tuple[Any, Any]:
            recurrent = state[0] @ w_hh.T + (b_hh if gru else 0)
            state = STEPS[cell](g_t, recurrent, state)
            return state, state[0]

        return lax.scan(step, state, projected)[1]

    return forward


def _lstm(g_i: Any, g_h: Any, state: Any) -> Any:
    i, f, g, o = jnp.split(g_i + g_h, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(g_i: Any, g_h: Any, state: Any) -> Any:
    (i_r, i_z, i_n), (h_r, h_z, h_n) = (jnp.split(g, 3, axis=-1) for g in (g_i, g_h))
    r, z = jax.nn.sigmoid(i_r + h_r), jax.nn.sigmoid(i_z + h_z)
    return ((1 - z) * jnp.tanh(i_n + r * h_n) + z * state[0],)


# A step of each cell: both sums and the states before -> the states after
STEPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "linear": lambda g_i, g_h, state: (g_i + g_h,),
    "tanh": lambda g_i, g_h, state: (jnp.tanh(g_i + g_h),),
    "relu": lambda g_i, g_h, state: (jax.nn.relu(g_i + g_h),),
    "lstm": _lstm,
    "gru": _gru,
}
# da from dS and S
_CHAINS: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda ds, s: ds,
    "tanh": lambda ds, s: ds * (1 - s * s),
    "relu": lambda ds, s: jnp.where(s > 0, ds, 0),
}
