"""Sequences of any kind as a dense batch, for the lags: where a row has no step, nothing counts.

A lag has terms of all steps at once, so the rows of a batch are as long as the longest one; beyond
a row's own length x is zero, and so is the weight of the loss, or dL/dS_t. Then no term begins
there, and terms reach back from a row's own steps alone. Pieces that resets cut are rows of their
own, so no lag reaches over a reset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks, memory
from ..cells import get_cell
from ..checks import Array
from ..losses import make_objective
from ..row_copies import put_rows
from ..row_map import RowMap
from .network import read_network

__all__ = ["KINDS", "as_dense"]

# The keywords that say what the sequences are, and what stands for none.
KINDS = {
    "lengths": None,
    "batch_sizes": None,
    "reset": None,
    "reverse": False,
    "batch_first": False,
}


def as_dense(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a `Question` about a dense batch that has the same terms."""
    how = {name: given[name] for name in KINDS}
    cell = get_cell(given["cell"])
    network = read_network(cell, given["params"], given["x"], given["state"], how)
    rows, params = network.rows, network.seen
    if not _longest(rows):
        raise ValueError("lengths: expected at least one step, got sequences that have none")
    _require_memory(rows, network.x)
    padded = _padding(rows)
    state = network.given_state([rows.gather_state(each) for each in network.initial()])
    found = {**given, **KINDS, "x": padded(rows.gather(network.x)), "state": state}
    if given["dy"] is not None:
        dy = checks.as_float_array("dy", given["dy"], ("w_hh", params.dtype))
        wanted = (*rows.shape, params.hidden_size)
        checks.expect_shape("dy", dy, wanted, "x and w_hh")
        return {**found, "dy": padded(rows.gather(checks.readable(dy)))}
    if given["target"] is None or given["loss"] is None or params.w_ho is None:
        return found  # an error, which tells of no sequences
    objective = make_objective(
        params, rows, given["target"], given["loss"], given["at"], given["reduction"]
    )
    if objective.step is not None:
        return {**found, "target": objective.target, "at": objective.step}
    weights = objective.weights
    if weights is None:
        weights = np.ones(rows.inner, params.dtype)
    if not weights.any():
        raise ValueError(f"at: expected a step that a sequence has, got {given['at']!r}")
    at = padded(weights)
    until = slice(1 + int(np.flatnonzero(at.any(axis=1))[-1]))  # no lag comes from a later step
    found["x"] = found["x"][until]
    return {**found, "target": padded(objective.target)[until], "at": at[until]}


def _longest(rows: RowMap) -> int:
    """The steps of the longest sequence."""
    return rows.inner[0] if rows.offsets is None else len(rows.offsets) - 1


def _require_memory(rows: RowMap, x: Array) -> None:
    """For x as long as the longest sequence in all rows; what lags take of it is asked later."""
    if rows.offsets is None:
        return
    steps, batch = _longest(rows), rows.inner_batch
    what = f"{batch} sequences that are padded to {steps} steps"
    memory.require_memory(2 * steps * batch * x.shape[-1] * x.itemsize, what)


def _padding(rows: RowMap) -> Callable[[Array], Array]:
    """What makes (T', B', ...) of packed rows (N', ...), with zeros where there are none."""
    if rows.offsets is None:
        return lambda array: array
    offsets, batch, steps = rows.offsets, rows.inner_batch, _longest(rows)
    step = np.repeat(np.arange(steps), np.diff(offsets))
    places = np.arange(len(step)) - offsets[step] + step * batch

    def padded(array: Array) -> Array:
        dense = np.zeros((steps * batch, *array.shape[1:]), array.dtype)
        put_rows(np.ascontiguousarray(array), places, dense)
        return dense.reshape(steps, batch, *array.shape[1:])

    return padded
