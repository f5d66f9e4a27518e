"""The readout of a layer on a GPU and its loss, by the library's own operations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..array_libraries import Library, Place, place_of, read_float_array
from ..checks import Array
from ..losses import TargetRows, expect_ids, read_loss_rows
from ..params import Params
from .rows import DeviceRows

__all__ = ["Objective", "read_objective", "read_out"]


class Objective(NamedTuple):
    """A checked loss of some rows of the layer.

    Attributes
    ----------
    loss : str
    target : (M, O) floats, or (M,) int64 class ids
    index : (M,) integers, or None
        The rows that are read; None for all.
    weights : (M,), or None
        A weight of 0 selects.
    scale : float
    """

    loss: str
    target: Any
    index: Any
    weights: Any
    scale: float


def read_objective(
    params: Params,
    place: Place,
    rows: DeviceRows,
    target: object,
    loss: object,
    at: object,
    reduction: object,
) -> Objective:
    """Check the description of a loss; `params` have the sizes of x and of the readout.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    """
    if place_of(at) is not None or hasattr(at, "__dlpack__"):
        at = _on_host(place, read_float_array("at", at, place, "x"))  # where weights are checked
    found = read_loss_rows(params, rows.map, loss, at, reduction)
    where, sequence, index = found.where, None, None
    if where.one_step:
        sequence, source = rows.map.rows_at(where.step)
        index = rows.upload(rows.map.place(source))
    weights = None if found.weights is None else found.weights.ravel()
    if found.loss == "cross_entropy":
        ids = _class_ids(target, where, params, place)
        checked = rows.upload(_counting(ids, where, params, sequence, weights))
    else:
        floats = _float_target(target, where, params, place)
        if sequence is None:
            checked = rows.gather(floats)
        else:
            checked = place.library.take(floats, rows.upload(sequence))
    uploaded = None if weights is None else rows.upload_floats(weights)
    return Objective(found.loss, checked, index, uploaded, found.scale)


def _float_target(target: object, where: TargetRows, params: Params, place: Place) -> Any:
    array = read_float_array("target", target, place, "x", ("w_hh", params.dtype))
    assert params.output_size is not None
    where.expect(array, (params.output_size,), params)
    return place.library.readable(array)


def _class_ids(target: object, where: TargetRows, params: Params, place: Place) -> Array:
    """Class ids are checked on the host: one that is none would be read as an address."""
    there, wanted = place_of(target), place.of_caller
    if there != wanted:
        raise ValueError(
            f"target: expected an array on {wanted or 'the host'} as x is, got one on "
            f"{there or 'the host'}"
        )
    ids = _on_host(place, target if there else checks.as_array("target", target))
    if ids.dtype.kind not in "iu":
        raise TypeError(f"target: cross_entropy expects integer class ids, got dtype {ids.dtype}")
    where.expect(ids, (), params)
    return np.ascontiguousarray(ids)


def _counting(
    ids: Array, where: TargetRows, params: Params, sequence: Array | None, weights: Array | None
) -> Array:
    """Those of the rows that are read; 0 where they have no weight."""
    assert params.output_size is not None
    found = where.rows.gather(ids) if sequence is None else ids[sequence]
    found = found.ravel()
    expect_ids(found, params.output_size, weights)
    return (found if weights is None else np.where(weights != 0, found, 0)).astype(np.int64)


def _on_host(place: Place, array: Any) -> Array:
    """The values of a caller's array."""
    if place.of_caller is None:
        return np.asarray(array)
    return place.library.fetch(place.library.readable(array))


def read_out(
    library: Library, w_ho: Any, b_o: Any, y: Any, objective: Objective
) -> tuple[float, Any, dict[str, Any]]:
    """The loss, dL/dy of each row (N, W), and the gradients of the readout, w_ho (O, W)."""
    read = y if objective.index is None else library.take(y, objective.index)
    target, counts = objective.target, None
    if objective.weights is not None:
        counts = (objective.weights != 0)[:, None]
        read = library.where(counts, read, library.zeros((), y))
    o = read @ w_ho.T
    if b_o is not None:
        o = o + b_o
    if objective.loss == "cross_entropy":
        terms, do = _cross_entropy(library, o, target)
    else:
        terms, do = _squared_error(library, o, target)
    if counts is not None:
        nothing = library.zeros((), y)
        weights = objective.weights
        terms = library.where(counts[:, 0], terms * weights, nothing)
        do = library.where(counts, do * weights[:, None], nothing)
    do = do * objective.scale
    found = {"w_ho": do.T @ read}
    if b_o is not None:
        found["b_o"] = library.sum(do, 0)
    dy = do @ w_ho
    if objective.index is not None:
        of_rows, dy = dy, library.zeros(tuple(y.shape), y)
        library.put(dy, objective.index, of_rows)
    value = float(library.fetch(terms).sum(dtype=np.float64) * objective.scale)
    return value, dy, found


def _squared_error(library: Library, o: Any, target: Any) -> tuple[Any, Any]:
    difference = o - target
    return library.sum(difference * difference, 1) / 2, difference


def _cross_entropy(library: Library, o: Any, ids: Any) -> tuple[Any, Any]:
    count, outputs = o.shape
    if not count:
        return library.zeros((0,), o), o
    shifted = o - library.largest(o)
    exponentials = library.exp(shifted)
    total = library.sum(exponentials, 1)
    starts = library.upload(np.arange(count, dtype=np.int64) * outputs, o)
    at_id = starts + ids  # among all values
    values = (exponentials / total[:, None]).reshape(count * outputs)
    library.put(values, at_id, library.take(values, at_id) - 1)
    terms = library.log(total) - library.take(shifted.reshape(count * outputs), at_id)
    return terms, values.reshape(count, outputs)
