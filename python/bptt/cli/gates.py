"""The gate on a gated cell's direct route from one state to the next.

Of an LSTM it is f_t, of a GRU z_t: where W_s does not take part,

    c_t = f_t * c_{t-1} + i_t * g_t         dc_t/dc_{t-1} = f_t
    S_t = (1 - z_t) * n_t + z_t * S_{t-1}   dS_t/dS_{t-1} = z_t
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import bptt
from bptt.checks import Array

__all__ = ["DirectRoute", "direct_route", "memory_gate"]


@dataclass(frozen=True)
class DirectRoute:
    """What the gate lets through, mean over sequences and units.

    Attributes
    ----------
    gate : float
        Mean of the gate, over the steps as well.
    product : float
        Mean of its product over steps 2..T: what reaches S_1 of a gradient at S_T this way.
    """

    gate: float
    product: float


def direct_route(
    cell: str, params: bptt.Params, x: Array, *, backend: str = "auto"
) -> DirectRoute | None:
    """Measured over x (T, B, I); None for a cell without gates."""
    if not bptt.CELLS[cell].keeps:
        return None
    gate = memory_gate(cell, params.astype("float64"), x.astype("float64"), backend=backend)
    return DirectRoute(float(gate.mean()), float(gate[1:].prod(axis=0).mean()))


def memory_gate(cell: str, params: bptt.Params, x: Array, *, backend: str = "auto") -> Array:
    """(T, B, H), the gate that keeps the memory of a gated cell at every step."""
    kind, hidden = bptt.CELLS[cell], params.hidden_size
    assert kind.keeps is not None
    assert params.b_ih is not None
    assert params.b_hh is not None
    first = kind.gate_names.index(kind.keeps) * hidden
    rows = slice(first, first + hidden)
    y = bptt.forward(cell, params, x, backend=backend).y
    before = np.concatenate((np.zeros_like(y[:1]), y[:-1]))
    a = x @ params.w_ih[rows].T + before @ params.w_hh[rows].T
    return np.asarray(1 / (1 + np.exp(-(a + params.b_ih[rows] + params.b_hh[rows]))))
