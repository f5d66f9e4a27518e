"""`Recurrent`: a module of flax.nnx of one layer of any built-in cell."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .one_layer import layer
from .starting import arrays_of, uniform

__all__ = ["Recurrent"]


class Recurrent(nnx.Module):
    """A layer of any cell; its parameters are those of `bptt.jax.layer`, by their names.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}
    in_features, features : int
        I and H.
    use_bias : bool
    batch_first : bool
        x is (B, T, I) and y (B, T, H), as of ``flax.nnx.RNN``; if not, (T, B, I) and (T, B, H).
    param_dtype
        Of the parameters, and of x.
    rngs : nnx.Rngs
    """

    def __init__(
        self,
        cell: str,
        in_features: int,
        features: int,
        *,
        use_bias: bool = True,
        batch_first: bool = True,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.cell, self.batch_first = cell, batch_first
        shapes = arrays_of(cell, in_features, features, use_bias)
        draw = uniform(features)
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            setattr(self, name, nnx.Param(draw(rngs.params(), shape, param_dtype)))

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        reset: Any = None,
        reverse: bool = False,
    ) -> tuple[jax.Array, Any]:
        """y and the last state; see `bptt.jax.layer`."""
        params = {name: getattr(self, name)[...] for name in self.names}
        how = {"lengths": lengths, "reset": reset, "reverse": reverse}
        return layer(self.cell, params, x, state, batch_first=self.batch_first, **how)
