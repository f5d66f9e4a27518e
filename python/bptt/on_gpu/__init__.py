"""The public functions for arrays that live on a GPU: PyTorch's, CuPy's, and others by DLPack.

On the stream of the library that owns the arrays, into new arrays of it; see docs/cuda.md. What of
the functions' keywords is for arrays of the host alone is an error here.
"""

from .concerned import expect_none, expect_on_host, is_on_gpu
from .forward_pass import forward
from .gradient import value_and_grad
from .stack_tape import GpuStackTape
from .tape import GpuTape

__all__ = [
    "GpuStackTape",
    "GpuTape",
    "expect_none",
    "expect_on_host",
    "forward",
    "is_on_gpu",
    "value_and_grad",
]
