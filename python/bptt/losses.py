"""What a gradient is taken of: the loss, the steps it is read at, and how its terms are reduced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

import numpy as np

from . import checks
from .checks import Array
from .params import Params
from .row_copies import put_rows
from .row_map import RowMap

__all__ = [
    "LOSSES",
    "REDUCTIONS",
    "At",
    "Objective",
    "TargetRows",
    "expect_ids",
    "make_objective",
    "read_loss_rows",
    "read_step",
]

LOSSES = ("squared_error", "cross_entropy")
REDUCTIONS = ("mean", "sum")

_SQUARED = "'squared_error' (1/2 sum_o (Y - O)^2 a row: the 1/2 and the sum over outputs differ)"
_FROM_LOGITS = "'cross_entropy' (of the outputs themselves: log_softmax is part of it)"
_LOSS_ALIASES = {
    **dict.fromkeys(("mse", "mseloss", "meansquarederror", "l2", "l2loss"), _SQUARED),
    **dict.fromkeys(("nll", "nllloss"), _FROM_LOGITS),
    **dict.fromkeys(("softmax", "crossentropyloss"), "'cross_entropy'"),
    **dict.fromkeys(("ce", "categoricalcrossentropy"), "'cross_entropy'"),
    "sparsecategoricalcrossentropy": "'cross_entropy'",
}
_REDUCTION_ALIASES = {"avg": "'mean'", "average": "'mean'", "total": "'sum'"}

At = Union[str, int, Array]


@dataclass(eq=False, slots=True)
class Objective:
    """A checked loss, in the form that backends read.

    The loss is ``scale * sum_{t, b} weights[t, b] * l(O[t, b], target[t, b])``, over all steps
    if `step` is None and over that step alone otherwise; ``weights`` of None stands for ones.

    Attributes
    ----------
    loss : str
        One of `LOSSES`.
    target : (T, B, O) or (T, B) array; without the leading T if `step` is given
        Float targets for ``squared_error``, int64 class ids for ``cross_entropy``.
    step : int or None
        The only step of the loss, or None for all.
    weights : (T, B) array or None
        Finite, and no subnormal numbers: those count as 0. A weight of 0 selects: nothing of such a
        row may count, whatever its target holds.
    scale : float
        1 for ``reduction="sum"``, one over the number of terms for ``"mean"``.
    """

    loss: str
    target: Array
    step: int | None
    weights: Array | None
    scale: float


def make_objective(
    params: Params, rows: RowMap, target: object, loss: object, at: object, reduction: str
) -> Objective:
    """Check the description of a loss over the caller's `rows`; it is then one of the layer's.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    """
    found = read_loss_rows(params, rows, loss, at, reduction)
    loss, _, step, weights, where = found
    read_target = _class_ids if loss == "cross_entropy" else _float_target
    checked = read_target(target, where, params, weights)
    scale = found.scale
    if where.one_step and not rows.whole:
        step, weights = None, where.selected(params.dtype)
    elif where.one_step and step is None:
        checked = checked[None][:0]  # the last step of none: its target is not read
    elif step is not None and rows.reverse:
        step = rows.steps - 1 - step
    return Objective(loss, checked, step, weights, scale)


_STEPS = "'last', 'all' or an integer step"
_AT = "'last', 'all', an integer step or a (T, B) array of weights"


def read_step(at: object, steps: int, wanted: str = _STEPS) -> int | None:
    """The only one of `steps` that `at` names, from 0 on, or None for all, or for the last of none.

    Raises
    ------
    TypeError, ValueError
        If it is neither "last", "all" nor a step, where `wanted` was expected.
    """
    if isinstance(at, str):
        if at not in ("last", "all"):
            hint = checks.did_you_mean(at, ("last", "all"))
            raise ValueError(f"at: expected {wanted}, got {at!r}{hint}")
        return steps - 1 if at == "last" and steps else None
    # Not by __index__: arrays of other libraries have it too.
    if not isinstance(at, (int, np.integer)) or isinstance(at, bool):
        raise TypeError(f"at: expected {wanted}, got {type(at).__name__}")
    step = int(at)
    if not steps:
        raise ValueError(f"at: there are no steps (x has T = 0), got step {step}")
    if not -steps <= step < steps:
        raise ValueError(f"at: expected a step in [-{steps}, {steps}), got {step}")
    return step % steps


def _loss_steps(at: object, rows: RowMap, params: Params) -> tuple[int | None, Array | None]:
    """`at` as one of the caller's steps, or as weights of the layer's rows; (None, None) means
    every step with weight one."""
    if not (isinstance(at, np.ndarray) or hasattr(at, "__dlpack__")):
        return read_step(at, rows.steps, _AT), None
    array = checks.as_array("at", at)
    if array.dtype.kind in "iu":
        raise TypeError(
            f"at: expected a float array, weights of shape {rows.axes()}, not step numbers, "
            f"got dtype {array.dtype}"
        )
    weights = checks.as_float_array("at", array, ("w_hh", params.dtype))
    checks.expect_shape("at", weights, rows.shape, _x_shape(rows, params))
    weights = rows.gather(checks.readable(weights))
    if not np.isfinite(weights).all():
        wrong = tuple(map(int, np.argwhere(rows.scatter(~np.isfinite(weights)))[0]))
        raise ValueError(f"at: expected finite weights, got {array[wrong]} at {wrong}")
    # The kernels flush subnormal numbers: such a weight selects nothing, here as there.
    subnormal = (np.abs(weights) < np.finfo(weights.dtype).tiny) & (weights != 0)
    if subnormal.any():
        weights = np.where(subnormal, weights.dtype.type(0), weights)
    return None, weights


def _sum_for_mean(weights: Array) -> float:
    """What the mean divides by; it has a meaning where no weight is negative and not all are 0."""
    if not weights.size:
        return 0.0
    if weights.min() < 0:
        raise ValueError(
            f'at: expected weights of at least 0, as "mean" divides by their sum, got '
            f'{weights.min()}; with reduction="sum" they may be negative'
        )
    with np.errstate(over="ignore"):
        total = float(weights.sum(dtype=np.float64))
    if total == 0:
        raise ValueError("at: expected weights with a mean, got weights that sum to 0")
    if not np.isfinite(total):
        raise ValueError(f"at: expected weights with a finite sum, got {total}")
    return total


class TargetRows(NamedTuple):
    """What a target belongs to: every step, or `step` alone, the last of each sequence if None."""

    rows: RowMap
    step: int | None
    one_step: bool

    def expect(self, array: Array, more: tuple[int, ...], params: Params) -> None:
        """Raise ValueError unless `array` is of shape (B, *more), or of all steps."""
        one, every = (self.rows.batch, *more), (*self.rows.shape, *more)
        wanted, other = (one, every) if self.one_step else (every, one)
        if array.shape == wanted:
            return
        where, elsewhere = ("one", "every") if self.one_step else ("every", "one")
        at = "all" if self.one_step else "last"
        remedy = f'; a target of {elsewhere} step goes with at="{at}"'
        reason = f"{_x_shape(self.rows, params)} and the loss at {where} step"
        checks.expect_shape("target", array, wanted, reason, remedy if array.shape == other else "")

    def of_layer(self, array: Array) -> Array:
        """The target of the layer's rows; of one step as it is, if the layer has that step."""
        array = checks.readable(array)
        if not self.one_step:
            return self.rows.gather(array)
        return array if self.rows.whole else self._placed(array)

    @property
    def terms(self) -> int:
        """How many terms the loss has, of weight one."""
        rows = self.rows
        if not self.one_step:
            return math.prod(rows.inner)
        if rows.whole:
            return rows.batch if rows.steps else 0
        return len(rows.rows_at(self.step)[0])

    def selected(self, dtype: np.dtype[Any]) -> Array:
        """Weights that select the only step of each sequence among all rows of the layer."""
        return self._placed(np.ones(self.rows.batch, dtype))

    def _placed(self, of_sequence: Array) -> Array:
        """A value of each sequence, at its only step, among all rows of the layer; else zeros."""
        sequence, source = self.rows.rows_at(self.step)
        more = of_sequence.shape[1:]
        every = np.zeros((math.prod(self.rows.shape), *more), of_sequence.dtype)
        put_rows(of_sequence[sequence], source, every)
        return self.rows.gather(every.reshape(*self.rows.shape, *more))


