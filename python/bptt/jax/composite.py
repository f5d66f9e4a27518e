"""The recurrences written in JAX's own operations, for forward mode and for derivatives beyond the
first.

The same equations as `docs/math.md` has, step by step: slow, and differentiable to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .calls import Call

__all__ = ["composite"]

State = tuple[Array, ...]


def composite(call: Call, arrays: dict[str, Any]) -> tuple[Array, ...]:
    """y of all steps, and each part of the state after the last step, of inputs by name."""
    x, w_ih, w_hh = arrays["x"], arrays["w_ih"], arrays["w_hh"]
    steps = x.shape[0]
    taken, anew = _where(call, arrays)
    if taken is not None:
        x = jnp.where(taken, x, 0)  # whatever lies beyond the end
    a = x @ w_ih.T + arrays.get("b_ih", jnp.zeros((), x.dtype))
    b_hh = arrays.get("b_hh", jnp.zeros((), x.dtype))
    step = _STEPS[call.name]

    def advance(state: State, at: tuple[Any, ...]) -> tuple[State, Array]:
        a, taken, anew = at
        before = state
        if anew is not None:
            before = tuple(jnp.where(anew, 0, part) for part in state)
        after = step(a, before[0] @ w_hh.T + b_hh, before)
        if taken is None:
            return after, after[0]
        kept = tuple(jnp.where(taken, n, old) for n, old in zip(after, state, strict=True))
        return kept, jnp.where(taken, after[0], 0)

    initial = tuple(arrays[name] for name in call.cell.states)
    last, y = lax.scan(advance, initial, (a, taken, anew), length=steps, reverse=call.reverse)
    return (y, *last)


def _where(call: Call, arrays: dict[str, Any]) -> tuple[Array | None, Array | None]:
    """(T, B, 1) which steps there are, and before which of them the state is zero; None: all, and
    none."""
    steps = arrays["x"].shape[0]
    taken = anew = None
    if "lengths" in arrays:
        taken = (jnp.arange(steps)[:, None] < arrays["lengths"])[..., None]
    if "reset" in arrays:
        anew = arrays["reset"][..., None]
    return taken, anew


def _gates(sums: Array, count: int) -> list[Array]:
    """By slices: of jnp.split in a scan under vmap XLA makes wrong gradients (JAX 0.10.2, CPU)."""
    h = sums.shape[-1] // count
    return [sums[..., i * h : (i + 1) * h] for i in range(count)]


def _linear(a: Array, u: Array, before: State) -> State:
    return (a + u,)


def _tanh(a: Array, u: Array, before: State) -> State:
    return (jnp.tanh(a + u),)


def _relu(a: Array, u: Array, before: State) -> State:
    return (jnp.where(a + u > 0, a + u, 0),)


def _lstm(a: Array, u: Array, before: State) -> State:
    i, f, g, o = _gates(a + u, 4)
    c = jax.nn.sigmoid(f) * before[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(a: Array, u: Array, before: State) -> State:
    (ar, az, an), (ur, uz, un) = _gates(a, 3), _gates(u, 3)
    z = jax.nn.sigmoid(az + uz)
    n = jnp.tanh(an + jax.nn.sigmoid(ar + ur) * un)
    return ((1 - z) * n + z * before[0],)


_STEPS: dict[str, Callable[[Array, Array, State], State]] = {
    "linear": _linear,
    "tanh": _tanh,
    "relu": _relu,
    "lstm": _lstm,
    "gru": _gru,
}
