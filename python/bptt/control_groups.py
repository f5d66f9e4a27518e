"""What Linux's control groups, which containers are made of, leave to this process.

A limit of any group from the process's own up to the root holds, so the tightest one counts. Both
versions are read, side by side as a hybrid system has them:

    ========= ====================================== ==============================
    limit     version 1                              version 2
    ========= ====================================== ==============================
    CPU time  cpu.cfs_quota_us / cpu.cfs_period_us   cpu.max
    memory    memory.limit_in_bytes                  memory.max
    ========= ====================================== ==============================

Where there is no such file, or its text is no number, there is no limit.
"""

from __future__ import annotations

import os.path  # not pathlib, which would cost `import bptt` a tenth
from collections.abc import Callable, Iterator

__all__ = ["cpu_quota", "free_memory"]


def cpu_quota(root: str = "/") -> float | None:
    """CPUs' worth of time that this process may use; None without a limit.

    `root` is the folder that holds ``proc``, and the file systems that are mounted.
    """
    return _tightest(_folders(root, "cpu"), (_cpus_v1, _cpus_v2))


def free_memory(root: str = "/") -> int | None:
    """Bytes up to the memory limit of this process's groups; None without a limit.

    What a group has used counts without its cache of files, which the kernel gives up on demand;
    MemAvailable of ``/proc/meminfo`` is defined alike.
    """
    free = _tightest(_folders(root, "memory"), (_memory_v1, _memory_v2))
    return None if free is None else max(0, int(free))


def _tightest(
    folders: Iterator[str], limits: tuple[Callable[[str], float | None], ...]
) -> float | None:
    found = (limit(folder) for folder in folders for limit in limits)
    try:
        return min((limit for limit in found if limit is not None), default=None)
    except (IndexError, ValueError):  # a sandbox that writes these files in its own way
        return None


def _cpus_v1(group: str) -> float | None:
    quota, period = (
        _number(group, "cpu.cfs_quota_us"),
        _number(group, "cpu.cfs_period_us"),
    )
    return quota / period if quota and period and quota > 0 else None  # -1: no limit


def _cpus_v2(group: str) -> float | None:
    quota, _, period = _text(group, "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and int(period or 0) else None


def _memory_v1(group: str) -> int | None:
    limit = _number(group, "memory.limit_in_bytes")
    return None if limit is None else limit - _in_use(group, "memory.usage_in_bytes", "total_")


def _memory_v2(group: str) -> int | None:
    limit = _number(group, "memory.max")
    return None if limit is None else limit - _in_use(group, "memory.current", "")


def _in_use(group: str, usage: str, prefix: str) -> int:
    """Bytes that the group holds, without its cache of files."""
    rows = (line.split() for line in _text(group, "memory.stat").splitlines())
    cached = {f"{prefix}active_file", f"{prefix}inactive_file"}
    return (_number(group, usage) or 0) - sum(int(row[1]) for row in rows if row[0] in cached)


def _folders(root: str, controller: str) -> Iterator[str]:
    """The folders of this process's groups with that controller, each from its own to the root."""
    own = _own_groups(root)
    for line in _text(root, "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup" and controller in options.split(","):
            group = own.get(controller)
        elif kind == "cgroup2":
            group = own.get("")
        else:
            continue
        top, mounted_at = map(_unescaped, mount.split(" ")[3:5])
        at = os.path.join(root, mounted_at.lstrip("/"))
        yield from _upwards(at, _below(top, group or "/"))


def _own_groups(root: str) -> dict[str, str]:
    """The path of the process's group by controller; that of version 2 by the empty string."""
    found = {}
    for line in _text(root, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _below(top: str, group: str) -> str:
    """The path of `group` below `top`, the group that is mounted; "" if it lies elsewhere.

    A container may see its own group mounted as the root, but the path as the host has it.
    """
    top = top.rstrip("/")
    is_below = f"{group}/".startswith(f"{top}/") and ".." not in group.split("/")
    return group[len(top) :] if is_below else ""


def _upwards(mounted_at: str, group: str) -> Iterator[str]:
    parts = [part for part in group.split("/") if part]
    for depth in range(len(parts), -1, -1):
        yield os.path.join(mounted_at, *parts[:depth])


def _unescaped(path: str) -> str:
    """A path of mountinfo, where a blank is written as its octal code."""
    return path.replace("\\040", " ").replace("\\134", "\\")


def _number(*path: str) -> int | None:
    try:
        return int(_text(*path))
    except ValueError:  # no such file, or "max"
        return None


def _text(*path: str) -> str:
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="surrogateescape") as opened:
            return opened.read().strip()
    except OSError:  # no such file, or not on this system
        return ""
