"""Cells that `bptt.cell` defines. `mgu` joins the registry for all tests (conftest.py)."""

from __future__ import annotations

from typing import Any

import bptt
from bptt.pointwise import sigmoid, slope_of_sigmoid, slope_of_tanh, tanh


@bptt.cell(gates=("f", "n"), apart=("n",), saved=("f", "n", "h_n"), keeps="f")
def mgu(sums: Any, h: Any) -> Any:
    """f = s(a_f), n = tanh(i_n + f * h_n); S_t = (1 - f) * n + f * S_{t-1}"""
    a_f, i_n, h_n = sums
    f = sigmoid(a_f)
    n = tanh(i_n + f * h_n)
    return (1 - f) * n + f * h, (f, n, h_n)


@mgu.derivative
def mgu(saved: Any, before: Any, h: Any, dh: Any) -> Any:
    f, n, h_n = saved
    da_n = dh * (1 - f) * slope_of_tanh(n)
    da_f = (dh * (before - n) + da_n * h_n) * slope_of_sigmoid(f)
    return (da_f, da_n, da_n * f), dh * f
