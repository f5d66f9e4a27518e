"""The cells of the Numba backend, each as two functions of one unit, and how they are compiled.

A function is compiled into a loop over units behind a C interface of two pointers, so that the
recurrence (`numba_kernels`) is compiled once for all cells:

    forward(given, found, count)     given: sums, state before          found: state, saved
    backward(given, found, count)    given: saved, state before, state, dstate
                                     found: da of each sum, what goes straight to the state before

Each is an array of rows of `UNITS` values, of which the first `count` are there.
"""

from __future__ import annotations

import dis
import itertools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from numba import carray, cfunc, errors, njit, typeof, types

from ..cells import Cell, Step
from ..pointwise import sigmoid, slope_of_sigmoid, slope_of_tanh, tanh
from . import numba_math  # noqa: F401  makes Numba know bptt.pointwise
from .numba_kernels import UNITS, Pointwise

__all__ = ["STEPS", "compiled", "step_of"]


def _linear(sums: Any, h: Any) -> Any:
    return sums[0], ()


def _linear_derivative(saved: Any, before: Any, h: Any, dh: Any) -> Any:
    return (dh,), 0.0


def _tanh(sums: Any, h: Any) -> Any:
    return tanh(sums[0]), ()


def _tanh_derivative(saved: Any, before: Any, h: Any, dh: Any) -> Any:
    return (dh * slope_of_tanh(h),), 0.0


def _relu(sums: Any, h: Any) -> Any:
    a = sums[0]
    zero = type(a)(0)
    return zero if a <= zero else a, ()


def _relu_derivative(saved: Any, before: Any, h: Any, dh: Any) -> Any:
    zero = type(h)(0)
    return (zero if h <= zero else dh,), 0.0


def _lstm(sums: Any, state: Any) -> Any:
    a_i, a_f, a_g, a_o = sums
    _, c = state
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
    c = f * c + i * g
    return (o * tanh(c), c), (i, f, g, o)


def _lstm_derivative(saved: Any, before: Any, state: Any, dstate: Any) -> Any:
    i, f, g, o = saved
    dh, dc = dstate
    tanh_c = tanh(state[1])
    dc = dc + dh * o * slope_of_tanh(tanh_c)
    da_i = dc * g * slope_of_sigmoid(i)
    da_f = dc * before[1] * slope_of_sigmoid(f)
    da_g = dc * i * slope_of_tanh(g)
    da_o = dh * tanh_c * slope_of_sigmoid(o)
    return (da_i, da_f, da_g, da_o), (0.0, dc * f)


def _gru(sums: Any, h: Any) -> Any:
    a_r, a_z, i_n, h_n = sums
    r, z = sigmoid(a_r), sigmoid(a_z)
    n = tanh(i_n + r * h_n)
    return (type(z)(1) - z) * n + z * h, (r, z, n, h_n)


def _gru_derivative(saved: Any, before: Any, h: Any, dh: Any) -> Any:
    r, z, n, h_n = saved
    da_n = dh * (type(z)(1) - z) * slope_of_tanh(n)
    da_z = dh * (before - n) * slope_of_sigmoid(z)
    da_r = da_n * h_n * slope_of_sigmoid(r)
    return (da_r, da_z, da_n, r * da_n), z * dh


STEPS = {
    "linear": Step(_linear, _linear_derivative, ()),
    "tanh": Step(_tanh, _tanh_derivative, ()),
    "relu": Step(_relu, _relu_derivative, ()),
    "lstm": Step(_lstm, _lstm_derivative, ("i", "f", "g", "o")),
    "gru": Step(_gru, _gru_derivative, ("r", "z", "n", "h_n")),
}


def step_of(cell: Cell) -> Step | None:
    """The two functions of `cell`, if it has any."""
    return cell.step or STEPS.get(cell.name)


