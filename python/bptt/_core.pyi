# The private compiled module (csrc/bindings/module.cpp). Arrays are dense, aligned and of one
# dtype, float32 or float64; those that a call fills come last. T steps, B rows, I inputs, H hidden
# units, O outputs. A wrong array is a TypeError or a ValueError.

from typing import Any, Final, TypeAlias

import numpy.typing as npt

_Array: TypeAlias = npt.NDArray[Any]

CELLS: Final[list[str]]

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
def tanh(x: _Array, /) -> _Array: ...
def exp(x: _Array, /) -> _Array: ...
def forward(
    cell: str,
    threads: int,
    x: _Array,  # (T, B, I)
    state: _Array,  # (B, H)
    w_ih: _Array,  # (H, I)
    w_hh: _Array,  # (H, H)
    b_ih: _Array | None,  # (H,)
    b_hh: _Array | None,  # (H,)
    y: _Array,  # (T, B, H)
    last: _Array,  # (B, H)
    /,
) -> None: ...
def backward(
    cell: str,
    threads: int,
    x: _Array,  # (T, B, I)
    state: _Array,  # (B, H)
    w_ih: _Array,  # (H, I)
    w_hh: _Array,  # (H, H)
    y: _Array,  # (T, B, H)
    dy: _Array | None,  # (T, B, H)
    dlast: _Array | None,  # (B, H)
    accumulate: bool,  # whether to add to what the arrays hold
    dx: _Array,  # (T, B, I)
    dstate: _Array,  # (B, H)
    dw_ih: _Array,  # (H, I)
    dw_hh: _Array,  # (H, H)
    db_ih: _Array | None,  # (H,)
    db_hh: _Array | None,  # (H,)
    /,
) -> None: ...
def value_and_grad(
    cell: str,
    threads: int,
    x: _Array,  # (T, B, I)
    state: _Array,  # (B, H)
    w_ih: _Array,  # (H, I)
    w_hh: _Array,  # (H, H)
    b_ih: _Array | None,  # (H,)
    b_hh: _Array | None,  # (H,)
    w_ho: _Array,  # (O, H)
    b_o: _Array | None,  # (O,)
    loss: str,
    target: _Array,  # values (T, B, O), int64 ids (T, B); without T for the loss at one step
    step: int | None,  # the only step of the loss
    weights: _Array | None,  # (T, B)
    scale: float,
    accumulate: bool,  # whether to add to what the arrays hold
    dx: _Array,  # (T, B, I)
    dstate: _Array,  # (B, H)
    dw_ih: _Array,  # (H, I)
    dw_hh: _Array,  # (H, H)
    db_ih: _Array | None,  # (H,)
    db_hh: _Array | None,  # (H,)
    dw_ho: _Array,  # (O, H)
    db_o: _Array | None,  # (O,)
    /,
) -> float: ...
