"""The primitives under vmap.

A batch of passes with the same weights is one pass of a larger batch: pass v has the rows from
``v * B`` on. Passes whose weights differ are made one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import batching

from ..layer_arguments import WEIGHTS
from .calls import ROWS, Call
from .primitives import layer_p, pull_p, push_composite, push_p
from .shards import bind

__all__: list[str] = []

Batch = tuple[Sequence[Any], Sequence["int | None"]]

# Up to so many rows a pass, gradients of weights are those of each row, summed: so few rows fill
# no register tile by themselves.
_FEW_ROWS = 2


def _batch_layer(
    arrays: Sequence[Any], dims: Sequence[int | None], *, call: Call, save: bool
) -> Batch:
    params = {"call": call, "save": save}
    names = call.inputs
    if _weights_differ(names, dims):
        return _one_by_one(layer_p, arrays, dims, params)
    passes, folded = _fold_all(names, arrays, dims)
    found = bind(layer_p, *folded, **params)
    return _unfold_all(call.results(save), found, passes, _rows_of_each(arrays, dims))


def _batch_pull(
    arrays: Sequence[Any],
    dims: Sequence[int | None],
    *,
    call: Call,
    incoming: tuple[str, ...],
    wanted: tuple[str, ...],
    per_row: bool,
) -> Batch:
    params = {"call": call, "incoming": incoming, "wanted": wanted, "per_row": per_row}
    names = (*call.inputs, *call.kept, *incoming)
    of_weights = any(name in WEIGHTS for name in wanted)
    batch = _rows_of_each(arrays, dims)
    few = call.plain and isinstance(batch, int) and (per_row or batch <= _FEW_ROWS)
    if _weights_differ(names, dims) or (of_weights and not few):
        return _one_by_one(pull_p, arrays, dims, params)
    passes, folded = _fold_all(names, arrays, dims)
    params["per_row"] = of_weights
    found = bind(pull_p, *folded, **params)
    outputs, at = _unfold_all(wanted, found, passes, batch)
    if of_weights and not per_row:
        pairs = zip(wanted, outputs, strict=True)
        outputs = [g.sum(1) if name in WEIGHTS else g for name, g in pairs]
    return outputs, at


def _batch_push(
    arrays: Sequence[Any], dims: Sequence[int | None], *, call: Call, of: tuple[str, ...]
) -> Batch:
    def push(*operands: Any) -> list[Any]:
        return push_composite(*operands, call=call, of=of)

    return jax.vmap(push, in_axes=tuple(dims))(*arrays), (0,) * len(call.outputs)


batching.primitive_batchers[layer_p] = _batch_layer
batching.primitive_batchers[pull_p] = _batch_pull
batching.primitive_batchers[push_p] = _batch_push


def _weights_differ(names: Sequence[str], dims: Sequence[int | None]) -> bool:
    return any(n in WEIGHTS and d is not None for n, d in zip(names, dims, strict=True))


def _one_by_one(
    primitive: Any, arrays: Sequence[Any], dims: Sequence[int | None], params: dict[str, Any]
) -> Batch:
    moved = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(arrays, dims, strict=True)]
    batched = [a for a, d in zip(moved, dims, strict=True) if d is not None]

    def one(own: Sequence[Any]) -> list[Any]:
        each = iter(own)
        every = [a if d is None else next(each) for a, d in zip(moved, dims, strict=True)]
        return bind(primitive, *every, **params)

    found = lax.map(one, batched)
    return found, (0,) * len(found)


def _rows_of_each(arrays: Sequence[Any], dims: Sequence[int | None]) -> Any:
    """Rows of the batch of one pass, by its x (T, B, I), which comes first."""
    return [n for axis, n in enumerate(arrays[0].shape) if axis != dims[0]][1]


def _fold_all(
    names: Sequence[str], arrays: Sequence[Any], dims: Sequence[int | None]
) -> tuple[int, list[Any]]:
    """How many passes there are, and arrays for all of them."""
    passes = next(a.shape[d] for a, d in zip(arrays, dims, strict=True) if d is not None)
    every = zip(names, arrays, dims, strict=True)
    return passes, [_fold(a, d, passes, ROWS[name]) for name, a, d in every]


def _fold(array: Any, dim: int | None, passes: int, rows: int | None) -> Any:
    """One array for all passes: `dim` is the axis of these, None if they share it, and `rows` the
    axis of rows of each."""
    if rows is None:
        return array
    if dim is None:
        shape = (*array.shape[:rows], passes, *array.shape[rows:])
        array = jnp.broadcast_to(jnp.expand_dims(array, rows), shape)
    else:
        array = jnp.moveaxis(array, dim, rows)
    shape = array.shape
    return array.reshape(*shape[:rows], passes * shape[rows + 1], *shape[rows + 2 :])


def _unfold_all(names: Sequence[str], arrays: Sequence[Any], passes: int, batch: Any) -> Batch:
    """The other way round; gradients of weights have one for each row."""
    at = [ROWS[name] or 0 for name in names]
    shapes = [a.shape for a in arrays]
    apart = [(*s[:i], passes, batch, *s[i + 1 :]) for s, i in zip(shapes, at, strict=True)]
    return [a.reshape(shape) for a, shape in zip(arrays, apart, strict=True)], at
