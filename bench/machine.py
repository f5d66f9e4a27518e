"""Where and from what the figures come: machine, versions, commit. No host names, no paths."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import bptt
import numpy as np
from bptt.backends import native

from .threads import available_cpus, load_average

__all__ = ["cpu_name", "describe", "fma_peak", "now"]

_REPOSITORY = Path(__file__).resolve().parents[1]


def describe(
    options: argparse.Namespace, titles: Mapping[str, str], versions: Mapping[str, str]
) -> dict[str, Any]:
    """The head of a results file: titles of its families, versions of whoever competes."""
    threads = options.threads if isinstance(options.threads, tuple) else (options.threads,)
    info, core = bptt.info(), getattr(native._core, "__file__", None)
    return {
        "command": options.command,
        "begun": now(),
        "ended": None,
        "interrupted": True,
        "quick": options.quick,
        "threads": threads[0] if len(threads) == 1 else ",".join(map(str, threads)),
        "rounds": options.rounds,
        "min_time": options.min_time,
        "titles": dict(titles),
        "load": load_average(),
        "machine": {
            **_processor(),
            "cpus": available_cpus(),
            "caches": _caches(),
            "isa": info.isa,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "software": {
            "bptt": info.version,
            "commit": _git("rev-parse", "HEAD"),
            # A commit says nothing about changes that are not in it, results aside.
            "dirty": bool(_git("status", "--porcelain", "--", ".", ":!bench/results")),
            # The compiled module may be older than the commit.
            "core_sha256": core and hashlib.sha256(Path(core).read_bytes()).hexdigest()[:16],
            "compiler": info.compiler,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "versions": dict(versions),
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def fma_peak(dtype: str, threads: int) -> float:
    """The FMA peak in flop/s, measured now; needs the native backend."""
    return float(native._core.fma_peak(dtype, threads)) * 1e9


def cpu_name(machine: Mapping[str, Any]) -> str:
    """Name, family and model of a CPU as `describe` found it, for people."""
    numbers = ", ".join(f"{n} {machine[n]}" for n in ("family", "model") if n in machine)
    return f"{machine['cpu']} ({numbers})" if numbers else str(machine["cpu"])


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


_KINDS = {"Data": "d", "Instruction": "i"}


def _caches() -> dict[str, str]:
    """Sizes of the caches that the first CPU sees, such as {"L1d": "32K", "L2": "1024K"}."""
    caches = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((cache / n).read_text().strip() for n in ("level", "type", "size"))
            caches[f"L{level}{_KINDS.get(kind, '')}"] = size
    return caches


def _git(*arguments: str) -> str | None:
    """Output of a git command in this repository; None outside one."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(_REPOSITORY), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    return None
