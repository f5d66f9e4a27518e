"""`check_gradients`: a backend's gradients against differences of its own loss in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks
from .backends import resolve
from .cells import Cell, get_cell
from .checks import Array
from .gradient import value_and_grad
from .initial import Seed, generator_of
from .losses import At
from .params import Params
from .sequence_options import Flags, Integers
from .stack import Layers, read_stack
from .states import GivenState, as_given, as_tuple, names

__all__ = ["GradientCheck", "check_gradients"]

# What rounding of a loss leaves of its difference: so many units of its last place.
_ROUNDED_OFF = 64
_STEPS = (1e-10, 1e-2)


@dataclass(frozen=True)
class GradientCheck:
    """What `check_gradients` found; true if every entry that was checked is right.

    Attributes
    ----------
    passed : bool
    name : str
        The array with the worst entry, as "w_hh" or "state[1]".
    index : tuple of int
        Where in that array.
    gradient, difference : float
        The entry as the backend has it, and as the difference of the loss has it.
    error : float
        Their distance, relative to the largest of both in the array that was checked, or to what
        rounding of the loss hides, if that is larger.
    tolerance : float
    checked : int
        Entries that were compared, of all arrays.
    """

    passed: bool
    name: str
    index: tuple[int, ...]
    gradient: float
    difference: float
    error: float
    tolerance: float
    checked: int

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        place = f"{self.name}[{', '.join(map(str, self.index))}]"
        return (
            f"{'passed' if self.passed else 'FAILED'}: of {self.checked} entries the worst is "
            f"{place}, gradient {self.gradient:.6g}, difference {self.difference:.6g}: "
            f"an error of {self.error:.2g}, {self.tolerance:.2g} allowed"
        )


def check_gradients(
    cell: str | Cell,
    params: Params | Layers,
    x: Array,
    target: Array,
    *,
    loss: str,
    at: At,
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    entries: int | None = 100,
    step: float = 1e-6,
    tolerance: float | None = None,
    rng: Seed = 0,
) -> GradientCheck:
    """Compare gradients with central differences of the loss, (L(v + h) - L(v - h)) / 2h.

    What ``torch.autograd.gradcheck`` is for PyTorch. The gradients are those of `value_and_grad`
    in the dtype of `params`; the differences are taken in float64, by what `backend` names there.

    Parameters
    ----------
    cell, params, x, target, loss, at, reduction, state, backend
    lengths, batch_sizes, reset, reverse, batch_first
        As in `value_and_grad`. A relu whose sum is within `step` of zero has no derivative, and
        may fail.
    entries : int or None
        How many entries of each array are compared, drawn at random; None for all. Each takes two
        passes over x.
    step : float
        h, times the entry's size where that is more than 1; from 1e-10 to 1e-2.
    tolerance : float, optional
        The largest error that passes, relative to the largest of an array's entries that are
        compared; 3 sqrt(eps) of the dtype, and at least 1e-6, if not given. Entries so small that
        rounding of the loss hides them pass.
    rng : int or numpy.random.Generator, optional
        What draws the entries.

    Returns
    -------
    GradientCheck
        True in an ``assert`` if all is well; ``print`` it to see the worst entry.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value; also if the backend does not know float64.

    Examples
    --------
    >>> assert bptt.check_gradients(
    ...     "gru", params, x, target, loss="squared_error", at="all"
    ... )  # doctest: +SKIP
    """
    options: dict[str, Any] = {
        "loss": loss,
        "at": at,
        "reduction": reduction,
        "backend": backend,
        "lengths": lengths,
        "batch_sizes": batch_sizes,
        "reset": reset,
        "reverse": reverse,
        "batch_first": batch_first,
    }
    _, grads = value_and_grad(cell, params, x, target, state=state, **options)
    resolve(backend, get_cell(cell), np.dtype(np.float64))
    if tolerance is None:
        allowed = max(1e-6, 3 * float(np.finfo(grads.x.dtype).eps) ** 0.5)
    else:
        allowed = checks.non_negative("tolerance", tolerance)
    h = checks.finite("step", step)
    if not _STEPS[0] <= h <= _STEPS[1]:
        raise ValueError(f"step: expected a number from {_STEPS[0]} to {_STEPS[1]}, got {h}")
    count = None if entries is None else checks.size("entries", entries)

    initial = grads.state if state is None else state  # the one for its shape
    point = _Point(cell, params, x, target, initial, options, from_zeros=state is None)
    generator, found = generator_of(rng), []
    gradients = {"x": grads.x, **_parts(grads.state), **grads.arrays()}
    for name, values in point.inputs.items():
        chosen = np.arange(values.size)
        if count is not None and count < values.size:
            chosen = np.sort(generator.choice(values.size, count, replace=False))
        gradient = gradients[name].astype(np.float64).ravel()[chosen]
        difference = np.array([point.difference(name, int(i), h) for i in chosen])
        both = np.abs(np.concatenate([gradient, difference]))
        hidden = _ROUNDED_OFF * np.finfo(np.float64).eps * point.largest_loss / h
        scale = max(np.max(both[np.isfinite(both)], initial=0.0), hidden / max(allowed, 1e-300))
        errors = np.abs(gradient - difference) / max(scale, np.finfo(np.float64).tiny)
        found += [
            (float(e), name, np.unravel_index(i, values.shape), float(g), float(d))
            for e, i, g, d in zip(errors, chosen, gradient, difference, strict=True)
        ]
    if not found:
        return GradientCheck(True, "x", (), 0.0, 0.0, 0.0, allowed, 0)
    # NaN is the worst of all.
    error, name, index, g, d = max(found, key=lambda entry: (np.isnan(entry[0]), entry[0]))
    place = tuple(int(i) for i in index)
    return GradientCheck(error <= allowed, name, place, g, d, error, allowed, len(found))


def _parts(state: GivenState) -> dict[str, Array]:
    parts = as_tuple(state)
    return dict(zip(names("state", len(parts)), parts, strict=True))


def _wide_params(params: Params | Layers) -> tuple[Params | Layers, dict[str, Array]]:
    """The parameters in float64, and their arrays by name."""
    if isinstance(params, Params):
        wide = params.astype(np.float64)
        return wide, wide.arrays()
    layers = read_stack(params).map(lambda each: each.astype(np.float64))
    return layers, read_stack(layers).arrays()


class _Point:
    """The inputs of a loss in float64, each entry of which can be moved."""

    def __init__(
        self,
        cell: str | Cell,
        params: Params | Layers,
        x: Array,
        target: Array,
        state: GivenState,
        options: dict[str, Any],
        *,
        from_zeros: bool,
    ) -> None:
        def wide(name: str, value: object) -> Array:
            return np.array(checks.as_array(name, value), np.float64)

        self._cell = cell
        self._options = dict(options)
        if not isinstance(options["at"], (str, int, np.integer)):
            self._options["at"] = wide("at", options["at"])
        targets = checks.as_array("target", target)
        self._target = targets if targets.dtype.kind in "iu" else wide("target", target)
        self._x = wide("x", x)
        self._params, of_params = _wide_params(params)
        parts_of_it = state if isinstance(state, (tuple, list)) else (state,)
        self._state = tuple(wide("state", part) for part in parts_of_it)
        if from_zeros:
            self._state = tuple(map(np.zeros_like, self._state))
        self.largest_loss = 0.0  # of all that were computed
        self.inputs = {"x": self._x, **_parts(as_given(self._state)), **of_params}

    def difference(self, name: str, entry: int, step: float) -> float:
        """The central difference of the loss in one entry."""
        values = self.inputs[name].reshape(-1)
        before = float(values[entry])
        h = step * max(1.0, abs(before))
        losses = []
        for moved in (before + h, before - h):
            values[entry] = moved
            losses.append(self._loss())
        values[entry] = before
        self.largest_loss = max(self.largest_loss, *map(abs, losses))
        return (losses[0] - losses[1]) / (2 * h)

    def _loss(self) -> float:
        state = as_given(self._state)
        loss, *_ = value_and_grad(
            self._cell, self._params, self._x, self._target, state=state, **self._options
        )
        return float(loss)
