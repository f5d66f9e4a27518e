"""`Recurrent`: a module of equinox of one layer of any built-in cell."""

from __future__ import annotations

from typing import Any

import equinox
import jax
import jax.numpy as jnp

from .one_layer import layer
from .starting import arrays_of, uniform

__all__ = ["Recurrent"]


class Recurrent(equinox.Module):
    """A layer of any cell.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}
    in_features, features : int
        I and H.
    use_bias : bool
    dtype
        Of the parameters, and of x.
    key : jax.Array
        Of jax.random.

    Attributes
    ----------
    params : dict of str to array
        Those of `bptt.jax.layer`.
    """

    params: dict[str, jax.Array]
    cell: str = equinox.field(static=True)

    def __init__(
        self,
        cell: str,
        in_features: int,
        features: int,
        *,
        use_bias: bool = True,
        dtype: Any = jnp.float32,
        key: jax.Array,
    ) -> None:
        shapes = arrays_of(cell, in_features, features, use_bias)
        draw, keys = uniform(features), jax.random.split(key, len(shapes))
        pairs = zip(keys, shapes.items(), strict=True)
        self.params = {name: draw(own, shape, dtype) for own, (name, shape) in pairs}
        self.cell = cell

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        reset: Any = None,
        reverse: bool = False,
        batch_first: bool = False,
    ) -> tuple[jax.Array, Any]:
        """y (T, B, H) and the last state, of x (T, B, I); see `bptt.jax.layer`."""
        how = {"lengths": lengths, "reset": reset, "reverse": reverse}
        return layer(self.cell, self.params, x, state, batch_first=batch_first, **how)