class LossRows(NamedTuple):
    """What a loss is of, before its target is read.

    Attributes
    ----------
    loss, reduction : str
    step : int or None
        Of the caller's steps, the only one; None for all.
    weights : array of the layer's rows, or None
    where : TargetRows
    """

    loss: str
    reduction: str
    step: int | None
    weights: Array | None
    where: TargetRows

    @property
    def scale(self) -> float:
        """See `Objective`.

        Raises
        ------
        ValueError
            If a mean by these weights has no meaning.
        """
        if self.reduction == "sum":
            return 1.0
        terms = self.where.terms if self.weights is None else _sum_for_mean(self.weights)
        return 1 / terms if terms else 1.0


def read_loss_rows(
    params: Params, rows: RowMap, loss: object, at: object, reduction: object
) -> LossRows:
    """Check everything of a loss but its target.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    """
    named = checks.choice("loss", loss, LOSSES, _LOSS_ALIASES)
    reduced = checks.choice("reduction", reduction, REDUCTIONS, _REDUCTION_ALIASES)
    step, weights = _loss_steps(at, rows, params)
    last = isinstance(at, str) and at == "last"
    where = TargetRows(rows, None if last else step, last or step is not None)
    return LossRows(named, reduced, step, weights, where)


def _float_target(
    target: object, where: TargetRows, params: Params, weights: Array | None
) -> Array:
    array = checks.as_float_array("target", target, ("w_hh", params.dtype))
    outputs = params.output_size
    assert outputs is not None
    where.expect(array, (outputs,), params)
    return where.of_layer(array)


def _class_ids(target: object, where: TargetRows, params: Params, weights: Array | None) -> Array:
    array = checks.as_array("target", target)
    if array.dtype.kind not in "iu":
        raise TypeError(f"target: cross_entropy expects integer class ids, got dtype {array.dtype}")
    where.expect(array, (), params)
    outputs = params.output_size
    assert outputs is not None
    found = where.of_layer(array)
    expect_ids(found, outputs, weights)
    return found.astype(np.int64, copy=False)


def expect_ids(ids: Array, outputs: int, weights: Array | None) -> None:
    """Raise ValueError unless all are class ids whose weight is not 0."""
    if _are_ids(ids, outputs):
        return
    counting = ids if weights is None else ids[weights != 0]
    if not _are_ids(counting, outputs):
        raise ValueError(
            f"target: expected class ids in [0, {outputs}), got values from "
            f"{counting.min()} to {counting.max()}; at=weights with 0 leaves steps out"
        )


def _are_ids(array: Array, outputs: int) -> bool:
    return not array.size or bool(array.min() >= 0 and array.max() < outputs)


def _x_shape(rows: RowMap, params: Params) -> str:
    """x in the words of an error: T and B are named, since a batch-first x is the usual cause."""
    sizes = ", ".join(map(str, (*rows.shape, params.input_size)))
    return f"x of shape {rows.axes('I')} = ({sizes})"
