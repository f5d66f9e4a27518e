"""The pass of one direction under ``torch.func``'s transforms and forward-mode differentiation.

Two Functions, the way forward and the way back, each with a rule for ``vmap``. What is beyond the
first derivative comes from `derivatives`; so does all of forward mode, since PyTorch loses the
tangents of a Function's tangents without a word, and transforms within torch.compile, which cannot
trace a Function that calls another one.

Passes that share their weights are one pass of a larger batch; so are the ways back, also where
each has weight gradients of its own (``vmap(grad(...))``), which the kernels sum row by row. Passes
of different weights are made one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import gpu_passes, operators
from .derivatives import Gradients, outputs_of, pull_back
from .folding import Axes, each, fold, unfold
from .modes import by_composite, traced
from .passes import Direction, Inputs, Saved

__all__ = ["pull_back_pass", "run_pass"]

Tensors = tuple[Tensor, ...]
Given = Sequence[Tensor | None]

# Where the weight gradients of all rows, to be added up for each sample, take more bytes than this,
# the ways back are made one after the other.
_MOST_BYTES = 1 << 28


def run_pass(how: Direction, inputs: Inputs) -> Tensors:
    """y of all steps, and each part of the state after the last step."""
    if _by_composite(how, inputs):
        return outputs_of(how, inputs.flat())
    found = _Forward.apply(how, torch.is_grad_enabled(), *inputs.flat())
    return (found[0], *found[how.parts : 2 * how.parts])


def pull_back_pass(
    how: Direction, inputs: Inputs, saved: Saved, incoming: Given, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of ``inputs.flat()`` that are needed, of what comes in at y and at the state
    after the last step."""
    of = Gradients(how, tuple(needed))
    if _by_composite(how, inputs):
        found = iter(of(*inputs.flat(), *incoming))
        return tuple(next(found) if is_ else None for is_ in needed)
    read = (*inputs.flat(), *incoming, *saved.history, *saved.gates)
    found = iter(_Backward.apply(of, *read))
    return tuple(next(found) if is_ else None for is_ in needed)


def _by_composite(how: Direction, inputs: Inputs) -> bool:
    return by_composite() or (how.offsets is not None and traced(inputs.x))


class _Forward(torch.autograd.Function):
    """``Inputs.flat`` to the history, the last state, and what is saved beside."""

    @staticmethod
    def forward(how: Direction, save: bool, *flat: Any) -> Tensors:
        x = flat[0]
        if traced(x):
            return operators.forward(how, flat, save)
        return how.forward(flat, how.save(x, save))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.how, _, *flat = inputs
        parts = ctx.how.parts
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:parts], *output[2 * parts :])
        ctx.save_for_backward(*flat, *output[:parts], *output[2 * parts :])

    @staticmethod
    def backward(ctx: Any, *into: Tensor | None) -> tuple[Tensor | None, ...]:
        how, needed = ctx.how, ctx.needs_input_grad[2:]
        incoming = (into[0], *into[how.parts : 2 * how.parts])
        if not any(needed) or all(d is None for d in incoming):
            return (None,) * (2 + len(needed))
        tensors = ctx.saved_tensors
        inputs, saved = how.inputs(tensors), how.saved(tensors[len(needed) :])
        return (None, None, *pull_back_pass(how, inputs, saved, incoming, needed))

    @staticmethod
    def vmap(info: Any, in_dims: Any, how: Direction, save: bool, *flat: Tensor | None) -> Any:
        n, dims, axes = info.batch_size, in_dims[2:], Axes.of(how)
        if axes.differing_weights(dims):
            found = each(lambda own: _Forward.apply(how, save, *own), flat, dims, n)
            return found, (0,) * len(found)
        folded = [fold(t, d, n, r) for t, d, r in zip(flat, dims, axes.flat, strict=True)]
        found = _Forward.apply(how.repeated(n), save, *folded)
        rows = axes.kept(len(found))
        apart = [unfold(t, n, r) for t, r in zip(found, rows, strict=True)]
        return tuple(apart), tuple(r + 1 for r in rows)


class _Backward(torch.autograd.Function):
    """``Inputs.flat``, what comes in at the outputs, and what was kept, to the gradients that
    are needed."""

    @staticmethod
    def forward(of: Gradients, *tensors: Tensor | None) -> Tensors:
        flat, incoming, kept = of.split(tensors)
        found = operators.backward if traced(flat[0]) else Gradients.by_kernels
        return tuple(g for g in found(of, flat, incoming, of.how.saved(kept)) if g is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.of, *tensors = inputs
        flat, incoming, kept = ctx.of.split(tensors)
        ctx.kept = len(kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat, *incoming)

    @staticmethod
    def backward(ctx: Any, *into: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors, of_kept = ctx.saved_tensors, (None,) * ctx.kept
        needed = ctx.needs_input_grad[1 : 1 + len(tensors)]
        if not any(needed) or all(d is None for d in into):
            return (None, *(None,) * len(tensors), *of_kept)
        found = iter(pull_back(ctx.of, tensors, into, needed))
        return (None, *(next(found) if is_ else None for is_ in needed), *of_kept)

    @staticmethod
    def vmap(info: Any, in_dims: Any, of: Gradients, *tensors: Any) -> Any:
        n, dims, axes = info.batch_size, in_dims[1:], Axes.of(of.how)
        x = tensors[0] if dims[0] is None else tensors[0].select(dims[0], 0)
        many = of.nbytes_apart(x, tensors) * n > _MOST_BYTES
        # No kernel for a GPU sums weight gradients row by row.
        if many or axes.differing_weights(dims) or not gpu_passes.on_host(x):
            found = each(lambda own: _Backward.apply(of, *own), tensors, dims, n)
            return found, (0,) * len(found)
        kept = of.split(tensors)[2]
        rows = (*axes.flat, *axes.incoming, *axes.flat[:1] * len(kept))
        folded = [fold(t, d, n, r) for t, d, r in zip(tensors, dims, rows, strict=True)]
        found = _Backward.apply(of.repeated(n), *folded)
        apart, at = [], []
        for g, axis in zip(found, of.of_needed(axes.flat), strict=True):
            # Samples of samples: those that are folded now are inside.
            whole = axis is None and of.samples is None
            apart.append(g if whole else unfold(g, n, axis or 0))
            at.append(0 if whole else (axis or 0) + 1)
        return tuple(apart), tuple(at)
