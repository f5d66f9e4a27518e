"""Recurrent layers for JAX, computed by `bptt` on the CPU; needs JAX (``pip install 'bptt[jax]'``).

>>> import bptt.jax
>>> y, state = bptt.jax.layer("lstm", params, x)  # under jit, grad, vmap, jvp, remat, export
>>> params = bptt.jax.from_flax(variables["params"])  # and from_nnx, from_equinox

Modules that hold a layer are ``bptt.jax.linen.Recurrent``, ``bptt.jax.nnx.Recurrent`` and
``bptt.jax.equinox.Recurrent``, each in a module to be imported.
"""

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ModuleNotFoundError("bptt.jax needs JAX: pip install jax", name="jax") from None

from .handlers import export_checks
from .one_layer import layer
from .weights import from_equinox, from_flax, from_nnx, to_equinox, to_flax, to_nnx

__all__ = [
    "export_checks",
    "from_equinox",
    "from_flax",
    "from_nnx",
    "layer",
    "to_equinox",
    "to_flax",
    "to_nnx",
]
