"""What a gradient is taken of: the loss, the steps it is read at, and how its terms are reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Union

import numpy as np

from . import checks
from .checks import Array
from .params import Params

__all__ = ["LOSSES", "REDUCTIONS", "At", "Objective", "make_objective", "read_step"]

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


@dataclass(frozen=True, eq=False)
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
    params: Params, steps: int, batch: int, target: object, loss: object, at: object, reduction: str
) -> Objective:
    """Check the description of a loss over `steps` x `batch` rows.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    """
    loss = checks.choice("loss", loss, LOSSES, _LOSS_ALIASES)
    reduction = checks.choice("reduction", reduction, REDUCTIONS, _REDUCTION_ALIASES)
    step, weights = _loss_steps(at, steps, batch, params)
    one_step = step is not None or (isinstance(at, str) and at == "last")
    read_target = _class_ids if loss == "cross_entropy" else _float_target
    checked = read_target(target, _TargetRows(steps, batch, one_step), params, weights)
    if one_step and step is None:
        checked = checked[None][:0]  # the last step of none: its target is not read
    rows = batch if step is not None else steps * batch
    scale = 1.0
    if reduction == "mean" and rows:
        scale = 1 / (rows if weights is None else _sum_for_mean(weights))
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


def _loss_steps(
    at: object, steps: int, batch: int, params: Params
) -> tuple[int | None, Array | None]:
    """`at` as a single step or as weights; (None, None) means every step with weight one."""
    if not (isinstance(at, np.ndarray) or hasattr(at, "__dlpack__")):
        return read_step(at, steps, _AT), None
    array = checks.as_array("at", at)
    if array.dtype.kind in "iu":
        raise TypeError(
            f"at: expected a float array, weights of shape (T, B), not step numbers, "
            f"got dtype {array.dtype}"
        )
    weights = checks.as_float_array("at", array, ("w_hh", params.dtype))
    checks.expect_shape("at", weights, (steps, batch), _x_shape(steps, batch, params))
    if not np.isfinite(weights).all():
        wrong = tuple(map(int, np.argwhere(~np.isfinite(weights))[0]))
        raise ValueError(f"at: expected finite weights, got {weights[wrong]} at {wrong}")
    # The kernels flush subnormal numbers: such a weight selects nothing, here as there.
    subnormal = (np.abs(weights) < np.finfo(weights.dtype).tiny) & (weights != 0)
    if subnormal.any():
        weights = np.where(subnormal, weights.dtype.type(0), weights)
    return None, checks.readable(weights)


def _sum_for_mean(weights: Array) -> float:
    """What the mean divides by; it has a meaning where no weight is negative and not all are 0."""
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


class _TargetRows(NamedTuple):
    """What the rows of a target belong to: every step, or the only one of a loss."""

    steps: int
    batch: int
    one_step: bool

    def expect(self, array: Array, more: tuple[int, ...], params: Params) -> None:
        """Raise ValueError unless `array` is of shape ([T,] B, *more)."""
        one, every = (self.batch, *more), (self.steps, self.batch, *more)
        wanted, other = (one, every) if self.one_step else (every, one)
        if array.shape == wanted:
            return
        where, elsewhere = ("one", "every") if self.one_step else ("every", "one")
        at = "all" if self.one_step else "last"
        remedy = f'; a target of {elsewhere} step goes with at="{at}"'
        reason = f"{_x_shape(self.steps, self.batch, params)} and the loss at {where} step"
        checks.expect_shape("target", array, wanted, reason, remedy if array.shape == other else "")


def _float_target(
    target: object, rows: _TargetRows, params: Params, weights: Array | None
) -> Array:
    array = checks.as_float_array("target", target, ("w_hh", params.dtype))
    outputs = params.output_size
    assert outputs is not None
    rows.expect(array, (outputs,), params)
    return checks.readable(array)


def _class_ids(target: object, rows: _TargetRows, params: Params, weights: Array | None) -> Array:
    array = checks.as_array("target", target)
    if array.dtype.kind not in "iu":
        raise TypeError(f"target: cross_entropy expects integer class ids, got dtype {array.dtype}")
    rows.expect(array, (), params)
    outputs = params.output_size
    assert outputs is not None
    if not _are_ids(array, outputs):
        counting = array if weights is None else array[weights != 0]
        if not _are_ids(counting, outputs):
            raise ValueError(
                f"target: expected class ids in [0, {outputs}), got values from "
                f"{counting.min()} to {counting.max()}; at=weights with 0 leaves steps out"
            )
    return checks.readable(array.astype(np.int64, copy=False))


def _are_ids(array: Array, outputs: int) -> bool:
    return not array.size or bool(array.min() >= 0 and array.max() < outputs)


def _x_shape(steps: int, batch: int, params: Params) -> str:
    """x in the words of an error: T and B are named, since a batch-first x is the usual cause."""
    return f"x of shape (T, B, I) = ({steps}, {batch}, {params.input_size})"
