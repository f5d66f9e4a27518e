"""How many threads a call may use."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import warnings
from collections.abc import Iterator

from . import checks, control_groups, threadpoolctl
from .compiled import core

__all__ = ["at_most", "get_num_threads", "set_num_threads"]


def _initial_num_threads() -> int:
    """OMP_NUM_THREADS if it holds a number, else the CPUs this process may use."""
    number = min(_usable_cpus(), checks.MOST_THREADS)
    given = os.environ.get("OMP_NUM_THREADS", "")
    with contextlib.suppress(ValueError):
        # A list is one number for each level of nested teams, and ours do not nest.
        first = int(given.split(",")[0])
        if first > 0:
            return min(first, checks.MOST_THREADS)
    if given:  # libgomp says so, too, and goes on
        warnings.warn(
            f"OMP_NUM_THREADS: expected a positive integer, got {given[:40]!r}: as if not given, "
            f"calls use up to {number} threads",
            RuntimeWarning,
            stacklevel=2,
        )
    return number


def _usable_cpus() -> int:
    """The CPUs this process may run on, or fewer if it has not so much of their time."""
    affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    quota = control_groups.cpu_quota()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


_num_threads = 1


def _keep(n: int) -> None:
    """As the number of threads, also of calls that are made without Python."""
    global _num_threads
    _num_threads = n
    if core is not None:
        core.set_default_threads(n)


_keep(_initial_num_threads())
_of_caller = threading.local()


def get_num_threads() -> int:
    """The largest number of threads that one call uses."""
    limit = getattr(_of_caller, "limit", None)
    return _num_threads if limit is None else min(limit, _num_threads)


@contextlib.contextmanager
def at_most(n: int) -> Iterator[None]:
    """Calls of this thread use no more threads, as a library around them asks for."""
    before = getattr(_of_caller, "limit", None)
    _of_caller.limit = n
    try:
        yield
    finally:
        _of_caller.limit = before


def set_num_threads(n: int) -> None:
    """Set the largest number of threads that one call uses, in the whole process.

    At import it is ``OMP_NUM_THREADS``, or else the number of CPUs this process may run on, and at
    most the CPU quota of its control groups, rounded up: what a container may use. Results of the
    native backend do not depend on it, to the last bit.

    Limits of threadpoolctl (3.2 or newer) set it too, for the library ``bptt``, whichever of the
    two packages is imported first. A limit that is set before `bptt` is imported does not reach
    it, nor does a ``ThreadpoolController`` that was made before; they know only what was there.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer from 1 to 1024.
    """
    _keep(checks.num_threads("n", n))


def _limit_num_threads(n: int) -> None:
    """The nearest number that there may be: an error would leave other libraries limited."""
    set_num_threads(min(max(n, 1), checks.MOST_THREADS))


threadpoolctl.join(get_num_threads, _limit_num_threads)
