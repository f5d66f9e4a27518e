"""How the kernels of the Numba backend are called: compiled once, in threads, after a fork.

Numba is imported by the first call. `run` may be called from several threads at once, and in a
child that was forked at any time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import Array
from ..threads import get_num_threads

if TYPE_CHECKING:
    from .numba_kernels import Gradients, Layer, Readout

__all__ = ["compile_seconds", "kernels", "run"]

# Multiply-adds of one pass over the data (0.1 ms) for which a thread is worth waking.
WORK_PER_THREAD = 1 << 21

_compiled: set[tuple[str, str]] = set()  # entry points with the dtypes they are ready for
_compile_seconds: float | None = None
_compiling = threading.RLock()
# Numba's "workqueue" threads, its last resort, abort the process if two callers meet in them.
_in_parallel = threading.Lock()
_threads_lost = False


def compile_seconds() -> float | None:
    """Seconds this process spent on compiling kernels or loading them from Numba's cache.

    The import of Numba is not counted, nor is any run of a kernel. None before the first call.
    """
    return _compile_seconds


def kernels() -> ModuleType:
    """The module of the kernels, which imports Numba."""
    from . import numba_kernels

    return numba_kernels


def run(
    first: int,
    last: int,
    cell: str,
    layer: Layer,
    y: Array,
    delta: Array,
    readout: Readout,
    gradients: Gradients,
) -> None:
    """Run the stages from `first` to `last`, on up to `get_num_threads` threads."""
    code = kernels()
    import numba

    serial = (first, last, code.CELL_CODES[cell], layer, y, delta, readout, gradients)
    work = y.size * (layer.x.shape[2] + y.shape[2]) // WORK_PER_THREAD
    parts = min(get_num_threads(), numba.config.NUMBA_NUM_THREADS, work)
    if parts <= 1 or _threads_lost:
        _ready(code.run_serially, y.dtype, serial)(*serial)
        return
    parallel = (parts, *serial)
    run_in_parallel = _ready(code.run_in_parallel, y.dtype, parallel)
    with _in_parallel:
        before = numba.get_num_threads()
        numba.set_num_threads(parts)
        try:
            run_in_parallel(*parallel)
        finally:
            numba.set_num_threads(before)


def _ready(entry: Any, dtype: np.dtype[Any], arguments: tuple[Any, ...]) -> Callable[..., None]:
    """`entry`, compiled for `arguments`; the time this takes is added up."""
    global _compile_seconds
    key = (entry.__name__, dtype.char)
    if key not in _compiled:
        import numba

        with _compiling:
            start = time.perf_counter()
            try:
                _compile(entry, tuple(map(numba.typeof, arguments)))
            finally:
                _compile_seconds = (_compile_seconds or 0.0) + time.perf_counter() - start
            _compiled.add(key)
    ready: Callable[..., None] = entry
    return ready


def _compile(entry: Any, signature: tuple[Any, ...]) -> None:
    try:
        entry.compile(signature)
    except OSError:
        # The cache could not be written, say on a full disk. What was compiled is in memory.
        if signature not in entry.overloads:
            raise


def _after_fork_in_child() -> None:
    """Do without threads where the parent had some: they are gone, but Numba counts on them.

    Its OpenMP threads would end the child with SIGTERM. The serial kernels give the same bits.
    """
    global _in_parallel, _threads_lost
    _compiling.release()
    _in_parallel = threading.Lock()  # a thread that held it is not in the child
    threading_layer = getattr(sys.modules.get("numba"), "threading_layer", None)
    if threading_layer is not None:
        # Numba raises ValueError as long as it has started no threads.
        with contextlib.suppress(ValueError):
            threading_layer()
            _threads_lost = True


if hasattr(os, "register_at_fork"):
    # A fork waits for a compilation, or the child would find Numba's own lock taken for ever.
    os.register_at_fork(
        before=_compiling.acquire,
        after_in_parent=_compiling.release,
        after_in_child=_after_fork_in_child,
    )
