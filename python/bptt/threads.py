"""How many threads a call may use."""

from __future__ import annotations

import os

from . import checks

__all__ = ["get_num_threads", "set_num_threads"]

# More than any machine has use for: a slip of the pen shall not start a million threads.
MOST_THREADS = 1024


def _initial_num_threads() -> int:
    """OMP_NUM_THREADS if it holds a number, else the CPUs this process may run on."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return min(int(first), MOST_THREADS)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_num_threads = _initial_num_threads()


def get_num_threads() -> int:
    """The largest number of threads that one call uses."""
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set the largest number of threads that one call uses, in the whole process.

    At import it is ``OMP_NUM_THREADS``, or else the number of CPUs this process may run on.
    Results of the native backend do not depend on it, to the last bit.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer from 1 to 1024.
    """
    global _num_threads
    number = checks.size("n", n)
    if number > MOST_THREADS:
        raise ValueError(f"n: expected an integer of at most {MOST_THREADS}, got {number}")
    _num_threads = number
