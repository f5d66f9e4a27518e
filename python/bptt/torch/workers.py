"""The threads of calls: PyTorch's own, where they can be had.

Workers of two libraries on the same CPUs are in each other's way: those of PyTorch's OpenMP runtime
spin for milliseconds after every operation. So the jobs of `bptt` run on them, too.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch

from ..compiled import core

__all__ = ["openmp_functions", "share_workers"]

_FUNCTIONS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_get_max_threads")


def openmp_functions() -> list[Any] | None:
    """The functions of ``csrc/engine/openmp.h`` in PyTorch's runtime; None if that is another one,
    or cannot be found."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        loaded = ctypes.CDLL(str(library))  # a function is looked up in what it depends on, too
        return [getattr(loaded, name) for name in _FUNCTIONS]
    except (OSError, AttributeError):
        return None


def share_workers() -> bool:
    """Let calls of this process run on PyTorch's workers from now on; False if they have their
    own."""
    found = openmp_functions()
    if core is None or found is None:
        return False
    core.share_workers(*(ctypes.cast(function, ctypes.c_void_p).value for function in found))
    return True
