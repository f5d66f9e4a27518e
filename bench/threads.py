"""The same number of threads for everybody.

Three kinds of peers: those that read the environment when they are loaded (BLAS, Numba, JAX),
those that can be told later (bptt, PyTorch), and those that do as they like; for the last, each
sample's CPU time is recorded beside its wall time, and the table shows the cores that were used.
What other processes take away shows as time that threads waited for a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "available_cpus",
    "default_threads",
    "load_average",
    "numbers",
    "positive",
    "set_environment",
    "waiting_time",
]

# XLA has no option for it: its CPU client sizes its pool by the first two (xla/pjrt/utils.cc).
_VARIABLES = (
    *("PJRT_NPROC", "NPROC", "NUMBA_NUM_THREADS"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
)


def available_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """OMP_NUM_THREADS if it holds a number, else the CPUs this process may run on."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else available_cpus()


def positive(text: str) -> int:
    """Of an option as ``--threads 2``."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return number


def numbers(text: str) -> tuple[int, ...]:
    """Of an option as ``--threads 1,2``."""
    return tuple(positive(number) for number in text.split(","))


def set_environment(arguments: Sequence[str]) -> None:
    """Limit what is not loaded yet to ``--threads``, the largest of them if there are several.

    JAX is kept on the CPU, like everybody else. NumPy must not be loaded yet: it reads this once.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", add_help=False)
    parser.add_argument("--threads", type=numbers, default=(default_threads(),))
    threads = max(parser.parse_known_args(arguments)[0].threads)
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)), JAX_PLATFORMS="cpu")


def load_average() -> float | None:
    """Runnable processes, averaged over the last minute; None where the system does not tell."""
    with contextlib.suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None


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
