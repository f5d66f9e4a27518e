"""`cell`, which makes a recurrent cell of two functions: its pointwise step and the derivative."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from .cells import CELLS, Cell, Step

__all__ = ["CellDefinition", "cell"]

BUILT_IN = frozenset(CELLS)
MOST_STATES = 2


def cell(
    *,
    gates: Iterable[str],
    states: Iterable[str] = ("h",),
    saved: Iterable[str] = (),
    apart: Iterable[str] = (),
    keeps: str | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], CellDefinition]:
    """Define a recurrent cell by its pointwise step; a decorator.

    The package computes the sums a = W_x x_t + b_ih + W_s S_{t-1} + b_hh of every gate, and all
    that comes of the cell's derivative: BPTT, the gradients of weights, biases and inputs,
    batches, threads, losses. Both functions are written for one unit, in numbers, with
    `bptt.pointwise` (``sigmoid``, ``tanh`` and their slopes) and arithmetic. The Numba backend
    compiles them; the NumPy backend calls them as they are, with arrays (B, H) if they can take
    those (``np.where`` instead of ``if``).

    Parameters
    ----------
    gates : tuple of str
        Names of the G gates: ``w_ih`` has G H rows, in this order.
    states : tuple of str
        What a state consists of: ``("h",)``, or ``("h", "c")`` with a memory beside S.
    saved : tuple of str
        Names of what the step leaves for the derivative.
    apart : tuple of str
        Gates that take W_x x_t + b_ih and W_s S_{t-1} + b_hh apart instead of as a sum, as the n of
        a GRU does.
    keeps : str, optional
        The gate that multiplies the memory of the step before; `init_params` then knows
        ``forget_bias`` and ``chrono``.
    name : str, optional
        What ``cell=`` is called; the name of the function if not given. A cell of that name that
        was defined before is replaced, unless it comes with the package.

    Returns
    -------
    decorator
        Of the step, ``step(sums, state) -> (state, saved)``: `sums` is a tuple of one number for
        each gate, and behind them W_s S_{t-1} + b_hh for each one `apart`; a state is a number,
        or the pair (h, c); `saved` is a tuple. What it returns takes the derivative by
        its own decorator ``.derivative``, and that returns the `Cell`, which can be passed as
        ``cell=``, and so can its name::

            derivative(saved, before, state, dstate) -> (dsums, dbefore)

        where `before` and `state` are the states before and after the step, `dstate` is the
        gradient of the loss in `state`, `dsums` its gradient in each of `sums`, and `dbefore`
        in `before`, of what does not go through `sums`.

    Raises
    ------
    TypeError
        If a name is not a string, or one of the two is not a function.
    ValueError
        If names are missing, repeated or unknown, there are more than two states, or a function
        returns another number of values than was declared; the message names the cell.

    Examples
    --------
    A minimal gated unit (Zhou et al. 2016, arXiv 1603.09420), reset behind the product:

    >>> import bptt
    >>> from bptt.pointwise import sigmoid, slope_of_sigmoid, slope_of_tanh, tanh
    >>> @bptt.cell(gates=("f", "n"), apart=("n",), saved=("f", "n", "h_n"), keeps="f")
    ... def mgu(sums, h):
    ...     a_f, i_n, h_n = sums
    ...     f = sigmoid(a_f)
    ...     n = tanh(i_n + f * h_n)
    ...     return (1 - f) * n + f * h, (f, n, h_n)
    >>> @mgu.derivative
    ... def mgu(saved, before, h, dh):
    ...     f, n, h_n = saved
    ...     da_n = dh * (1 - f) * slope_of_tanh(n)
    ...     da_f = (dh * (before - n) + da_n * h_n) * slope_of_sigmoid(f)
    ...     return (da_f, da_n, da_n * f), dh * f
    >>> params = bptt.init_params(mgu, input_size=3, hidden_size=8, output_size=2, rng=0)
    """
    declared = {
        "gates": _names("gates", gates),
        "states": _names("states", states),
        "saved": _names("saved", saved),
        "apart": _names("apart", apart),
    }

    def define(step: Callable[..., Any]) -> CellDefinition:
        called = _name_of(step) if name is None else name
        return CellDefinition(_check_name(called), _function("step", step), keeps, **declared)

    return define


class CellDefinition:
    """A step that waits for its derivative; see `cell`."""

    def __init__(
        self,
        name: str,
        step: Callable[..., Any],
        keeps: str | None,
        gates: tuple[str, ...],
        states: tuple[str, ...],
        saved: tuple[str, ...],
        apart: tuple[str, ...],
    ) -> None:
        self._name, self._step, self._saved = name, step, saved
        if not gates:
            raise ValueError(f"cell {name!r}: gates: expected at least one name, got none")
        if not 1 <= len(states) <= MOST_STATES:
            raise ValueError(
                f"cell {name!r}: states: expected ('h',) or ('h', 'c'), got {len(states)} names"
            )
        if keeps is not None and not isinstance(keeps, str):
            raise TypeError(f"cell {name!r}: keeps: expected a name, got {type(keeps).__name__}")
        for what, chosen in (("apart", apart), ("keeps", () if keeps is None else (keeps,))):
            for gate in chosen:
                if gate not in gates:
                    raise ValueError(
                        f"cell {name!r}: {what}: expected names of {gates}, got {gate!r}"
                    )
        self._cell = Cell(
            name,
            len(gates),
            _equation(step, name),
            states,
            gates,
            keeps=keeps,
            apart=apart,
            # What is saved takes the place of the sums.
            saved=max(len(gates) + len(apart), len(saved))
            if saved or len(gates) + len(apart) > 1
            else 0,
        )

    def derivative(self, function: Callable[..., Any]) -> Cell:
        """Complete the cell by the derivative of its step, and register it; a decorator."""
        step = Step(self._step, _function("derivative", function), self._saved)
        cell = replace(self._cell, step=step)
        _try_out(cell, step)
        CELLS[cell.name] = cell
        return cell

    def __repr__(self) -> str:
        return f"CellDefinition({self._name!r}, without a derivative)"


def _try_out(cell: Cell, step: Step) -> None:
    """Call both functions with numbers, to see whether they return what was declared."""
    one = np.float64(0.5)
    state = one if len(cell.states) == 1 else (one,) * len(cell.states)
    after, saved = _call(cell, "step", step.forward, (one,) * cell.sums, state)
    _expect(cell, "step", "the state", after, cell.states, bare=len(cell.states) == 1)
    _expect(cell, "step", "saved", saved, step.saved)
    dsums, before = _call(cell, "derivative", step.derivative, saved, state, after, state)
    _expect(cell, "derivative", "dsums", dsums, (*cell.gate_names, *cell.apart))
    _expect(cell, "derivative", "dbefore", before, cell.states, bare=len(cell.states) == 1)


def _call(cell: Cell, role: str, function: Callable[..., Any], *given: Any) -> tuple[Any, Any]:
    """The two things that `function` returns."""
    try:
        result = function(*given)
    except Exception as error:  # of the user's code, which may raise anything
        raise ValueError(f"cell {cell.name!r}: {role}: {type(error).__name__}: {error}") from error
    if not isinstance(result, tuple) or len(result) != 2:
        what = "(state, saved)" if role == "step" else "(dsums, dbefore)"
        raise ValueError(f"cell {cell.name!r}: {role}: expected {what}, got {_seen(result)}")
    return result


def _expect(
    cell: Cell, function: str, what: str, value: Any, names: tuple[str, ...], bare: bool = False
) -> None:
    """`value` has a number for each of `names`: a bare one, or a tuple of them."""
    given = (value,) if bare else value
    if (
        not isinstance(given, tuple)
        or len(given) != len(names)
        or not all(isinstance(n, (numbers.Real, np.generic)) for n in given)
    ):
        wanted = "a number" if bare else f"a tuple of {len(names)} numbers ({', '.join(names)})"
        raise ValueError(
            f"cell {cell.name!r}: {function}: expected {what} to be {wanted}, got {_seen(value)}"
        )


def _seen(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(v).__name__ for v in value)})"
    return f"{type(value).__name__}"


def _names(what: str, names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{what}: expected a tuple of names, got {type(names).__name__}")
    given = tuple(names)
    for each in given:
        if not isinstance(each, str):
            raise TypeError(f"{what}: expected strings, got {type(each).__name__}")
    if len(set(given)) < len(given):
        raise ValueError(f"{what}: expected different names, got {given}")
    return given


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {type(name).__name__}")
    if not name.isidentifier():
        raise ValueError(f"name: expected a name such as 'mgu', got {name!r}")
    if name in BUILT_IN:
        raise ValueError(f"name: expected one that no cell of the package has, got {name!r}")
    return name


def _function(what: str, value: object) -> Callable[..., Any]:
    """`value`, or the plain function in it if Numba has compiled it."""
    plain = getattr(value, "py_func", value)
    if not callable(plain):
        raise TypeError(f"{what}: expected a function, got {type(value).__name__}")
    return plain


def _name_of(step: Any) -> str:
    return str(getattr(step, "__name__", type(step).__name__))


def _equation(step: Callable[..., Any], name: str) -> str:
    """The first line of the docstring."""
    return (step.__doc__ or f"{name}, defined by bptt.cell").strip().splitlines()[0]
