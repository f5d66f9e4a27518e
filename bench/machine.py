"""Where and from what the figures come: machine, versions, commit. No host names, no paths."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import bptt
import numpy as np
from bptt.backends import native

from .peers import Peer
from .threads import available_cpus

__all__ = ["cpu_name", "fma_peak", "load_average", "machine", "now", "software"]

_REPOSITORY = Path(__file__).resolve().parents[1]


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def load_average() -> float:
    """Runnable processes, averaged over the last minute; NaN where the system does not tell."""
    with contextlib.suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return float("nan")


def fma_peak(dtype: str, threads: int) -> Callable[[], float] | None:
    """A function that measures the FMA peak in flop/s; None without the native backend."""
    core = native._core
    if core is None or dtype not in ("float32", "float64"):
        return None
    return lambda: float(core.fma_peak(dtype, threads)) * 1e9


def machine() -> dict[str, Any]:
    """CPU model, caches, memory, instruction set in use, and system."""
    return {
        **_processor(),
        "cpus": available_cpus(),
        "caches": _caches(),
        "isa": bptt.info().isa,
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_name(machine: dict[str, Any]) -> str:
    """Name, family and model of a CPU as `machine` found it, for people."""
    numbers = ", ".join(
        f"{name} {machine[name]}" for name in ("family", "model") if name in machine
    )
    return f"{machine['cpu']} ({numbers})" if numbers else str(machine["cpu"])


def software(peers: Iterable[Peer]) -> dict[str, Any]:
    """Versions of everything that runs, and the state of the repository."""
    info = bptt.info()
    return {
        "bptt": info.version,
        "commit": _git("rev-parse", "HEAD"),
        # A commit says nothing about changes that are not in it, results aside.
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":!bench/results")),
        "core_sha256": _core_hash(),
        "compiler": info.compiler,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "peers": {
            peer.name: {"version": peer.version(), "is_own": peer.is_own}
            for peer in peers
            if peer.missing() is None
        },
    }


def _processor() -> dict[str, Any]:
    """Name and numbers of the CPU. A hypervisor may hide the name, not the numbers."""
    wanted = {"model name": "cpu", "cpu family": "family", "model": "model", "stepping": "stepping"}
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        for line in cpuinfo:
            key, _, value = line.partition(":")
            if key.strip() in wanted:
                found.setdefault(wanted[key.strip()], value.strip())
    return {"cpu": platform.processor() or platform.machine(), **found}


def _caches() -> dict[str, str]:
    """Sizes of the caches that the first CPU sees, such as {"L1d": "32K", "L2": "1024K"}."""
    caches = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = (
                (folder / name).read_text().strip() for name in ("level", "type", "size")
            )
            letter = {"Data": "d", "Instruction": "i"}.get(kind, "")
            caches[f"L{level}{letter}"] = size
    return caches


def _core_hash() -> str | None:
    """A short hash of the compiled module: it may be older than the commit."""
    path = getattr(native._core, "__file__", None)
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    """Output of a git command in this repository; None outside one."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
