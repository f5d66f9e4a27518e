"""The pass of one direction as a differentiable function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .composite import composite
from .modes import Route, forward_mode, legacy_batch, route, transforms
from .operators import run_operator
from .passes import Inputs, Pass
from .transforms import pull_back_pass, run_pass

__all__ = ["run"]


def run(how: Pass, inputs: Inputs) -> tuple[Tensor, ...]:
    """y of all steps, and each part of the state after the last step.

    Without a gradient to come, nothing is kept for it.
    """
    taken = route(inputs.x)
    if taken is not Route.EAGER:
        return (run_pass if taken is Route.TRANSFORMS else run_operator)(how, inputs)
    flat = inputs.flat()
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in flat):
        found: tuple[Tensor, ...] = _Differentiable.apply(how, *flat)
        return found
    kept = how.forward(inputs, "minimal")
    return (kept.history[0], *kept.last)


class _Differentiable(torch.autograd.Function):
    """In eager mode. All tensors are saved by PyTorch, which releases them after the way back and
    notices whether one was changed in place."""

    @staticmethod
    def forward(ctx: Any, how: Pass, *flat: Tensor | None) -> tuple[Tensor, ...]:
        kept = how.forward(how.inputs(flat), "gates")
        ctx.set_materialize_grads(False)
        ctx.how, ctx.inputs = how, len(flat)
        # Not the last state: it may be changed in place, and BPTT does not read it.
        ctx.save_for_backward(*flat, *kept.history, *kept.saved)
        return (kept.history[0], *kept.last)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        how, tensors = ctx.how, ctx.saved_tensors
        inputs = how.inputs(tensors[: ctx.inputs])
        if dy is None and all(d is None for d in dlast):
            return (None,) * (1 + ctx.inputs)
        needed, kept = ctx.needs_input_grad[1:], how.kept(tensors[ctx.inputs :], last=False)
        if transforms() or forward_mode():  # which bring batches, or tangents
            batch = how.batch(inputs.x)
            unread = tuple(h.new_zeros(batch, h.shape[-1]) for h in kept.history)
            kept = kept._replace(last=unread)
            if how.save(inputs.x.dtype) == "minimal":
                kept = kept._replace(saved=())
            return (None, *pull_back_pass(how, inputs, kept, (dy, *dlast), needed))
        if torch.is_grad_enabled() or legacy_batch(dy, *dlast):
            # create_graph, so this is to be differentiated in turn; or torch.autograd.functional
            return (None, *_differentiable_gradients(how, inputs, (dy, *dlast), needed))
        return (None, *how.backward(inputs, kept, dy, dlast, needed))


def _differentiable_gradients(
    how: Pass, inputs: Inputs, incoming: Sequence[Tensor | None], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The same gradients by PyTorch's own operations, with a graph of theirs."""
    flat = inputs.flat()
    with torch.enable_grad():
        outputs = composite(how, inputs)
    given = [(o, d) for o, d in zip(outputs, incoming, strict=True) if d is not None]
    wanted = [t for t, is_ in zip(flat, needed, strict=True) if is_ and t is not None]
    of, into = [o for o, _ in given], [d for _, d in given]
    found = iter(torch.autograd.grad(of, wanted, into, create_graph=True, allow_unused=True))
    return tuple(
        next(found) if is_ and t is not None else None for t, is_ in zip(flat, needed, strict=True)
    )
