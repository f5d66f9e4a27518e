"""Derivatives of `composite` as functions of tensors, which can be differentiated in turn, to any
order and by any transform of ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..layer_arguments import WEIGHTS
from .composite import composite
from .folding import Axes, unfold
from .passes import Direction, Saved

__all__ = ["Gradients", "outputs_of", "pull_back"]

Tensors = tuple[Tensor, ...]
Given = Sequence[Tensor | None]
Function = Callable[..., Tensors]


def outputs_of(how: Direction, flat: Given) -> Tensors:
    """y of all steps, and each part of the last state, of ``Inputs.flat``."""
    return composite(how, how.inputs(flat))


@dataclass(frozen=True)
class Gradients:
    """A function of ``Inputs.flat`` and what comes in at y and at the last state: the gradients of
    those inputs that are needed.

    Attributes
    ----------
    how : Direction
    needed : tuple of bool
        Of ``Inputs.flat``.
    samples : int or None
        If given, the batch is one of so many passes as `how` says, folded, and of the weights each
        has gradients of its own: a first axis more.
    """

    how: Direction
    needed: tuple[bool, ...]
    samples: int | None = None

    def __call__(self, *tensors: Tensor | None) -> Tensors:
        if self.samples is None:
            flat, incoming, _ = self.split(tensors)
            return pull_back(lambda *own: outputs_of(self.how, own), flat, incoming, self.needed)
        axes = Axes.of(self.how)
        into = (*axes.flat, *axes.incoming)
        apart = [
            t if t is None or r is None else unfold(t, self.samples, r)
            for t, r in zip(tensors, into, strict=True)
        ]
        in_dims = tuple(
            None if t is None or r is None else r + 1 for t, r in zip(apart, into, strict=True)
        )
        out_of = tuple(self.of_needed(axes.flat))
        at = tuple(0 if r is None else r + 1 for r in out_of)
        found = torch.func.vmap(replace(self, samples=None), in_dims, at)(*apart)
        pairs = zip(found, out_of, strict=True)
        return tuple(g if r is None else g.flatten(r, r + 1) for g, r in pairs)

    def by_kernels(self, flat: Given, incoming: Given, saved: Saved) -> list[Tensor | None]:
        """The same of a pass that was made, at the places of ``Inputs.flat``."""
        how = self.how
        if self.samples is None:
            return list(how.backward(how.inputs(flat), saved, incoming, self.needed))
        whole = how.repeated(self.samples)
        found = whole.backward(whole.inputs(flat), saved, incoming, self.needed, by_row=True)
        axes = zip(found, Axes.of(how).flat, strict=True)
        return [
            g if g is None or axis is not None else _summed(unfold(g, self.samples, 0))
            for g, axis in axes
        ]

    def nbytes_apart(self, x: Tensor, tensors: Given) -> int:
        """Bytes of the needed weight gradients of all rows of `x`, if samples have several rows."""
        samples, batch = self.samples or 1, self.how.batch(x)
        rows = batch if self.how.offsets is not None else batch // samples
        if rows == 1:
            return 0  # these are what is returned
        weights = [*zip(tensors, self.needed, strict=False)][1 + self.how.parts :]
        of_row = sum(t.numel() for t, is_ in weights if is_ and t is not None)
        return samples * rows * of_row * x.element_size()

    def repeated(self, times: int) -> Gradients:
        """Of so many times the samples."""
        return replace(self, samples=times * (self.samples or 1))

    def split(self, tensors: Given) -> tuple[Given, Given, Sequence[Any]]:
        """``Inputs.flat``, what comes in, and whatever is behind."""
        flat = 1 + self.how.parts + len(WEIGHTS)
        incoming = flat + 1 + self.how.parts
        return tensors[:flat], tensors[flat:incoming], tensors[incoming:]

    def of_needed(self, each: Iterable[Any]) -> list[Any]:
        """Of those, the ones whose gradients are needed."""
        return [item for item, is_ in zip(each, self.needed, strict=True) if is_]


def _summed(rows: Tensor) -> Tensor:
    """Over the first axis, of the rows of a sample: often one."""
    return rows[0] if len(rows) == 1 else rows.sum(0)


def pull_back(f: Function, at: Given, cotangents: Given, needed: Sequence[bool]) -> Any:
    """The gradients of those arguments of `f` that are needed; a cotangent that is None is zero."""
    where = [i for i, is_ in enumerate(needed) if is_]
    outputs, pull = torch.func.vjp(_of(f, at, where), *[at[i] for i in where])
    pairs = zip(outputs, cotangents, strict=True)
    return pull(tuple(torch.zeros_like(o) if d is None else d for o, d in pairs))


def _of(f: Function, at: Given, where: Sequence[int]) -> Function:
    """`f` of some of its arguments; the others stay."""

    def of_some(*values: Tensor) -> Tensors:
        arguments = list(at)
        for i, value in zip(where, values, strict=True):
            arguments[i] = value
        return f(*arguments)

    return of_some
