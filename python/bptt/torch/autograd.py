"""The pass of one direction as a differentiable function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import direct, gpu_passes
from .composite import composite
from .modes import Route, forward_mode, legacy_batch, route, transforms
from .operators import run_operator
from .passes import Direction, Inputs, Saved
from .transforms import pull_back_pass, run_pass

__all__ = ["run", "run_layered"]

Given = Sequence[Tensor | None]


def run(how: Direction, inputs: Inputs) -> tuple[Tensor, ...]:
    """y of all steps, and each part of the state after the last step.

    Without a gradient to come, nothing is kept for it.
    """
    taken = route(inputs.x)
    if taken is not Route.EAGER:
        return (run_pass if taken is Route.TRANSFORMS else run_operator)(how, inputs)
    flat = inputs.flat()
    train = _wants_gradients(flat)
    found = how.forward(flat, "gates" if train else "minimal")
    return _attached(how, flat, found, train, layered=False)


def run_layered(how: Direction, flat: tuple[Tensor | None, ...]) -> tuple[Tensor, ...] | None:
    """`run` in eager mode of ``Inputs.flat`` with states (1, B, H), as PyTorch's modules have them.

    None, and nothing has happened, unless the compiled kernels take these tensors as they are.
    """
    if not gpu_passes.on_host(flat[0]):
        return None
    train = _wants_gradients(flat)
    found = direct.forward(how.cell, flat, how.offsets, True, train)
    return None if found is None else _attached(how, flat, found, train, layered=True)


def _wants_gradients(flat: Given) -> bool:
    if torch.is_grad_enabled():
        for tensor in reversed(flat):  # weights first
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def _attached(
    how: Direction, flat: Given, found: tuple[Tensor, ...], train: bool, *, layered: bool
) -> tuple[Tensor, ...]:
    """What ``Direction.forward`` found, less what is saved, with the way back if there is one."""
    if train:
        outputs: tuple[Tensor, ...] = _Differentiable.apply(how, layered, found, *flat)
        return outputs
    return (found[0], *found[how.parts : 2 * how.parts])


class _Differentiable(torch.autograd.Function):
    """In eager mode. All tensors are saved by PyTorch, which releases them after the way back and
    notices whether one was changed in place."""

    @staticmethod
    def forward(
        ctx: Any, how: Direction, layered: bool, found: tuple[Tensor, ...], *flat: Tensor | None
    ) -> tuple[Tensor, ...]:
        parts = how.parts
        ctx.set_materialize_grads(False)
        ctx.how, ctx.layered, ctx.inputs = how, layered, len(flat)
        # Not the last state: it may be changed in place, and BPTT does not read it.
        ctx.save_for_backward(*flat, *found[:parts], *found[2 * parts :])
        return (found[0], *found[parts : 2 * parts])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
        how, needed, tensors = ctx.how, ctx.needs_input_grad[3:], ctx.saved_tensors
        flat, kept = tensors[: ctx.inputs], tensors[ctx.inputs :]
        if incoming[0] is None and all(d is None for d in incoming):
            return (None,) * (3 + ctx.inputs)
        gradients = _layered_gradients if ctx.layered else _gradients
        return (None, None, None, *gradients(how, flat, kept, incoming, needed))


def _layered_gradients(
    how: Direction, flat: Given, kept: Sequence[Tensor], incoming: Given, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """`_gradients` where states have an axis for layers."""
    if not (torch.is_grad_enabled() or transforms() or forward_mode() or legacy_batch(*incoming)):
        found = direct.backward(how.cell, flat, how.offsets, True, kept, incoming, needed)
        if found is not None:
            return found
    states = range(1, 1 + how.parts)
    with torch.enable_grad():  # these are to be differentiated by, perhaps
        without = [t[0] if i in states and t is not None else t for i, t in enumerate(flat)]
    into = [d[0] if i in states and d is not None else d for i, d in enumerate(incoming)]
    found = _gradients(how, without, kept, into, needed)
    return tuple(g[None] if i in states and g is not None else g for i, g in enumerate(found))


def _gradients(
    how: Direction, flat: Given, kept: Sequence[Tensor], incoming: Given, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Those of ``Inputs.flat`` that are needed, whatever PyTorch is doing."""
    inputs, saved = how.inputs(flat), how.saved(kept)
    if transforms() or forward_mode():  # which bring batches, or tangents
        if how.save(inputs.x) == "minimal":
            saved = Saved(saved.history, ())
        return pull_back_pass(how, inputs, saved, incoming, needed)
    if torch.is_grad_enabled() or legacy_batch(*incoming):
        # create_graph, so this is to be differentiated in turn; or torch.autograd.functional
        return _differentiable_gradients(how, inputs, incoming, needed)
    return how.backward(inputs, saved, incoming, needed)


def _differentiable_gradients(
    how: Direction, inputs: Inputs, incoming: Sequence[Tensor | None], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The same gradients by PyTorch's own operations, with a graph of theirs, and in the dtype of
    the kernels whatever autocast there is."""
    flat = inputs.flat()
    with torch.autocast(inputs.x.device.type, enabled=False):
        with torch.enable_grad():
            outputs = composite(how, inputs)
        given = [(o, d) for o, d in zip(outputs, incoming, strict=True) if d is not None]
        wanted = [t for t, is_ in zip(flat, needed, strict=True) if is_ and t is not None]
        of, into = [o for o, _ in given], [d for _, d in given]
        grads = torch.autograd.grad(of, wanted, into, create_graph=True, allow_unused=True)
    found = iter(grads)
    return tuple(
        next(found) if is_ and t is not None else None for t, is_ in zip(flat, needed, strict=True)
    )
