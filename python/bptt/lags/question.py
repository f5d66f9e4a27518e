"""What is asked of `lag_gradients`, checked, and with all that does not depend on the lag."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import checks
from ..backends import resolve
from ..backends.protocol import Layer
from ..cells import Cell, get_cell
from ..checks import Array
from ..inputs import read_inputs, states_nbytes
from ..losses import At, Objective, make_objective
from ..params import Params, Seed, generator_of
from ..recorded import Named, Recorded
from ..states import GivenState
from .scalar import squares_of, sum_of
from .terms import ROUTES, AtEveryStep, AtOneStep, Term, Terms

__all__ = ["Question", "read_question"]

# Units of eps that rounding may leave; a tenth of one is usual.
_ROUNDING = 100

# Groups of sequences between which a sample's results are compared.
MOST_GROUPS = 8


@dataclass(frozen=True, eq=False)
class Question:
    """Iterate to get the terms of each lag: one for each group of sequences."""

    cell: Cell
    route: str | None
    lags: Array
    groups: list[Terms]
    readout: Named
    loss: float | None
    steps: int
    step: int | None  # the only one of the loss
    factor: float | None  # by which each sequence of a sample counts; None without a sample

    def __iter__(self) -> Iterator[list[Term]]:
        return map(list, zip(*self.groups, strict=True))

    def gap(self) -> float:
        """``||total - sum of the terms||``, all parameters and sequences as one vector.

        Where not all lags were asked for, the sum is taken once more from their delta, all at once.
        """
        left = sum_of([self._left(group) for group in self.groups])
        return math.sqrt(sum(squares_of(left).values()))

    def require_sum(self, gap: float, size: float) -> None:
        """Raise RuntimeError if `gap` is more than rounding of summands as large as `size`.

        That of the summands, and not of the total: where they cancel, rounding stays.
        """
        gap = gap / size if size > 0 else 0.0
        if gap > _ROUNDING * np.finfo(self.groups[0].total["w_hh"].dtype).eps:
            raise RuntimeError(f"the terms of all lags do not add up to the gradient: {gap:.2g}")

    @staticmethod
    def _left(group: Terms) -> Named:
        """What the terms of all lags leave of the total."""
        if group.left is not None:
            return group.left
        again = group.sum_of_all()
        return {name: g - again[name] for name, g in group.total.items()}


def read_question(
    cell: str | Cell,
    params: Params,
    x: Array,
    target: Array | None = None,
    *,
    dy: Array | None = None,
    loss: str | None = None,
    at: At = "all",
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    max_lag: int | None = None,
    lags: Iterable[int] | None = None,
    route: str | None = None,
    sample: int | None = None,
    rng: Seed = 0,
) -> Question:
    """Check all arguments of `lag_gradients`, run the forward pass and the sweep of all lags.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    """
    kind = get_cell(cell)
    params, x, initial = read_inputs(kind, params, x, state)
    steps, batch, _ = x.shape
    if not steps or not batch:
        raise ValueError(f"x: expected at least one step and one sequence, got shape {x.shape}")
    _check_route(kind, route)
    given = {"target": target, "loss": loss}
    incoming = _read_incoming(params, x, dy, given, at, reduction)
    chosen = resolve(backend, kind, x.dtype)
    step = incoming.step if isinstance(incoming, Objective) else None
    walked = steps if step is None else step + 1
    asked = _read_lags(max_lag, lags, walked)
    checks.require_memory(
        _nbytes(kind, params, walked, batch, len(asked), one_step=step is not None),
        f"{len(asked)} lags of {walked} steps",
    )
    groups: list[Terms] = []
    readout: Named = {}
    total_loss = 0.0
    drawn, factor = _read_sample(sample, rng, batch)
    for rows in drawn:
        start = tuple(np.ascontiguousarray(s[rows]) for s in initial)
        inputs = np.ascontiguousarray(x[:walked, rows])
        recorded = Recorded(chosen, Layer(kind, params, inputs, start))
        part = _rows_of(incoming, rows, factor)
        if isinstance(part, Objective):
            value, part, of_readout = recorded.readout_gradient(part)
            readout = {name: readout.get(name, 0) + g for name, g in of_readout.items()}
            total_loss += value
        groups.append((AtEveryStep if step is None else AtOneStep)(recorded, part, asked, route))
    return Question(
        kind,
        route,
        asked,
        groups,
        readout,
        total_loss if dy is None else None,
        steps,
        step,
        None if sample is None else factor,
    )


def _nbytes(
    cell: Cell, params: Params, steps: int, batch: int, lags: int, *, one_step: bool
) -> int:
    """Bytes of the recorded pass, of delta, and of what is kept of each lag."""
    states = states_nbytes(cell, params, steps, batch, "minimal")
    recorded = states_nbytes(cell, params, steps, batch) + states  # the states before, too
    if not one_step:
        return recorded + 5 * states + lags * steps * 8
    deltas = cell.sums * states // len(cell.states)
    sums = lags * 20 * 8 * cell.gates * (params.hidden_size // 16 + 1)
    return recorded + states + deltas + sums


def _check_route(cell: Cell, route: object) -> None:
    if route is None:
        return
    checks.choice("route", route, ROUTES)
    if cell.keeps is None and cell.step is None:
        raise ValueError(f"route: cell {cell.name!r} has one route only, got {route!r}")


def _read_incoming(
    params: Params,
    x: Array,
    dy: Array | None,
    given: dict[str, Any],
    at: Any,
    reduction: str,
) -> Objective | Array:
    """What gives the states their gradients: a loss of the readout, or an array."""
    steps, batch, _ = x.shape
    if dy is not None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: expected None beside dy, got {type(value).__name__}")
        array = checks.as_float_array("dy", dy, ("w_hh", params.dtype))
        checks.expect_shape("dy", array, (steps, batch, params.hidden_size), "x and w_hh")
        return checks.readable(array)
    for name, value in given.items():
        if value is None:
            raise TypeError(f"{name}: expected it, or dy in place of target and loss, got None")
    if params.w_ho is None:
        raise ValueError("params: a loss needs the readout weights w_ho, got None")
    objective = make_objective(params, steps, batch, given["target"], given["loss"], at, reduction)
    if objective.weights is not None and not objective.weights.any():
        raise ValueError("at: expected a loss at one step at least, got weights that are all zero")
    return objective


def _read_lags(max_lag: object, lags: Iterable[int] | None, steps: int) -> Array:
    """The lags that are computed, sorted."""
    if lags is None:
        last = steps - 1 if max_lag is None else checks.size("max_lag", max_lag, least=0)
        if last >= steps:
            raise ValueError(f"max_lag: expected at most {steps - 1}, the first step, got {last}")
        return np.arange(last + 1)
    if max_lag is not None:
        raise ValueError("lags: expected either lags or max_lag, got both")
    return np.array(checks.rising("lags", lags, 0, steps - 1, "the first step"))


def _read_sample(sample: object, rng: Seed, batch: int) -> tuple[list[Any], float]:
    """Groups of sequences, and the factor by which each counts: for those left out too."""
    if sample is None:
        return [slice(None)], 1.0
    count = checks.size("sample", sample, least=2)
    if count > batch:
        raise ValueError(f"sample: expected at most {batch}, the sequences of x, got {count}")
    drawn = np.sort(generator_of(rng).choice(batch, count, replace=False))
    return np.array_split(drawn, min(MOST_GROUPS, count)), batch / count


def _rows_of(incoming: Objective | Array, rows: Any, factor: float) -> Objective | Array:
    """The part of some sequences, times `factor`."""
    if isinstance(incoming, Objective):
        cut = rows if incoming.step is not None else (slice(None), rows)
        weights = incoming.weights
        return replace(
            incoming,
            target=np.ascontiguousarray(incoming.target[cut]),
            weights=None if weights is None else np.ascontiguousarray(weights[:, rows]),
            scale=incoming.scale * factor,
        )
    part: Array = np.ascontiguousarray(incoming[:, rows]) * incoming.dtype.type(factor)
    return part
