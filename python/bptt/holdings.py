"""What each public call will hold, in bytes, beside its arguments: sums over sizes alone.

A public call adds up what it and its backend hold, and asks once, by `memory.require_memory`,
before it makes anything. A row is one sequence at one step, (t, b).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .cells import Cell
from .memory import ALWAYS_GRANTED
from .params import Params
from .row_map import RowMap
from .threads import get_num_threads

__all__ = [
    "Beside",
    "backward_nbytes",
    "block_nbytes",
    "drawn_nbytes",
    "forward_nbytes",
    "grads_nbytes",
    "is_small",
    "jvp_nbytes",
    "lags_nbytes",
    "linearized_nbytes",
    "moved_nbytes",
    "moved_rows_nbytes",
    "norms_nbytes",
    "prediction_nbytes",
    "signal_nbytes",
    "states_nbytes",
    "stepper_nbytes",
    "tangents_nbytes",
    "terms_nbytes",
    "value_and_grad_nbytes",
]

# Of the blocks of a pass back, beside what is told by sizes.
_OF_BLOCKS = 16 << 20
# Values, of 8 bytes at most, that are granted together with them.
_SMALL = (ALWAYS_GRANTED - _OF_BLOCKS) // 8


class Beside(NamedTuple):
    """What a backend holds of all rows at once, beside the states and what the cell saves.

    Attributes
    ----------
    forward, backward : int
        Values for each unit of each row, in a pass forward, and in one back.
    fused : int
        The same of both passes with a loss, in ``value_and_grad``.
    outputs : int
        Values for each output of each row whose loss counts.
    copies : int
        Values for each unit of each row, in a pass back whose steps are rows of one, or are some of
        many.
    fresh : bool
        Whether gradients are new arrays first, also where there are arrays to write to.
    """

    forward: int = 0
    backward: int = 0
    fused: int = 0
    outputs: int = 0
    copies: int = 0
    fresh: bool = False


def is_small(cell: Cell, params: Params, rows: RowMap) -> bool:
    """Whether what a pass holds is granted for certain: to add it up takes as long as a step.

    With W = I + O + H times the values of a unit's step, a pass forward or back, with a loss or for
    a prediction, holds at most 16 W values for each row and each row of a block, and W (W + 1)
    twice for the parameters' gradients of each sequence, and 8 times for copies of the weights.
    """
    steps, batch = rows.extent
    width: int = params.input_size + cell.values * params.hidden_size + (params.output_size or 0)
    at_once = (steps + 2) * batch + 1024 * get_num_threads()
    return width * (16 * at_once + (width + 1) * (2 * batch + 8)) < _SMALL


def states_nbytes(cell: Cell, params: Params, steps: int, batch: int, save: str = "gates") -> int:
    """All states of a pass, with the first and the last apart, and what the cell saves beside."""
    width = len(cell.states) + (cell.saved if save == "gates" else 0)
    return width * _units_nbytes(params, steps + 2, batch)


def block_nbytes(params: Params, batch: int) -> int:
    """Blocks of time in the backward pass, at most about: inputs, states, gradients of states and
    pre-activations, and outputs, most of them for two blocks, and sums of slices of the batch.
    `plan` tells exactly what the native backend takes."""
    gates = len(params.w_hh) // params.hidden_size
    width = 2 * params.input_size + (4 + 4 * gates) * params.hidden_size
    width += 3 * (params.output_size or 0)
    rows = max(batch, 1024 * get_num_threads())
    return rows * width * params.dtype.itemsize + _OF_BLOCKS


def forward_nbytes(
    cell: Cell, params: Params, steps: int, batch: int, save: str, beside: Beside
) -> int:
    """A tape, and a packed copy of the weights."""
    states = states_nbytes(cell, params, steps, batch, save)
    return states + params.nbytes + beside.forward * _units_nbytes(params, steps, batch)


def backward_nbytes(
    cell: Cell,
    params: Params,
    steps: int,
    batch: int,
    save: str,
    beside: Beside,
    *,
    out: bool,
    wanted: frozenset[str],
    per_row: str | None = None,
    histories: int = 0,
) -> int:
    """``Tape.backward``: packed weights, blocks, new gradients unless there are some in `out`.

    `histories` are arrays like all states that a truncation takes.
    """
    weights = params.nbytes
    packed = weights * (2 if save == "minimal" else 1)  # once more for the gates
    needed = packed + block_nbytes(params, batch)
    needed += _gradients_nbytes(params, steps, batch, wanted, per_row, fresh=beside.fresh, out=out)
    needed += _histories_nbytes(cell, params, steps, batch, histories, beside)
    return needed + beside.backward * _units_nbytes(params, steps, batch)


def value_and_grad_nbytes(
    cell: Cell,
    params: Params,
    steps: int,
    batch: int,
    beside: Beside,
    *,
    kept: int,
    read: int,
    out: bool,
    wanted: frozenset[str],
    per_row: str | None = None,
    histories: int = 0,
) -> int:
    """The states of so many steps as are `kept` at a time, outputs of those that are `read`.

    The weights are packed for either pass. `histories` are arrays like all states that a
    truncation takes.
    """
    weights = params.nbytes
    needed = states_nbytes(cell, params, kept, batch) + 2 * weights
    needed += block_nbytes(params, batch)
    needed += _gradients_nbytes(params, steps, batch, wanted, per_row, fresh=beside.fresh, out=out)
    needed += _histories_nbytes(cell, params, steps, batch, histories, beside)
    needed += beside.fused * _units_nbytes(params, kept, batch)
    return needed + beside.outputs * _outputs_nbytes(params, read, batch)


def moved_nbytes(params: Params, rows: RowMap, *, inputs: int = 0, units: int = 0) -> int:
    """So many copies of a value for each feature, and for each unit, in the order of a layer's rows
    or back in the caller's; and the index. Nothing where rows are the same."""
    if rows.same_rows:
        return 0
    width = inputs * params.input_size + units * params.hidden_size
    count = max(math.prod(rows.inner), math.prod(rows.shape))
    return moved_rows_nbytes(count, width * params.dtype.itemsize)


