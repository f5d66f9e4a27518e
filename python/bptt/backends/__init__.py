"""The backends that can run the recurrences, and how one is chosen.

A backend is one module in this folder and one row in `REGISTRY`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..cells import Cell
from .cuda import Launcher, launcher
from .dense_runs import for_rows
from .native import NativeBackend
from .numba import NumbaBackend
from .numpy import NumpyBackend
from .protocol import Backend

__all__ = [
    "REGISTRY",
    "Backend",
    "BackendStatus",
    "backends",
    "for_rows",
    "require_cuda",
    "resolve",
]

# In the order in which backend="auto" tries them.
REGISTRY: dict[str, Backend] = {
    backend.name: backend for backend in (NativeBackend(), NumbaBackend(), NumpyBackend())
}


_ALIASES = {"cpp": "'native'", "c": "'native'", "np": "'numpy'", "jit": "'numba'"}


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used here, and why it can or cannot."""

    available: bool
    reason: str

    def __str__(self) -> str:
        return f"{'available' if self.available else 'not available'}: {self.reason}"


def backends() -> dict[str, BackendStatus]:
    """Every backend by name, with why it is or is not available.

    ``backend="auto"`` takes the first available one, in this order, that knows the cell and the
    dtype. Once chosen, an error is raised to the caller: no other backend is tried in silence.
    Numba is imported, if it is installed: whether it works here takes that to know. "auto" takes
    "cuda" where arrays live on a GPU, and nowhere else. To tell whether it works here, the driver
    is initialised, without a context on a GPU; a process that is forked then cannot use the GPU.
    """
    found = {name: _status(backend) for name, backend in REGISTRY.items()}
    found["cuda"] = _status(launcher())
    return found


def require_cuda() -> Launcher:
    """What launches kernels on a GPU.

    Raises
    ------
    RuntimeError
        If it is not available here; the message says why.
    """
    found = launcher()
    missing = found.missing()
    if missing is not None:
        raise RuntimeError(f"backend 'cuda' is not available: {missing}")
    return found


def _status(backend: Backend | Launcher) -> BackendStatus:
    try:
        missing = backend.missing()
        return BackendStatus(missing is None, missing or backend.description())
    except Exception as error:  # of a driver, of an environment variable: here to be read
        return BackendStatus(False, str(error) or type(error).__name__)


def resolve(name: object, cell: Cell, dtype: np.dtype[Any]) -> Backend:
    """The backend called `name` (or the best one for "auto") that runs `cell` in `dtype`.

    Raises
    ------
    TypeError
        If `name` is not a string, or the backend does not know `cell` or `dtype`.
    ValueError
        If no backend is called `name`, or BPTT_ISA names an instruction set that there is not: what
        was asked for is not passed over by "auto" either.
    RuntimeError, ImportError
        If it is not available here; the message says how to get it.
    """
    if name == "auto":
        return _best(cell, dtype)
    chosen = checks.choice("backend", name, ("auto", *REGISTRY, "cuda"), _ALIASES)
    if chosen == "cuda":
        raise TypeError(
            "backend 'cuda' computes forward, Tape.backward and value_and_grad, and nothing else"
        )
    backend = REGISTRY[chosen]
    missing = backend.missing()
    if missing is not None:
        raise backend.error(f"backend {name!r} is not available: {missing}")
    if not backend.supports(cell, dtype):
        raise TypeError(f"backend {name!r} does not compute cell {cell.name!r} in dtype {dtype}")
    return backend


def _best(cell: Cell, dtype: np.dtype[Any]) -> Backend:
    """The first that knows `cell` and `dtype` and is available."""
    for backend in REGISTRY.values():
        # In this order: whether Numba is available takes its import to know.
        if backend.supports(cell, dtype) and backend.missing() is None:
            return backend
    raise TypeError(f"no available backend computes cell {cell.name!r} in dtype {dtype}")
