"""Under ``jax.shard_map``: the axes of the mesh along which an array's value varies from shard to
shard, which are part of its type.

Inputs of a primitive are cast to vary along all axes along which any of them does. The transpose of
that cast is a sum over the shards: so weights that all shards share get the gradient of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.core import ShapedArray
from jax.sharding import PartitionSpec

__all__ = ["bind", "shaped"]


def bind(primitive: Any, *operands: Any, **params: Any) -> Any:
    """``primitive.bind`` of operands that vary alike."""
    return primitive.bind(*_alike(operands), **params)


def shaped(shape: Sequence[Any], like: Any) -> ShapedArray:
    """The type of an array of this shape and dtype, which varies as `like`, a type, does."""
    if not _axes(like):
        return ShapedArray(tuple(shape), like.dtype)
    whole = like.sharding.update(spec=PartitionSpec(*(None for _ in shape)))
    return like.update(shape=tuple(shape), sharding=whole, weak_type=False)


def _axes(aval: Any) -> frozenset[str]:
    """What JAX has as ``mat.varying`` today, had as ``vma`` from 0.6 to 0.9, and not before."""
    return aval.mat.varying if hasattr(aval, "mat") else getattr(aval, "vma", frozenset())


def _alike(arrays: Sequence[Any]) -> list[Any]:
    if not hasattr(jax, "typeof"):  # before 0.6
        return list(arrays)
    axes = [_axes(jax.typeof(array)) for array in arrays]
    every: frozenset[str] = frozenset().union(*axes)
    missing = [tuple(sorted(every - own)) for own in axes]
    return [_cast(a, m) if m else a for a, m in zip(arrays, missing, strict=True)]


def _cast(array: Any, axes: tuple[str, ...]) -> Any:
    if hasattr(lax, "pcast"):
        return lax.pcast(array, axes, to="varying")
    return lax.pvary(array, axes)