def moved_rows_nbytes(count: int, row_nbytes: int) -> int:
    """Copies of so many rows, and the index."""
    return count * (row_nbytes + 8)


def prediction_nbytes(
    cell: Cell, params: Params, read: int, batch: int, at_once: int, beside: Beside
) -> int:
    """Outputs of so many steps as are `read`; the states of a block `at_once`, twice, and what its
    readout takes."""
    states = states_nbytes(cell, params, at_once, batch, "minimal")
    states += beside.forward * _units_nbytes(params, at_once, batch)
    readout = (2 + beside.outputs) * _outputs_nbytes(params, min(read, at_once), batch)
    return _outputs_nbytes(params, read, batch) + 2 * states + readout


def stepper_nbytes(cell: Cell, params: Params, batch: int) -> int:
    """A `Stepper`: a copy of the weights, at most about as large again by whole vectors; its state,
    twice, and the sums of a step."""
    width = 2 * len(cell.states) + cell.sums
    return 2 * params.nbytes + width * _units_nbytes(params, 1, batch)


def linearized_nbytes(cell: Cell, params: Params, steps: int, batch: int) -> int:
    """A `Linearized`, and what is held while it is made."""
    parts = len(cell.states)
    # The coefficients, what the sweeps leave, states before and after; tangents of sums and of y.
    width = parts * (cell.sums + parts) + 2 * cell.sums + 6 * parts + 2
    return width * _units_nbytes(params, steps, batch)


def jvp_nbytes(
    cell: Cell, params: Params, steps: int, batch: int, save: str, beside: Beside
) -> int:
    """``Tape.jvp``: the derivatives of all steps, and a pass once more if the gates are missing."""
    needed = linearized_nbytes(cell, params, steps, batch)
    if save == "minimal":
        needed += 2 * states_nbytes(cell, params, steps, batch)
    return needed + _passes_nbytes(params, steps, batch, beside)


