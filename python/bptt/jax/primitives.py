"""Three primitives of JAX: a layer, its derivative forward, and its way back.

- ``layer``: the pass, by the kernels: inputs to y, the last state and, with ``save``, what the way
  back reads
- ``push``: tangents of inputs to tangents of outputs. It is linear in the tangents, and its
  transpose is
- ``pull``: what comes in at the outputs to gradients of inputs: BPTT, by the kernels

Here is what they are on arrays; their derivatives are in `derivatives`, and what they do under vmap
in `batches`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

from ..layer_arguments import WEIGHTS
from .calls import ROWS, Call, bits
from .composite import composite
from .handlers import BACKWARD, LAYER
from .shards import shaped

__all__ = ["layer_p", "pull_composite", "pull_p", "push_composite", "push_p"]


def _primitive(name: str) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True

    @lru_cache(maxsize=1024)
    def compiled(**params: Any) -> Callable[..., Any]:
        return jax.jit(lambda *arrays: primitive.bind(*arrays, **params))

    primitive.def_impl(lambda *arrays, **params: compiled(**params)(*arrays))
    return primitive


layer_p, push_p, pull_p = map(_primitive, ("bptt_layer", "bptt_push", "bptt_pull"))


# --- layer --------------------------------------------------------------------------------------


@layer_p.def_abstract_eval
def _layer_shapes(*inputs: Any, call: Call, save: bool) -> list[ShapedArray]:
    shapes = call.shapes(inputs)
    return [shaped(shapes[name], inputs[0]) for name in call.results(save)]


def _lower_layer(ctx: Any, *operands: Any, call: Call, save: bool) -> Any:
    lower = jax.ffi.ffi_lowering(LAYER)
    return lower(
        ctx,
        *operands,
        cell=call.name,
        reverse=np.bool_(call.reverse),
        operands=np.int64(bits(call.inputs)),
        results=np.int64(bits(call.results(save))),
    )


# --- pull ---------------------------------------------------------------------------------------


@pull_p.def_abstract_eval
def _pull_shapes(
    *operands: Any,
    call: Call,
    incoming: tuple[str, ...],
    wanted: tuple[str, ...],
    per_row: bool,
) -> list[ShapedArray]:
    """The inputs, what was kept, and what comes in at outputs; `per_row`: of weights not the sum
    over the rows of the batch but the gradient of each."""
    inputs = operands[: len(call.inputs)]
    shapes = call.shapes(inputs)
    batch = shapes["x"][1:2] if per_row else ()
    return [shaped((*(batch if n in WEIGHTS else ()), *shapes[n]), inputs[0]) for n in wanted]


def _lower_pull(
    ctx: Any,
    *operands: Any,
    call: Call,
    incoming: tuple[str, ...],
    wanted: tuple[str, ...],
    per_row: bool,
) -> Any:
    lower = jax.ffi.ffi_lowering(BACKWARD)
    return lower(
        ctx,
        *operands,
        cell=call.name,
        reverse=np.bool_(call.reverse),
        per_row=np.bool_(per_row),
        operands=np.int64(bits((*call.inputs, *call.kept))),
        incoming=np.int64(bits(incoming)),
        results=np.int64(bits(wanted)),
    )


def pull_composite(
    *operands: Any,
    call: Call,
    incoming: tuple[str, ...],
    wanted: tuple[str, ...],
    per_row: bool,
) -> list[Any]:
    """The same in JAX's own operations."""
    inputs = dict(zip(call.inputs, operands, strict=False))
    given = dict(zip(incoming, operands[len(operands) - len(incoming) :], strict=True))
    if per_row:
        return _pull_of_rows(call, inputs, given, wanted)

    def outputs(*some: Any) -> tuple[Any, ...]:
        return composite(call, inputs | dict(zip(wanted, some, strict=True)))

    found, pull = jax.vjp(outputs, *(inputs[name] for name in wanted))
    pairs = zip(call.outputs, found, strict=True)
    return list(pull(tuple(given.get(name, jnp.zeros_like(o)) for name, o in pairs)))


def _pull_of_rows(
    call: Call, inputs: dict[str, Any], given: dict[str, Any], wanted: tuple[str, ...]
) -> list[Any]:
    """Each row of the batch as a batch of its own."""
    arrays = inputs | given
    axes = {name: ROWS[name] for name in arrays}

    def of_row(row: dict[str, Any]) -> list[Any]:
        alone = {n: a if axes[n] is None else a[None].swapaxes(0, axes[n]) for n, a in row.items()}
        operands = (*(alone[n] for n in call.inputs), *(alone[n] for n in given))
        found = pull_composite(
            *operands, call=call, incoming=tuple(given), wanted=wanted, per_row=False
        )
        return [
            g if ROWS[n] is None else g.squeeze(ROWS[n])
            for n, g in zip(wanted, found, strict=False)
        ]

    out = [ROWS[n] or 0 for n in wanted]
    return jax.vmap(of_row, in_axes=(axes,), out_axes=out)(arrays)


# --- push ---------------------------------------------------------------------------------------


def push_composite(*operands: Any, call: Call, of: tuple[str, ...]) -> list[Any]:
    """The tangents of y and of the last state, of those of some inputs: `operands` are the inputs,
    what was kept, and the tangents."""
    inputs = dict(zip(call.inputs, operands, strict=False))
    tangents = operands[len(operands) - len(of) :]

    def outputs(*some: Any) -> tuple[Any, ...]:
        return composite(call, inputs | dict(zip(of, some, strict=True)))

    return list(jax.jvp(outputs, tuple(inputs[name] for name in of), tuple(tangents))[1])


@push_p.def_abstract_eval
def _push_shapes(*operands: Any, call: Call, of: tuple[str, ...]) -> list[ShapedArray]:
    inputs = operands[: len(call.inputs)]
    shapes = call.shapes(inputs)
    return [shaped(shapes[name], inputs[0]) for name in call.outputs]


# --- where they run -----------------------------------------------------------------------------


def _refuse(ctx: Any, *operands: Any, **params: Any) -> Any:
    platforms = ctx.platforms or ctx.module_context.platforms
    raise NotImplementedError(
        f"bptt.jax computes on CPUs, and was to be compiled for {', '.join(platforms)}: choose the "
        'CPU by jax.default_device(jax.devices("cpu")[0]), or by jax.config.update('
        '"jax_platforms", "cpu")'
    )


for _primitive_of_kernels, _lower in ((layer_p, _lower_layer), (pull_p, _lower_pull)):
    mlir.register_lowering(_primitive_of_kernels, _lower, platform="cpu")
    mlir.register_lowering(_primitive_of_kernels, _refuse)
mlir.register_lowering(push_p, mlir.lower_fun(push_composite, multiple_results=True))
