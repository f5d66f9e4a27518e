# The private compiled module (csrc/bindings/module.cpp). Arrays are dense, aligned and of one
# dtype, float32 or float64; those that a call fills come last. T steps, B rows, I inputs, H hidden
# units, G gates, O outputs. A wrong array is a TypeError or a ValueError.

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy.typing as npt

from .backends.protocol import Incoming, Layer, Record, Request
from .grads import Grads
from .losses import Objective
from .params import Params

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
def fma_peak(dtype: str, threads: int, loads: bool = False) -> float: ...
def product_seconds(
    dtype: str, rows: int, k: int, columns: int, far: bool, calls: int
) -> float: ...
def outer_seconds(dtype: str, rows: int, units: int, columns: int, calls: int) -> float: ...
def forecast(
    cell: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    outputs: int,  # 0 for forward and backward without a readout
    dtype: str,
    threads: int,
    segment_steps: int = 0,
    group_segments: int = 0,
    offsets: _Array | None = None,
    part_steps: int = 0,
    rows_apart: bool = False,
    moved: bool = False,
) -> dict[str, Any]: ...
def predict(
    kind: str,  # of CPU, as csrc/engine/machine.cpp names it
    vector_bytes: int,  # of the instruction set: 64 of AVX-512, 32 of AVX2
    cell: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    item_size: int,
    threads: int,
) -> float: ...

# Dense memory that `owner` keeps, float64 if it is `wide`, else float32.
def array_at(address: int, shape: tuple[int, ...], wide: bool, owner: object, /) -> _Array: ...
def take_rows(threads: int, flush: bool, rows: _Array, index: _Array, out: _Array) -> None: ...
def put_rows(threads: int, flush: bool, rows: _Array, index: _Array, out: _Array) -> None: ...
def tanh(x: _Array, flush: bool = True) -> _Array: ...
def exp(x: _Array, flush: bool = True) -> _Array: ...
def sigmoid(x: _Array, flush: bool = True) -> _Array: ...

# The layer, what was recorded and what is asked for are read by their attributes.
def forward(
    threads: int,
    flush: bool,  # subnormal numbers to zero
    layer: Layer,
    record: Record,  # written
    /,
) -> None: ...

# A layer that is fed step by step. A call during another one is a RuntimeError.
class Stepper:
    def __init__(
        self,
        flush: bool,
        layer: Layer,  # x of no steps; its weights and its state are copied
        /,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    # y (B, H) of x (B, I), or (T, B, H) of (T, B, I), in `out` or a new array. None, and nothing
    # has happened, unless both are plain arrays of the layer's dtype and shape, apart in memory.
    def run(self, threads: int, x: object, out: object, /) -> _Array | None: ...
    def state(self) -> _Parts: ...  # copies, (B, H)
    def assign(
        self,
        rows: _Array,  # (R,) int64
        state: _Parts | None,  # (R, H); None: zero
        /,
    ) -> None: ...

# Tensors of another library, read by what DLPack's `__dlpack_c_exchange_api__` holds.
class Tensors:
    def __init__(
        self,
        exchange: object,  # that capsule; a ValueError if it is of another version
        types: Sequence[type],  # objects of which are read
        /,
    ) -> None: ...
    # Each part of the state after every step and after the last, and the gates if they are wanted.
    # None, and nothing has happened, unless all tensors are dense ones on the host, of one dtype,
    # not negated, and of the shapes that they have to have.
    def forward(
        self,
        threads: int,
        flush: bool,
        cell: str,
        flat: tuple[Any, ...],  # x; each part of the state; w_ih, w_hh, b_ih, b_hh; or None
        offsets: _Array | None,
        layers: bool,  # whether states are (1, B, H), not (B, H)
        gates: bool,
        /,
    ) -> tuple[Any, ...] | None: ...
    # The gradients of `flat` that are needed, and None for the others.
    def backward(
        self,
        threads: int,
        flush: bool,
        cell: str,
        flat: tuple[Any, ...],
        offsets: _Array | None,
        layers: bool,
        kept: tuple[Any, ...],  # what `forward` returns, less the last state
        incoming: tuple[Any, ...],  # at y and at each part of the last state; or None
        needed: tuple[bool, ...],
        apart: bool,  # of weights (B, ...), of each row of the batch
        /,
    ) -> tuple[Any, ...] | None: ...

def set_default_threads(threads: int) -> None: ...  # of calls that are made without Python
def set_default_flush_subnormals(flush: bool) -> None: ...

xla_ffi: str | None  # the version of the interface that handlers are built for

def xla_handlers() -> dict[str, object]: ...  # a capsule for each target
def backward(
    threads: int,
    flush: bool,
    layer: Layer,
    record: Record,
    incoming: Incoming,
    request: Request,
    grads: Grads,  # written, as the request says; w_ho and b_o are not
    /,
) -> None: ...
def value_and_grad(
    threads: int,
    flush: bool,
    layer: Layer,
    objective: Objective,
    request: Request,  # of all gradients
    grads: Grads,  # written, as the request says
    last: _Parts | None,  # (B, H), after the only step of the loss or after all; None: not wanted
    /,
) -> float: ...
def read_out(
    threads: int,
    flush: bool,
    params: Params,
    y: _Array,  # (N, H)
    o: _Array,  # (N, O), written
    /,
) -> None: ...
def readout_gradient(
    threads: int,
    flush: bool,
    layer: Layer,
    y: _Array,  # (T, B, H)
    objective: Objective,
    dy: _Array,  # written, as the others: (T, B, H), or (B, H) of a loss at one step
    w_ho: _Array,
    b_o: _Array | None,
    /,
) -> float: ...
def lag_products(
    threads: int,
    flush: bool,
    layer: Layer,
    y: _Array,  # (T, B, H)
    deltas: _Array,  # (sums, T, B, H)
    totals: tuple[_Array, _Array, _Array | None, _Array | None],  # like w_ih, w_hh, b_ih, b_hh
    sums: tuple[_Array, _Array, _Array | None, _Array | None],  # the same
    lags: _Array,  # (L,) int64, sorted
    /,
) -> _Array: ...  # (L, 4, 5) float64: csrc/gemm/scalar_products.h