def compiled(cell: Cell, dtype: str) -> Pointwise:
    """The functions of `cell` for the numbers of `dtype`.

    Raises
    ------
    TypeError
        If Numba cannot compile one of them; its message tells the line. If one of them, or a
        compiled function that it calls, has a ``raise`` or ``assert``: behind a C interface an
        exception would be lost, and the numbers be those of another step.
    """
    step = step_of(cell)
    assert step is not None
    for function in (step.forward, step.derivative):
        _refuse_raise(cell, function)
    sums, states, saved = cell.sums, len(cell.states), len(step.saved)
    state = Values(states, bare=states == 1)
    given, found = [Values(sums), state], [state, Values(saved)]
    forward = _compile(cell, step.forward, dtype, given, found)
    given, found = [Values(saved), state, state, state], [Values(sums), state]
    backward = _compile(cell, step.derivative, dtype, given, found)
    return Pointwise(forward, backward, sums, states, saved)


def _refuse_raise(cell: Cell, function: Callable[..., Any]) -> None:
    for code in _codes(function, set()):
        if any(instruction.opname == "RAISE_VARARGS" for instruction in dis.get_instructions(code)):
            raise TypeError(
                f"cell {cell.name!r}: {code.co_name} has a raise or assert, and backend 'numba' "
                f"cannot pass on an exception: return NaN there, or take backend='numpy'"
            )


def _codes(function: object, seen: set[object]) -> Iterator[CodeType]:
    """The code of `function`, and of all functions that it names and Numba has compiled."""
    plain = getattr(function, "py_func", function)
    if not isinstance(plain, FunctionType) or plain in seen:
        return
    seen.add(plain)
    codes = list(_with_inner_codes(plain.__code__))
    yield from codes
    names = {name for code in codes for name in code.co_names}
    values = [plain.__globals__.get(name) for name in names]
    values += [variable.cell_contents for variable in plain.__closure__ or ()]
    modules = [value for value in values if isinstance(value, ModuleType)]
    values += [getattr(module, name, None) for module in modules for name in names]
    for value in values:
        if hasattr(value, "py_func"):  # others are Numba's own, which has code of its own for them
            yield from _codes(value, seen)


def _with_inner_codes(code: CodeType) -> Iterator[CodeType]:
    """`code`, and that of the functions defined in it; from Python 3.14 on not that of their
    annotations, which nothing calls here."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant.co_name != "__annotate__":
            yield from _with_inner_codes(constant)


class Values(NamedTuple):
    """An argument or a result of a cell's function: a tuple of so many numbers, or a bare one."""

    size: int
    bare: bool = False

    def of(self, array: str, first: int) -> str:
        """The expression for unit u, which is in the rows of `array` from `first` on."""
        numbers = [f"{array}[{row}, u]" for row in range(first, first + self.size)]
        return numbers[0] if self.bare else f"({''.join(n + ', ' for n in numbers)})"


def _compile(
    cell: Cell,
    function: Callable[..., Any],
    dtype: str,
    given: list[Values],
    found: list[Values],
) -> Any:
    """`function` in a loop over units.

    The loop is written out for the numbers of values, since Numba has no tuple of a length that
    is known only later. Results are rounded to `dtype` where they are stored.
    """
    inputs, outputs = (_expressions(name, all_) for name, all_ in (("x", given), ("y", found)))
    source = f"""
def loop(given, found, count):
    x = carray(given, ({sum(v.size for v in given)}, {UNITS}))
    y = carray(found, ({sum(v.size for v in found)}, {UNITS}))
    for u in range(count):
        {outputs} = function({inputs})
"""
    # A loop that calls it would not be vectorised.
    inlined = njit(
        error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)
    names = {"carray": carray, "function": inlined}
    exec(source, names)
    real = typeof(np.dtype(dtype).type(0))
    signature = types.void(types.CPointer(real), types.CPointer(real), types.intp)
    try:
        return cfunc(signature, error_model="numpy")(names["loop"])
    except errors.NumbaError as error:
        name = getattr(function, "__name__", type(function).__name__)
        what = f"cell {cell.name!r}: {name} does not compile"
        raise TypeError(f"{what}: {error}") from None


def _expressions(array: str, values: list[Values]) -> str:
    """All values of unit u, one after the other in the rows of `array`."""
    firsts = itertools.accumulate((v.size for v in values), initial=0)
    return ", ".join(v.of(array, first) for v, first in zip(values, firsts, strict=False))
