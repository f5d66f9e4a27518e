"""How many threads a call may use."""

from __future__ import annotations

import os
import sys
from typing import Any

from . import checks

__all__ = ["get_num_threads", "set_num_threads"]


def _initial_num_threads() -> int:
    """OMP_NUM_THREADS if it holds a number, else the CPUs this process may run on."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return min(int(first), checks.MOST_THREADS)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), checks.MOST_THREADS)
    return os.cpu_count() or 1


_num_threads = _initial_num_threads()


def get_num_threads() -> int:
    """The largest number of threads that one call uses."""
    _join_threadpoolctl()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set the largest number of threads that one call uses, in the whole process.

    At import it is ``OMP_NUM_THREADS``, or else the number of CPUs this process may run on.
    Results of the native backend do not depend on it, to the last bit. Limits of threadpoolctl
    hold too, for the library ``bptt``, if it was imported before `bptt` or before the last call
    of `get_num_threads` or of a pass.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer from 1 to 1024.
    """
    global _num_threads
    _num_threads = checks.num_threads("n", n)
    _join_threadpoolctl()


_has_joined = False


def _join_threadpoolctl() -> None:
    """Let threadpoolctl's limits hold for this package too, once the process has imported it."""
    global _has_joined
    threadpoolctl: Any = sys.modules.get("threadpoolctl")
    if _has_joined or not hasattr(threadpoolctl, "register"):  # since threadpoolctl 3.2
        return
    _has_joined = True

    class Controller(threadpoolctl.LibController):  # type: ignore[misc, unused-ignore]
        user_api = internal_api = "bptt"
        filename_prefixes = ("_core",)
        check_symbols = ("bptt_core",)  # other packages have a _core as well

        def get_num_threads(self) -> int:
            return _num_threads

        def set_num_threads(self, num_threads: int) -> None:
            set_num_threads(num_threads)

        def get_version(self) -> str:
            from . import __version__

            return __version__

    threadpoolctl.register(Controller)


_join_threadpoolctl()
