"""The cells of the reference, each as the step of a textbook and its adjoint.

Read it beside ``docs/math.md``. One step of a cell is written in terms of the two affine maps

    g_i = W_x x_t + b_ih        g_h = W_s S_{t-1} + b_hh

which every cell has (an Elman cell adds them, a GRU gates the second alone). Its adjoint returns
the gradients of both maps and of the part of S_{t-1} that does not pass through them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..cells import Cell, Step
from ..checks import Array
from ..pointwise import sigmoid
from ..states import as_given, as_tuple
from .protocol import State

__all__ = ["STEPS", "step_of"]

# (g_i, g_h, state) -> (new state, saved for the adjoint)
StepForward = Callable[[Array, Array, State], tuple[State, tuple[Array, ...]]]
# (saved, dstate) -> (dg_i, dg_h, direct part of the previous state's gradient)
StepBackward = Callable[[tuple[Array, ...], State], tuple[Array, Array, State]]


def _elman(
    activation: Callable[[Array], Array], chain: Callable[[Array, Array], Array]
) -> tuple[StepForward, StepBackward]:
    """S_t = f(g_i + g_h); ``chain(dS, S)`` is f'(a) * dS, written in S = f(a)."""

    def forward(g_i: Array, g_h: Array, state: State) -> tuple[State, tuple[Array, ...]]:
        s = activation(g_i + g_h)
        return (s,), (s,)

    def backward(saved: tuple[Array, ...], dstate: State) -> tuple[Array, Array, State]:
        da = chain(dstate[0], saved[0])
        return da, da, (np.zeros_like(da),)

    return forward, backward


def _lstm_forward(g_i: Array, g_h: Array, state: State) -> tuple[State, tuple[Array, ...]]:
    """c_t = f c_{t-1} + i g and S_t = o tanh(c_t) (Gers, Schmidhuber, Cummins 2000)."""
    a_i, a_f, a_g, a_o = np.split(g_i + g_h, 4, axis=-1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c_previous = state[1]
    c = f * c_previous + i * g
    return (o * np.tanh(c), c), (i, f, g, o, c_previous, c)


def _lstm_backward(saved: tuple[Array, ...], dstate: State) -> tuple[Array, Array, State]:
    i, f, g, o, c_previous, c = saved
    ds, dc = dstate
    tanh_c = np.tanh(c)
    dc = dc + ds * o * (1 - tanh_c * tanh_c)
    da_i = dc * g * i * (1 - i)
    da_f = dc * c_previous * f * (1 - f)
    da_g = dc * i * (1 - g * g)
    da_o = ds * tanh_c * o * (1 - o)
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=-1)
    return da, da, (np.zeros_like(ds), dc * f)


def _gru_forward(g_i: Array, g_h: Array, state: State) -> tuple[State, tuple[Array, ...]]:
    """S_t = (1 - z) n + z S_{t-1} (Cho et al. 2014), r inside the recurrent map, as cuDNN."""
    i_r, i_z, i_n = np.split(g_i, 3, axis=-1)
    h_r, h_z, h_n = np.split(g_h, 3, axis=-1)
    r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
    n = np.tanh(i_n + r * h_n)
    s_previous = state[0]
    return ((1 - z) * n + z * s_previous,), (r, z, n, h_n, s_previous)


def _gru_backward(saved: tuple[Array, ...], dstate: State) -> tuple[Array, Array, State]:
    r, z, n, h_n, s_previous = saved
    (ds,) = dstate
    da_n = ds * (1 - z) * (1 - n * n)
    da_z = ds * (s_previous - n) * z * (1 - z)
    da_r = da_n * h_n * r * (1 - r)
    dg_i = np.concatenate([da_r, da_z, da_n], axis=-1)
    dg_h = np.concatenate([da_r, da_z, da_n * r], axis=-1)
    return dg_i, dg_h, (ds * z,)


STEPS: dict[str, tuple[StepForward, StepBackward]] = {
    "linear": _elman(lambda a: a, lambda ds, s: ds),
    "tanh": _elman(np.tanh, lambda ds, s: ds * (1 - s * s)),
    "relu": _elman(lambda a: np.maximum(a, 0), lambda ds, s: np.where(s <= 0, 0, ds)),
    "lstm": (_lstm_forward, _lstm_backward),
    "gru": (_gru_forward, _gru_backward),
}


@functools.cache
def step_of(cell: Cell) -> tuple[StepForward, StepBackward]:
    """The step of `cell` and its adjoint."""
    return STEPS[cell.name] if cell.step is None else _defined(cell, cell.step)


def _defined(cell: Cell, step: Step) -> tuple[StepForward, StepBackward]:
    """Those of a cell that `bptt.cell` defined."""
    gates, recurrent = cell.gates, list(cell.recurrent_sums)
    kept, states = len(step.saved), len(cell.states)
    call = _with_arrays if _take_arrays(cell, step) else _unit_by_unit

    def forward(g_i: Array, g_h: Array, state: State) -> tuple[State, tuple[Array, ...]]:
        sums = np.zeros((cell.sums, *state[0].shape), g_i.dtype)
        sums[:gates] += np.stack(np.split(g_i, gates, axis=-1))
        sums[recurrent] += np.stack(np.split(g_h, gates, axis=-1))
        after, saved = call(step.forward, tuple(sums), as_given(state))
        return after, (*saved, *state, *after)

    def backward(saved: tuple[Array, ...], dstate: State) -> tuple[Array, Array, State]:
        before, after = saved[kept : kept + states], saved[kept + states :]
        given = (saved[:kept], as_given(before), as_given(after), as_given(dstate))
        dsums, dbefore = call(step.derivative, *given)
        dg_h = np.concatenate([dsums[n] for n in recurrent], axis=-1)
        return np.concatenate(dsums[:gates], axis=-1), dg_h, dbefore

    return forward, backward


# What both functions of a `Step` return, as arrays.
Results = tuple[tuple[Array, ...], tuple[Array, ...]]


def _with_arrays(function: Callable[..., Any], first: tuple[Array, ...], *more: Any) -> Results:
    like = as_tuple(more[-1])[0]
    first_found, second_found = (
        tuple(np.broadcast_to(np.asarray(v, like.dtype), like.shape) for v in as_tuple(group))
        for group in function(first, *more)
    )
    return first_found, second_found


def _unit_by_unit(function: Callable[..., Any], first: tuple[Array, ...], *more: Any) -> Results:
    """For functions that decide by ``if``, or call ``math``."""
    like = as_tuple(more[-1])[0]

    def of_unit(values: Any, unit: tuple[int, ...]) -> Any:
        return tuple(v[unit] for v in values) if isinstance(values, tuple) else values[unit]

    found = [
        function(*(of_unit(values, unit) for values in (first, *more)))
        for unit in np.ndindex(like.shape)
    ]
    first_found, second_found = (
        tuple(
            np.array(column, like.dtype).reshape(like.shape)
            for column in zip(*(as_tuple(group) for group in groups), strict=True)
        )
        for groups in zip(*found, strict=True)
    )
    return first_found, second_found


def _take_arrays(cell: Cell, step: Step) -> bool:
    """Whether both functions of `step` can be called with arrays."""
    two = np.array([0.25, -0.5])
    state = as_given((two,) * len(cell.states))
    try:
        after, saved = _with_arrays(step.forward, (two,) * cell.sums, state)
        _with_arrays(step.derivative, saved, state, as_given(after), state)
    except Exception:
        return False
    return True
