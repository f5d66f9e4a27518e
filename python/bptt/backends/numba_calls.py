"""How the kernels of the Numba backend are called: compiled once, in threads, after a fork.

Numba is imported by `why_missing`, once it is asked. `run` may be called from several threads at
once, and in a child that was forked at any time.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cells import Cell
from ..checks import Array
from ..subnormals import get_flush_subnormals
from ..threads import get_num_threads

if TYPE_CHECKING:
    from .numba_kernels import Gradients, Incoming, Layer, Pointwise, Readout, Record

__all__ = ["compile_seconds", "kernels", "run", "why_missing"]

# Multiply-adds of one pass over the data (0.1 ms) for which a thread is worth waking.
WORK_PER_THREAD = 1 << 21

OLDEST = (0, 57)  # version of Numba, as the extra in pyproject.toml has it

_compiled: set[tuple[str, str]] = set()  # entry points with the dtypes they are ready for
_compiled_cells: dict[tuple[Cell, str], Pointwise] = {}  # by dtype
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


def why_missing() -> str | None:
    """Why Numba cannot be used here; None if it can, and then it is imported."""
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed (pip install numba)"
    for module in ("numba", "bptt.backends.numba_cells"):
        reason = _why_not_imported(module)
        if reason is not None:
            return reason
        if sys.modules["numba"].config.DISABLE_JIT:  # before the kernels are made with it
            return "Numba's compiler is switched off (NUMBA_DISABLE_JIT, numba.config)"
    return None


@functools.cache  # an import that fails is slow, and fails again
def _why_not_imported(module: str) -> str | None:
    update = "pip install --upgrade numba"
    try:
        with _compiling:  # a fork waits: the child could not end an import that it finds begun
            importlib.import_module(module)
    except Exception as error:  # no llvmlite, or too old for this Python or this NumPy, or damaged
        said = " ".join(str(error).split()) or type(error).__name__
        return f"Numba cannot be imported: {said} ({update})"
    version: str = sys.modules["numba"].__version__
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        return f"Numba {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed ({update})"
    return None


def kernels() -> ModuleType:
    """The module of the kernels, which imports Numba."""
    from . import numba_kernels

    return numba_kernels


def run(
    stages: Array,
    cell: Cell,
    layer: Layer,
    record: Record,
    incoming: Incoming | None = None,
    readout: Readout | None = None,
    gradients: Gradients | None = None,
) -> None:
    """Run `stages` one after the other, on up to `get_num_threads` threads."""
    code, y = kernels(), record.history
    import numba

    none = _nothing(y.dtype.char)
    pointwise = _pointwise(cell, y.dtype.char)
    given = (incoming or none[0], readout or none[1], gradients or none[2])
    serial = (get_flush_subnormals(), stages, pointwise, layer, record, *given)
    work = layer.x.shape[2] * y[0].size + y[0].size * y.shape[3]
    parts = min(get_num_threads(), numba.config.NUMBA_NUM_THREADS, work // WORK_PER_THREAD)
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


@functools.cache
def _nothing(dtype: str) -> tuple[Incoming, Readout, Gradients]:
    """What stands for the arguments that a call does not have."""
    code = kernels()
    vector, matrix, cube, planes = (np.empty((0,) * rank, dtype) for rank in (1, 2, 3, 4))
    ids = np.empty((0, 0), np.int64)
    return (
        code.Incoming(planes, cube),
        code.Readout(0, matrix, vector, cube, ids, matrix, 0.0, cube, matrix),
        code.Gradients(cube, planes, planes, cube, cube, matrix, matrix, vector),
    )


def _pointwise(cell: Cell, dtype: str) -> Pointwise:
    """The functions of `cell`, compiled for `dtype`."""
    key = (cell, dtype)
    if key not in _compiled_cells:
        from .numba_cells import compiled

        with _compilation():
            if key not in _compiled_cells:  # by another thread meanwhile
                _compiled_cells[key] = compiled(cell, dtype)
    return _compiled_cells[key]


def _ready(entry: Any, dtype: np.dtype[Any], arguments: tuple[Any, ...]) -> Callable[..., None]:
    """`entry`, compiled for `arguments`."""
    key = (entry.__name__, dtype.char)
    if key not in _compiled:
        import numba

        with _compilation():
            _compile(entry, tuple(map(numba.typeof, arguments)))
            _compiled.add(key)
    ready: Callable[..., None] = entry
    return ready


@contextlib.contextmanager
def _compilation() -> Iterator[None]:
    """One at a time; the time it takes is added up."""
    global _compile_seconds
    with _compiling:
        start = time.perf_counter()
        try:
            yield
        finally:
            _compile_seconds = (_compile_seconds or 0.0) + time.perf_counter() - start


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
