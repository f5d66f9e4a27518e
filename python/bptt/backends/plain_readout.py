"""The readout O = W_o S + b_2, its losses and their gradients, in plain NumPy."""

from __future__ import annotations

import numpy as np

from ..checks import Array
from ..losses import Objective
from ..params import Params

__all__ = ["LOSS_FUNCTIONS", "read_out", "readout_gradient"]


def _squared_error(o: Array, target: Array) -> tuple[Array, Array]:
    """l = 1/2 sum_o (Y - O)^2 for each row, and dl/dO."""
    difference = o - target
    return (difference * difference).sum(axis=-1) / 2, difference


def _cross_entropy(o: Array, ids: Array) -> tuple[Array, Array]:
    """l = -log softmax(O)[id] for each row, and dl/dO = softmax(O) - onehot(id)."""
    shifted = o - o.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=-1, keepdims=True)
    at_id = np.take_along_axis(shifted, ids[..., None], axis=-1)
    gradient = exponentials / total
    picked = np.take_along_axis(gradient, ids[..., None], axis=-1)
    np.put_along_axis(gradient, ids[..., None], picked - 1, axis=-1)
    return (np.log(total) - at_id)[..., 0], gradient


LOSS_FUNCTIONS = {"squared_error": _squared_error, "cross_entropy": _cross_entropy}


def read_out(params: Params, y: Array) -> Array:
    """``Backend.read_out``"""
    assert params.w_ho is not None
    product: Array = y @ params.w_ho.T
    return product if params.b_o is None else product + params.b_o


def readout_gradient(
    params: Params, y: Array, objective: Objective
) -> tuple[float, Array, dict[str, Array]]:
    """``Backend.readout_gradient``"""
    assert params.w_ho is not None
    y = y if objective.step is None else y[objective.step]
    terms, do = _loss_rows(objective, params, y)
    do = do * y.dtype.type(objective.scale)
    rows = tuple(range(do.ndim - 1))
    found = {"w_ho": np.tensordot(do, y, axes=(rows, rows))}
    if params.b_o is not None:
        found["b_o"] = do.sum(axis=rows)
    loss: float = terms.sum(dtype=np.promote_types(y.dtype, np.float64)) * objective.scale
    return loss, do @ params.w_ho, found


def _loss_rows(objective: Objective, params: Params, y: Array) -> tuple[Array, Array]:
    """The weighted loss of each row, and its gradient in O. A weight of 0 selects: of such a row
    neither O nor the target is read."""
    loss, target, weights = LOSS_FUNCTIONS[objective.loss], objective.target, objective.weights
    if weights is None:
        return loss(read_out(params, y), target)
    counts = weights != 0
    read = _where(counts, y)
    terms, do = loss(read_out(params, read), _where(counts, target))
    return _where(counts, terms * weights), _where(counts, do * weights[..., None])


def _where(counts: Array, rows: Array) -> Array:
    """`rows`, but zeros for those that do not count."""
    of_rows = counts.reshape(counts.shape + (1,) * (rows.ndim - counts.ndim))
    return np.where(of_rows, rows, rows.dtype.type(0))
