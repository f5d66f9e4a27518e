"""How the primitives are differentiated: `layer` by `push`, whose transpose is `pull`, and these
two by the equations in JAX's own operations.

What a layer kept counts as given by its inputs: derivatives run through these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.interpreters import ad

from .calls import Call
from .primitives import layer_p, pull_composite, pull_p, push_composite, push_p
from .shards import bind

__all__: list[str] = []


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero


def _differentiate_layer(
    inputs: Sequence[Any], tangents: Sequence[Any], *, call: Call, save: bool
) -> tuple[list[Any], list[Any]]:
    given = {n: t for n, t in zip(call.inputs, tangents, strict=True) if not _is_zero(t)}
    if not given:
        outputs = bind(layer_p, *inputs, call=call, save=save)
        return outputs, [_zero(o) for o in outputs]
    found = dict(zip(call.results(True), bind(layer_p, *inputs, call=call, save=True), strict=True))
    kept = [found[name] for name in call.kept]
    pushed = bind(push_p, *inputs, *kept, *given.values(), call=call, of=tuple(given))
    tangent_of = dict(zip(call.outputs, pushed, strict=True))
    outputs = {name: found[name] for name in call.results(save)}
    return [*outputs.values()], [tangent_of.get(n, _zero(o)) for n, o in outputs.items()]


ad.primitive_jvps[layer_p] = _differentiate_layer


def _transpose_push(
    cotangents: Sequence[Any], *operands: Any, call: Call, of: tuple[str, ...]
) -> list[Any]:
    incoming = {n: d for n, d in zip(call.outputs, cotangents, strict=True) if not _is_zero(d)}
    known, tangents = operands[: -len(of)], operands[len(operands) - len(of) :]
    wanted = tuple(n for n, t in zip(of, tangents, strict=True) if ad.is_undefined_primal(t))
    found: dict[str, Any] = {}
    if incoming:
        gradients = bind(
            pull_p,
            *known,
            *incoming.values(),
            call=call,
            incoming=tuple(incoming),
            wanted=wanted,
            per_row=False,
        )
        found = dict(zip(wanted, gradients, strict=True))
    nothing = [ad.Zero(t.aval) if ad.is_undefined_primal(t) else None for t in tangents]
    return [
        *(None,) * len(known),
        *(found.get(n, none) for n, none in zip(of, nothing, strict=True)),
    ]


ad.primitive_transposes[push_p] = _transpose_push


def _by_composite(function: Callable[..., list[Any]], primitive: Any) -> Callable[..., Any]:
    """A rule of differentiation: the value by the primitive, its derivative by `function`, which
    does not read what the layer kept."""

    def rule(operands: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
        found = bind(primitive, *operands, **params)
        call: Call = params["call"]
        first = len(call.inputs)
        kept = range(first, first + len(call.kept))
        moving = [i for i, t in enumerate(tangents) if not _is_zero(t) and i not in kept]
        if not moving:
            return found, [_zero(o) for o in found]

        def of_moving(*some: Any) -> list[Any]:
            every = list(operands)
            for i, value in zip(moving, some, strict=True):
                every[i] = value
            return function(*every, **params)

        primals = tuple(operands[i] for i in moving)
        return found, jax.jvp(of_moving, primals, tuple(tangents[i] for i in moving))[1]

    return rule


ad.primitive_jvps[push_p] = _by_composite(push_composite, push_p)
ad.primitive_jvps[pull_p] = _by_composite(pull_composite, pull_p)


def _zero(primal: Any) -> ad.Zero:
    return ad.Zero(jax.typeof(primal).to_tangent_aval())
