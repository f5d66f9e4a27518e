# The private compiled module (csrc/bindings/module.cpp). Arrays are dense, aligned and of one
# dtype, float32 or float64; those that a call fills come last. T steps, B rows, I inputs, H hidden
# units, G gates, O outputs. A wrong array is a TypeError or a ValueError.

from typing import Any, Final, TypeAlias

import numpy.typing as npt

_Array: TypeAlias = npt.NDArray[Any]

# One array for each part of the cell's state: (h,), or (h, c).
_Parts: TypeAlias = tuple[_Array, ...]

# By name: gates; states; values of a unit that forward leaves to backward beside the states; and
# whether the last gate takes its two sums apart.
CELLS: Final[dict[str, dict[str, int]]]

def compiler() -> str: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def select_isa(name: str) -> None: ...
def lanes() -> int: ...
def fma_peak(dtype: str, threads: int) -> float: ...
def forecast(
    cell: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    outputs: int,  # 0 for forward and backward without a readout
    dtype: str,
    threads: int,
    /,
) -> dict[str, Any]: ...
def tanh(x: _Array, flush: bool = True) -> _Array: ...
def exp(x: _Array, flush: bool = True) -> _Array: ...
def sigmoid(x: _Array, flush: bool = True) -> _Array: ...
def forward(
    cell: str,
    threads: int,
    flush: bool,  # subnormal numbers to zero
    x: _Array,  # (T, B, I)
    state: _Parts,  # (B, H)
    w_ih: _Array,  # (G H, I)
    w_hh: _Array,  # (G H, H)
    b_ih: _Array | None,  # (G H,)
    b_hh: _Array | None,  # (G H,)
    history: _Parts,  # (T, B, H)
    last: _Parts,  # (B, H)
    saved: _Array | None,  # (T, B, saved, H)
    /,
) -> None: ...
def backward(
    cell: str,
    threads: int,
    flush: bool,  # subnormal numbers to zero
    x: _Array,  # (T, B, I)
    state: _Parts,  # (B, H)
    w_ih: _Array,  # (G H, I)
    w_hh: _Array,  # (G H, H)
    b_ih: _Array | None,  # (G H,)
    b_hh: _Array | None,  # (G H,)
    history: _Parts,  # (T, B, H)
    saved: _Array | None,  # (T, B, saved, H); None: computed again
    dhistory: tuple[_Array | None, ...],  # (T, B, H)
    dlast: _Parts | None,  # (B, H)
    accumulate: bool,  # whether to add to what the arrays hold
    dx: _Array | None,  # (T, B, I); None here and below: not wanted
    dstate: _Parts,  # (B, H)
    dw_ih: _Array | None,  # (G H, I)
    dw_hh: _Array | None,  # (G H, H)
    db_ih: _Array | None,  # (G H,)
    db_hh: _Array | None,  # (G H,)
    deltas: _Array | None,  # (sums, T, B, H)
    dstates: _Parts | None,  # (T, B, H)
    /,
) -> None: ...
def lag_products(
    cell: str,
    threads: int,
    flush: bool,  # subnormal numbers to zero
    x: _Array,  # (T, B, I)
    state: _Parts,  # (B, H)
    w_ih: _Array,  # (G H, I)
    w_hh: _Array,  # (G H, H)
    y: _Array,  # (T, B, H)
    deltas: _Array,  # (sums, T, B, H)
    totals: tuple[_Array, _Array, _Array | None, _Array | None],  # like w_ih, w_hh, b_ih, b_hh
    sums: tuple[_Array, _Array, _Array | None, _Array | None],  # the same
    lags: _Array,  # (L,) int64, sorted
    /,
) -> _Array: ...  # (L, 4, 5) float64: csrc/gemm/scalar_products.h
def value_and_grad(
    cell: str,
    threads: int,
    flush: bool,  # subnormal numbers to zero
    x: _Array,  # (T, B, I)
    state: _Parts,  # (B, H)
    w_ih: _Array,  # (G H, I)
    w_hh: _Array,  # (G H, H)
    b_ih: _Array | None,  # (G H,)
    b_hh: _Array | None,  # (G H,)
    w_ho: _Array,  # (O, H)
    b_o: _Array | None,  # (O,)
    loss: str,
    target: _Array,  # values (T, B, O), int64 ids (T, B); without T for the loss at one step
    step: int | None,  # the only step of the loss
    weights: _Array | None,  # (T, B)
    scale: float,
    accumulate: bool,  # whether to add to what the arrays hold
    last: _Parts | None,  # (B, H), after the only step of the loss or after all; None: not wanted
    dx: _Array,  # (T, B, I)
    dstate: _Parts,  # (B, H)
    dw_ih: _Array,  # (G H, I)
    dw_hh: _Array,  # (G H, H)
    db_ih: _Array | None,  # (G H,)
    db_hh: _Array | None,  # (G H,)
    dw_ho: _Array,  # (O, H)
    db_o: _Array | None,  # (O,)
    /,
) -> float: ...
