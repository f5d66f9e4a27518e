"""The pass of one direction as operators of PyTorch.

What traces a program sees these, with the shapes of their results, and never the kernels:
torch.compile, torch.export, make_fx, modes such as FakeTensorMode, tensors on the device "meta".

- ``bptt::layer`` and ``bptt::layer_backward`` can be differentiated; they are in programs that
  torch.export makes. All they do is to call these:
- ``bptt::layer_kernel`` and ``bptt::layer_backward_kernel`` have no derivatives. They are what is
  left once the derivatives are traced, too, so what a compiled program calls: PyTorch goes from
  Python to Python for each rule of derivatives, each time.

An operator has the same arguments for every cell. The second part of the state is absent in cells
with one; a result that is absent is empty. Packed rows have no operator: they are traced as the
steps of `composite`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from ..cells import get_cell
from ..layer_arguments import WEIGHTS
from . import direct, gpu_passes
from .derivatives import Gradients, outputs_of, pull_back
from .passes import Direction, Inputs, Saved

__all__ = ["backward", "forward", "layer_operator", "run_operator"]

Tensors = tuple[Tensor, ...]
Given = Sequence[Tensor | None]

_FLAT = "Tensor x, Tensor? h, Tensor? c, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh"
_INCOMING = "Tensor? dy, Tensor? dh_n, Tensor? dc_n"
_KEPT = "Tensor y, Tensor c_y, Tensor saved"
_STATES = 2
_IN_FLAT, _INTO = 1 + _STATES + len(WEIGHTS), 1 + _STATES  # places of `_FLAT` and of `_INCOMING`


def run_operator(how: Direction, inputs: Inputs) -> Tensors:
    """y of all steps, and each part of the state after the last step."""
    flat = inputs.flat()
    if how.offsets is not None:
        return outputs_of(how, flat)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in flat)
    y, _, *last, _ = torch.ops.bptt.layer(how.cell.name, *_widened(how, 1, flat), save)
    return (y, *last[: how.parts])


def forward(how: Direction, flat: Given, save: bool) -> Tensors:
    """``Direction.forward`` by the operator; `save`: gates, if others than it handle them."""
    wide = _widened(how, 1, flat)
    y, c_y, *last, gates = torch.ops.bptt.layer_kernel(how.cell.name, *wide, save)
    saved = _saved(how, (y, c_y, gates))
    return (*saved.history, *last[: how.parts], *saved.gates)


def backward(of: Gradients, flat: Given, incoming: Given, saved: Saved) -> list[Tensor | None]:
    """``Gradients.by_kernels`` by the operator."""
    how = of.how
    found = torch.ops.bptt.layer_backward_kernel(
        how.cell.name,
        _widened(how, 1, of.needed, False),
        of.samples,
        *_widened(how, 1, flat),
        *_widened(how, 1, incoming),
        *_results(how, [saved.history], saved.gates, flat[0]),
    )
    return [g if is_ else None for g, is_ in zip(_narrowed(how, 1, found), of.needed, strict=True)]


# --- one list of arguments for all cells -------------------------------------------------------


def _widened(how: Direction, at: int, each: Sequence[Any], absent: Any = None) -> list[Any]:
    """With a place for each state that a cell may have, of which the first is `at`."""
    return [*each[: at + how.parts], *[absent] * (_STATES - how.parts), *each[at + how.parts :]]


def _narrowed(how: Direction, at: int, each: Sequence[Any]) -> list[Any]:
    """The other way round."""
    return [*each[: at + how.parts], *each[at + _STATES :]]


def _results(how: Direction, states: Sequence[Tensors], gates: Tensors, like: Any) -> list[Tensor]:
    """States, and gates, as the operator has them."""
    assert len(gates) <= 1, "more arrays than the operator has places for"
    every = [each for parts in states for each in _widened(how, 0, parts)]
    return [like.new_empty(0) if each is None else each for each in (*every, *(gates or (None,)))]


def _saved(how: Direction, results: Sequence[Tensor]) -> Saved:
    """The other way round, of the history."""
    *history, gates = results
    return Saved(tuple(history[: how.parts]), (gates,) if gates.dim() > 1 else ())


# --- two operators of each name ----------------------------------------------------------------


def _publish(
    name: str,
    schema: str,
    kernel: Callable[..., Tensors],
    fake: Callable[..., Tensors],
    function: type[torch.autograd.Function],
) -> None:
    """Make ``bptt::<name>_kernel`` of `kernel`, and ``bptt::<name>``, which `function` can
    differentiate."""
    inner, outer = f"bptt::{name}_kernel", f"bptt::{name}"
    for each in (inner, outer):
        torch.library.define(each, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.register_fake(each, fake)
    torch.library.impl(inner, _DEVICES, _disable_dynamo(kernel))
    call = getattr(torch.ops.bptt, f"{name}_kernel").default

    def differentiable(*arguments: Any) -> Any:
        if torch.is_grad_enabled() and any(_needs_gradient(each) for each in arguments):
            return function.apply(*arguments)
        return call(*arguments)

    torch.library.impl(outer, _DEVICES, call)  # where there is no autograd: torch.inference_mode
    _LIBRARY.impl(name, _disable_dynamo(differentiable), "Autograd")


_LIBRARY = torch.library.Library("bptt", "FRAGMENT")
_DEVICES = ("cpu", "cuda")


def _needs_gradient(argument: Any) -> bool:
    return isinstance(argument, Tensor) and argument.requires_grad


# --- bptt::layer -------------------------------------------------------------------------------

_SCHEMA = f"(str cell, {_FLAT}, bool save) -> ({', '.join(['Tensor'] * 5)})"


def _layer(cell: str, *arguments: Any) -> Tensors:
    how, (*flat, save) = Direction(get_cell(cell)), arguments
    given = _narrowed(how, 1, flat)
    found = None
    if gpu_passes.on_host(given[0]):
        found = direct.forward(how.cell, given, None, False, save)
    if found is None:
        found = how.forward(given, how.save(given[0], save))
    states = (found[: how.parts], found[how.parts : 2 * how.parts])
    return tuple(_results(how, states, found[2 * how.parts :], given[0]))


def _layer_fake(cell: str, *arguments: Any) -> Tensors:
    how, (*flat, save) = Direction(get_cell(cell)), arguments
    x, w_hh = flat[0], flat[4]
    (steps, batch), hidden = x.shape[:2], w_hh.shape[1]
    _expect_shapes(how, flat)
    absent = _STATES - how.parts
    history = [(steps, batch, hidden)] * how.parts + [(0,)] * absent
    last = [(batch, hidden)] * how.parts + [(0,)] * absent
    gates = how.cell.saved if how.save(x, save) == "gates" else 0
    saved = (steps, batch, gates, hidden) if gates else (0,)
    return tuple(x.new_empty(shape) for shape in (*history, *last, saved))


def _expect_shapes(how: Direction, flat: Sequence[Any]) -> None:
    """Raise unless all shapes fit together: nobody looks at those of weights before."""
    x, h, c, w_ih, w_hh, *biases = flat
    hidden, state = w_hh.shape[1], (x.shape[1], w_hh.shape[1])
    rows = how.cell.gates * hidden
    shapes: list[tuple[Any, Any]] = [(h, state), (c, state), *((b, (rows,)) for b in biases)]
    shapes += [(w_ih, (rows, x.shape[2])), (w_hh, (rows, hidden))]
    for tensor, shape in shapes:
        if tensor is not None and tuple(tensor.shape) != shape:
            found = [None if t is None else tuple(t.shape) for t in flat]
            raise ValueError(f"bptt::layer: shapes do not fit together: {found}")


class _Layer(torch.autograd.Function):
    """``bptt::layer`` with the way back."""

    @staticmethod
    def forward(ctx: Any, cell: str, *arguments: Any) -> Tensors:
        found: Tensors = torch.ops.bptt.layer_kernel(cell, *arguments)
        ctx.cell, ctx.inputs = cell, len(arguments) - 1
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(found[1], found[4])
        ctx.save_for_backward(*arguments[:-1], *found[:2], found[4])
        return found

    @staticmethod
    def backward(ctx: Any, dy: Any, _c: None, dh: Any, dc: Any, _saved: None) -> Any:
        needed = list(ctx.needs_input_grad[1:-1])
        if dy is None and dh is None and dc is None:
            return (None,) * (2 + len(needed))
        tensors = ctx.saved_tensors  # once: checkpointing lets nobody ask again
        flat, kept = tensors[: ctx.inputs], tensors[ctx.inputs :]
        found = torch.ops.bptt.layer_backward(ctx.cell, needed, None, *flat, dy, dh, dc, *kept)
        return (None, *(g if is_ else None for g, is_ in zip(found, needed, strict=True)), None)


_publish("layer", _SCHEMA, _layer, _layer_fake, _Layer)
# As compiled programs find it, whose guards ask for each name on the way.
layer_operator = torch.ops.bptt.layer.default


# --- bptt::layer_backward ----------------------------------------------------------------------

_SCHEMA_BACKWARD = (
    f"(str cell, bool[] needed, int? samples, {_FLAT}, {_INCOMING}, {_KEPT})"
    f" -> ({', '.join(['Tensor'] * _IN_FLAT)})"
)


def _split(tensors: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """``Inputs.flat``, what comes in, and what was kept."""
    behind = _IN_FLAT + _INTO
    return tensors[:_IN_FLAT], tensors[_IN_FLAT:behind], tensors[behind:]


def _gradients(cell: str, needed: list[bool], samples: int | None, *tensors: Any) -> Tensors:
    how, (flat, incoming, kept) = Direction(get_cell(cell)), _split(tensors)
    wanted = tuple(_narrowed(how, 1, needed))
    given, into, saved = _narrowed(how, 1, flat), _narrowed(how, 1, incoming), _saved(how, kept)
    grads: Sequence[Tensor | None] | None = None
    if samples is None and gpu_passes.on_host(flat[0]):
        record = (*saved.history, *saved.gates)
        grads = direct.backward(how.cell, given, None, False, record, into, wanted)
    if grads is None:
        grads = Gradients(how, wanted, samples).by_kernels(given, into, saved)
    found = _widened(how, 1, grads)
    return tuple(flat[0].new_empty(0) if g is None else g for g in found)


def _gradients_fake(cell: str, needed: list[bool], samples: int | None, *tensors: Any) -> Tensors:
    x, _h, _c, *weights = _split(tensors)[0]
    first = () if samples is None else (samples,)
    state = (x.shape[1], weights[1].shape[1])
    shapes = (x.shape, state, state, *(() if w is None else (*first, *w.shape) for w in weights))
    return tuple(
        x.new_empty(shape if is_ else (0,)) for shape, is_ in zip(shapes, needed, strict=True)
    )


class _Gradients(torch.autograd.Function):
    """``bptt::layer_backward`` with its own way back."""

    @staticmethod
    def forward(
        ctx: Any, cell: str, needed: list[bool], samples: int | None, *tensors: Any
    ) -> Tensors:
        found: Tensors = torch.ops.bptt.layer_backward_kernel(cell, needed, samples, *tensors)
        how, (flat, incoming, kept) = Direction(get_cell(cell)), _split(tensors)
        ctx.of, ctx.kept = Gradients(how, tuple(_narrowed(how, 1, needed)), samples), len(kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*_narrowed(how, 1, flat), *_narrowed(how, 1, incoming))
        return found

    @staticmethod
    def backward(ctx: Any, *into: Tensor | None) -> Any:
        of, how, tensors = ctx.of, ctx.of.how, ctx.saved_tensors
        flat, incoming, _ = _split(ctx.needs_input_grad[3:])
        needed = (*_narrowed(how, 1, flat), *_narrowed(how, 1, incoming))
        given = of.of_needed(_narrowed(how, 1, into))
        found: list[Tensor | None] = [None] * len(needed)
        if any(needed) and any(d is not None for d in given):
            gradients = iter(pull_back(of, tensors, given, needed))
            found = [next(gradients) if is_ else None for is_ in needed]
        of_flat, of_incoming, _ = of.split(found)
        wide = (*_widened(how, 1, of_flat), *_widened(how, 1, of_incoming))
        return (None, None, None, *wide, *(None,) * ctx.kept)


_publish("layer_backward", _SCHEMA_BACKWARD, _gradients, _gradients_fake, _Gradients)
