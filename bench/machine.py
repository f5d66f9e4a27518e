"""Where and from what the figures come: machine, versions, commit. No host names, no paths.

And what other processes take away: load, and the time that threads waited for a CPU.
"""

import contextlib
import hashlib
import math
import os
import platform
import subprocess
from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import bptt
import numpy as np
from bptt import compiled

from .options import available_cpus

ROOT = Path(__file__).resolve().parents[1]


def describe(options: Namespace, **more: Any) -> dict[str, Any]:
    """The head of a results file."""
    info, commit = bptt.info(), git("rev-parse", "HEAD")
    core = getattr(compiled.core, "__file__", None)
    machine = {**_processor(), "cpus": available_cpus(), "caches": _caches(), "isa": info.isa}
    software = {
        "bptt": info.version,
        "commit": commit and commit.decode().strip(),
        # A commit says nothing about changes that are not in it, results aside.
        "dirty": bool(git("status", "--porcelain", "--", ".", ":!bench/results")),
        # The compiled module may be older than the commit.
        "core_sha256": core and hashlib.sha256(Path(core).read_bytes()).hexdigest()[:16],
        "compiler": info.compiler,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    threads = options.threads if isinstance(options.threads, tuple) else (options.threads,)
    return {
        **{name: getattr(options, name) for name in ("command", "quick", "rounds", "min_time")},
        "threads": threads[0] if len(threads) == 1 else ",".join(map(str, threads)),
        **{"begun": now(), "ended": None, "interrupted": True, "load": load_average()},
        "machine": {**machine, "system": f"{platform.system()} {platform.machine()}"},
        "software": software,
        **more,
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def load_average() -> float | None:
    """Runnable processes, averaged over the last minute; None where the system does not tell."""
    with contextlib.suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None


def waiting_time() -> float:
    """Seconds that this process's threads were ready to run and had no CPU; NaN if unknown.

    Second field of ``schedstat`` (Linux, Documentation/scheduler/sched-stats.rst).
    """
    found = []
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.append(int((task / "schedstat").read_text().split()[1]))
    return sum(found) * 1e-9 if found else math.nan


def git(*arguments: str) -> bytes | None:
    """Output of a git command in this repository; None if it fails."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(("git", "-C", ROOT, *arguments), stderr=subprocess.DEVNULL)
    return None


def cpu_name(machine: Mapping[str, Any]) -> str:
    """Name, family and model of a CPU as `describe` found it, for people."""
    numbers = ", ".join(f"{n} {machine[n]}" for n in ("family", "model") if n in machine)
    return f"{machine['cpu']} ({numbers})" if numbers else str(machine["cpu"])


def _processor() -> dict[str, Any]:
    """Name and numbers of the CPU. A hypervisor may hide the name, not the numbers."""
    wanted = {"model name": "cpu", "cpu family": "family", "model": "model", "stepping": "stepping"}
    found: dict[str, Any] = {"cpu": platform.processor() or platform.machine()}
    with contextlib.suppress(OSError):
        first, *_ = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")
        pairs = (line.partition(":") for line in first.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        found.update({name: fields[key] for key, name in wanted.items() if key in fields})
    return found


def _caches() -> dict[str, str]:
    """Sizes of the caches that the first CPU sees, such as {"L1d": "32K", "L2": "1024K"}."""
    caches, kinds = {}, {"Data": "d", "Instruction": "i"}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((cache / n).read_text().strip() for n in ("level", "type", "size"))
            caches[f"L{level}{kinds.get(kind, '')}"] = size
    return caches