def lags_nbytes(
    cell: Cell,
    params: Params,
    steps: int,
    batch: int,
    beside: Beside,
    *,
    lags: int,
    one_step: bool,
) -> int:
    """The recorded pass, delta, and what is kept of each lag; the loss is at one step or more."""
    states = states_nbytes(cell, params, steps, batch, "minimal")
    needed = states_nbytes(cell, params, steps, batch) + states  # the states before, too
    needed += _passes_nbytes(params, steps, batch, beside)
    needed += beside.outputs * _outputs_nbytes(params, 1 if one_step else steps, batch)
    if not one_step:
        return needed + 5 * states + lags * steps * 8
    deltas = cell.sums * states // len(cell.states)
    sums = lags * 20 * 8 * cell.gates * (params.hidden_size // 16 + 1)
    return needed + states + deltas + sums


def terms_nbytes(cell: Cell, params: Params, batch: int, *, lags: int, deltas: int) -> int:
    """The terms of so many lags: of the parameters, and delta at so many steps of all of them."""
    return lags * _layer_nbytes(params) + len(cell.states) * _units_nbytes(params, deltas, batch)


def signal_nbytes(lags: int, steps: int) -> int:
    """The norm of delta of each lag at each step."""
    return lags * steps * 8


def norms_nbytes(
    cell: Cell, params: Params, steps: int, batch: int, distances: int, beside: Beside
) -> int:
    """`jacobian_norms`: vectors of each distance and, in float64, the derivatives of all steps."""
    vectors = 6 * distances * batch * len(cell.states) * params.hidden_size * 8
    derivatives = 3 * linearized_nbytes(cell, params, steps, batch)
    return vectors + derivatives + _passes_nbytes(params, steps, batch, beside)


def tangents_nbytes(cell: Cell, params: Params, batch: int, count: int) -> int:
    """`lyapunov_exponents`: so many tangents of each sequence, in float64."""
    width = 8 * len(cell.states) + 3 * cell.gates
    return width * params.hidden_size * count * batch * 8


def drawn_nbytes(gates: int, inputs: int, hidden: int, outputs: int) -> int:
    """`init_params`: in float64, and once more in the dtype that is wanted."""
    return 16 * (gates * hidden * (inputs + hidden + 2) + outputs * (hidden + 1))


def grads_nbytes(params: Params, steps: int, batch: int, parts: int) -> int:
    """`Grads`: of x, of the parameters, and of so many parts of the state."""
    of_x = _inputs_nbytes(params, steps, batch)
    return of_x + params.nbytes + parts * _units_nbytes(params, 1, batch)


def _gradients_nbytes(
    params: Params,
    steps: int,
    batch: int,
    wanted: frozenset[str],
    per_row: str | None,
    *,
    fresh: bool,
    out: bool,
) -> int:
    """New gradients, unless they go to `out` at once; sums of rows whose norms are wanted."""
    weights = params.nbytes_of(wanted)
    needed = 0
    if per_row == "norm":  # of rows that are on their way together: see csrc/engine/plan.cpp
        at_once = max(12, (16 << 20) // max(1, params.nbytes))
        needed = min(batch, at_once * get_num_threads()) * weights
    if fresh or not out:
        of_x = _inputs_nbytes(params, steps, batch) if fresh or "x" in wanted else 0
        needed += of_x + {None: 1, "norm": 0, "gradient": batch}[per_row] * weights
    return needed


def _passes_nbytes(params: Params, steps: int, batch: int, beside: Beside) -> int:
    """What a backend holds beside of a pass and one back, with x's gradient if that is fresh."""
    width = beside.forward + beside.backward + beside.copies
    needed = width * _units_nbytes(params, steps, batch)
    return needed + (_inputs_nbytes(params, steps, batch) if beside.fresh else 0)


def _histories_nbytes(
    cell: Cell, params: Params, steps: int, batch: int, histories: int, beside: Beside
) -> int:
    """So many arrays like all states, and the copies that a backend makes where there are some."""
    if not histories:
        return 0
    copies = (beside.backward + beside.copies) * _units_nbytes(params, steps, batch)
    return histories * states_nbytes(cell, params, steps, batch, "minimal") + copies


def _inputs_nbytes(params: Params, steps: int, batch: int) -> int:
    """A value for each feature of each row."""
    return steps * batch * params.input_size * params.dtype.itemsize


def _units_nbytes(params: Params, steps: int, batch: int) -> int:
    """A value for each unit of each row."""
    return steps * batch * params.hidden_size * params.dtype.itemsize


def _outputs_nbytes(params: Params, steps: int, batch: int) -> int:
    """A value for each output of each row."""
    return steps * batch * (params.output_size or 0) * params.dtype.itemsize


def _layer_nbytes(params: Params) -> int:
    """The parameters without the readout."""
    present = (params.w_ih, params.w_hh, params.b_ih, params.b_hh)
    return sum(array.nbytes for array in present if array is not None)
