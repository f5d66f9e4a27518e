"""`Recurrent`: a module of flax.linen of one layer of any built-in cell."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from .one_layer import layer
from .starting import arrays_of, uniform

__all__ = ["Recurrent"]


class Recurrent(nn.Module):
    """A layer of any cell; its parameters are those of `bptt.jax.layer`, by their names.

    Attributes
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}
    features : int
        H.
    use_bias : bool
    batch_first : bool
        x is (B, T, I) and y (B, T, H), as of ``flax.linen.RNN``; if not, (T, B, I) and (T, B, H).
    param_dtype
        Of the parameters, and of x.
    """

    cell: str
    features: int
    use_bias: bool = True
    batch_first: bool = True
    param_dtype: Any = jnp.float32

    @nn.compact
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
        shapes = arrays_of(self.cell, x.shape[-1], self.features, self.use_bias)
        draw = uniform(self.features)
        params = {name: self.param(name, draw, s, self.param_dtype) for name, s in shapes.items()}
        how = {"lengths": lengths, "reset": reset, "reverse": reverse}
        return layer(self.cell, params, x, state, batch_first=self.batch_first, **how)
