"""Trains a layer of `bptt` in JAX with optax, and prints the loss and the time.

    python docs/jax_adding.py --cell lstm

The task is the adding problem: each sequence has numbers, two of which are marked, and the target
is the sum of these two. Sequences have several lengths, so the marks are anywhere within them.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import bptt
import bptt.jax
import jax
import jax.numpy as jnp
import optax

BATCH, HIDDEN = 64, 64


def draw(key: jax.Array, steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x (T, B, 2), the lengths (B,), and targets (B,)."""
    of_numbers, of_lengths, *of_marks = jax.random.split(key, 4)
    numbers = jax.random.uniform(of_numbers, (steps, BATCH))
    lengths = jax.random.randint(of_lengths, (BATCH,), steps // 2, steps + 1)
    half = lengths // 2
    places = [
        jax.random.randint(own, (BATCH,), first, end)
        for own, first, end in zip(of_marks, (0, half), (half, lengths), strict=True)
    ]
    marks = sum(jnp.arange(steps)[:, None] == place for place in places)
    target = (numbers * marks).sum(0)
    return jnp.stack([numbers, marks.astype(numbers.dtype)], -1), lengths, target


def loss_of(params: Any, cell: str, x: jax.Array, lengths: jax.Array, target: jax.Array) -> Any:
    _, state = bptt.jax.layer(cell, params["layer"], x, lengths=lengths)
    h = state[0] if isinstance(state, tuple) else state
    return jnp.mean((h @ params["w_o"] + params["b_o"] - target) ** 2)


def train(cell: str, steps: int, updates: int) -> list[float]:
    """The loss of every update."""
    layer = bptt.init_params(cell, input_size=2, hidden_size=HIDDEN, rng=0, dtype="float32")
    params = {"layer": layer.arrays(), "w_o": jnp.zeros(HIDDEN), "b_o": jnp.zeros(())}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any, key: jax.Array) -> Any:
        found, gradients = jax.value_and_grad(loss_of)(params, cell, *draw(key, steps))
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state, found

    state, losses = optimizer.init(params), []
    for key in jax.random.split(jax.random.key(0), updates):
        params, state, found = update(params, state, key)
        losses.append(float(found))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", default="lstm", choices=tuple(bptt.CELLS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--updates", type=int, default=600)
    args = parser.parse_args()
    began = time.perf_counter()
    losses = train(args.cell, args.steps, args.updates)
    last = sum(losses[-50:]) / 50
    print(
        f"{args.cell}, T={args.steps}: loss {losses[0]:.4f} at first, {last:.4f} "
        f"at last, {time.perf_counter() - began:.1f} s"
    )


if __name__ == "__main__":
    main()
