"""The memory that there is, and the one comparison with it. What calls hold: `holdings`."""

from __future__ import annotations

import os

from . import control_groups

__all__ = ["ALWAYS_GRANTED", "require_memory"]

# Below this no question is asked: the answer costs a system call.
ALWAYS_GRANTED = 1 << 28


def require_memory(nbytes: int, what: str) -> None:
    """Raise MemoryError if `nbytes` are more than the machine has free, before touching any."""
    if nbytes <= ALWAYS_GRANTED:
        return
    free = _available()
    if free is not None and nbytes > free:
        raise MemoryError(
            f"{what} needs {nbytes / 2**30:.2f} GiB, but {free / 2**30:.2f} GiB are available"
        )


def _available() -> int | None:
    """Bytes that can be allocated without swapping; None where the system does not tell."""
    found = (_of_the_machine(), control_groups.free_memory())
    return min((free for free in found if free is not None), default=None)


def _of_the_machine() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as meminfo:
            for line in meminfo:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
