"""The recurrences written in PyTorch's own operations, for forward mode and for derivatives
beyond the first.

The same equations as `docs/math.md` has, step by step: slow, and differentiable to any order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .passes import Direction, Inputs

__all__ = ["composite"]

State = tuple[Tensor, ...]


def composite(how: Direction, inputs: Inputs) -> tuple[Tensor, ...]:
    """y of all steps, and each part of the state after the last step.

    Raises
    ------
    NotImplementedError
        If the cell is one of the user's: neither its second derivatives nor its tangents are known.
    """
    x, given, (w_ih, w_hh, b_ih, b_hh) = inputs
    assert w_ih is not None
    assert w_hh is not None
    step = _STEPS.get(how.cell.name)
    if step is None:
        raise NotImplementedError(
            f"cell {how.cell.name!r}: of a cell of one's own only gradients are known, neither "
            "second derivatives nor forward mode"
        )
    zeros = x.new_zeros(how.batch(x), w_hh.shape[1])
    state = tuple(zeros if part is None else part for part in given)
    from_x = torch.nn.functional.linear(x, w_ih, b_ih)
    if how.offsets is None:
        of_steps = from_x.unbind(0)
    else:
        sizes = (how.offsets[1:] - how.offsets[:-1]).tolist()
        of_steps = from_x.split(sizes)
    outputs = []
    for a in of_steps:
        rows = len(a)
        before = tuple(part[:rows] for part in state)
        after = step(a, torch.nn.functional.linear(before[0], w_hh, b_hh), before)
        outputs.append(after[0])
        state = tuple(
            new if rows == len(old) else torch.cat([new, old[rows:]])
            for new, old in zip(after, state, strict=True)
        )
    if not outputs:  # no steps: what depends on x and has H values
        return (from_x[..., : w_hh.shape[1]], *state)
    y = torch.stack(outputs) if how.offsets is None else torch.cat(outputs)
    return (y, *state)


def _linear(a: Tensor, u: Tensor, before: State) -> State:
    return (a + u,)


def _tanh(a: Tensor, u: Tensor, before: State) -> State:
    return (torch.tanh(a + u),)


def _relu(a: Tensor, u: Tensor, before: State) -> State:
    return (torch.relu(a + u),)


def _lstm(a: Tensor, u: Tensor, before: State) -> State:
    i, f, g, o = (a + u).chunk(4, dim=-1)
    c = torch.sigmoid(f) * before[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(a: Tensor, u: Tensor, before: State) -> State:
    (ar, az, an), (ur, uz, un) = a.chunk(3, dim=-1), u.chunk(3, dim=-1)
    z = torch.sigmoid(az + uz)
    n = torch.tanh(an + torch.sigmoid(ar + ur) * un)
    return ((1 - z) * n + z * before[0],)


_STEPS: dict[str, Callable[[Tensor, Tensor, State], State]] = {
    "linear": _linear,
    "tanh": _tanh,
    "relu": _relu,
    "lstm": _lstm,
    "gru": _gru,
}
