"""The same number of threads for everybody.

Three kinds of peers: those that read the environment when they are loaded (BLAS, Numba, JAX),
those that can be told later (bptt, PyTorch), and those that do as they like; for the last, each
sample's CPU time is recorded beside its wall time, and the table shows the cores that were used.
What other processes take away shows as time that threads waited for a CPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_cpus", "limited", "set_environment", "waiting_time"]

# XLA has no option for it: its CPU client sizes its pool by these (xla/pjrt/utils.cc).
_XLA_VARIABLES = ("PJRT_NPROC", "NPROC")
_BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def available_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_environment(threads: int) -> None:
    """Limit what is not loaded yet, and keep JAX on the CPU like everybody else.

    Once NumPy is loaded this comes too late to be complete; the environment is then left alone.
    """
    if "numpy" in sys.modules:
        return
    for name in (*_BLAS_VARIABLES, *_XLA_VARIABLES, "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit bptt and every loaded BLAS and OpenMP pool while the block runs."""
    import bptt

    before = bptt.get_num_threads()
    bptt.set_num_threads(threads)
    try:
        with _limited_pools(threads):
            yield
    finally:
        bptt.set_num_threads(before)


def _limited_pools(threads: int) -> contextlib.AbstractContextManager[object]:
    if importlib.util.find_spec("threadpoolctl") is None:
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

    limits: contextlib.AbstractContextManager[object] = threadpool_limits(threads)
    return limits


def waiting_time() -> float | None:
    """Seconds that this process's threads were ready to run and had no CPU; None if unknown.

    Second field of ``schedstat`` (Linux, Documentation/scheduler/sched-stats.rst).
    """
    total, found = 0, False
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int((task / "schedstat").read_text().split()[1])
            found = True
    return total * 1e-9 if found else None
