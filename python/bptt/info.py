"""`info`: what this installation runs on."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .backends import BackendStatus, backends
from .cells import CELLS
from .peaks import fma_peak
from .threads import get_num_threads

__all__ = ["Info", "info"]

_NO_HANDLERS = "no handlers (BPTT_JAX=1 when it is installed from source: docs/jax.md)"


@dataclass(frozen=True)
class Info:
    """What `info` found; ``str`` of it is a table, ``to_dict`` is plain data.

    Attributes
    ----------
    version, python, numpy : str
    isa : str or None
        Instruction set that the native kernels use; None if they are not built.
    isas : tuple of str
        Instruction sets that could be chosen with ``BPTT_ISA`` on this CPU, best first.
    compiler : str or None
        What compiled the native kernels.
    jax : str or None
        The version of XLA's foreign function interface for which the handlers of `bptt.jax` are
        built; None if they are not.
    threads : int
        Largest number of threads of one call.
    fma_peak, fma_peak_loads : float or None
        GF/s that fused multiply-adds in float32 reach on one thread with `isa`: in registers, and
        in the register tile of a product, whose operands come from the first-level cache. Measured
        once in a process, for about 20 ms. None if the native kernels are not built.
    numba_compile_seconds : float or None
        Time the Numba backend spent on compiling (or loading its cache) in this process; None
        before its first call.
    backends : dict of str to BackendStatus
    cells : tuple of str
    """

    version: str
    python: str
    numpy: str
    isa: str | None
    isas: tuple[str, ...]
    compiler: str | None
    jax: str | None
    threads: int
    fma_peak: float | None
    fma_peak_loads: float | None
    numba_compile_seconds: float | None
    backends: dict[str, BackendStatus]
    cells: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists, strings and numbers, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        native = "not available" if self.isa is None else f"{self.isa} (of {', '.join(self.isas)})"
        compiled = self.numba_compile_seconds
        peak, loads = self.fma_peak, self.fma_peak_loads
        rows = {
            "bptt": self.version,
            "Python": self.python,
            "NumPy": self.numpy,
            "native ISA": native,
            "compiler": self.compiler or "-",
            "JAX": f"handlers for XLA's FFI {self.jax}" if self.jax else _NO_HANDLERS,
            "threads": str(self.threads),
            "FMA peak": f"{peak:.0f} GF/s a thread, {loads:.0f} with loads" if peak else "-",
            "Numba compile": "not used yet" if compiled is None else f"{compiled:.2f} s",
            "cells": ", ".join(self.cells),
        }
        rows.update({f"backend {name}": str(status) for name, status in self.backends.items()})
        return "\n".join(f"{name:<15} {value}" for name, value in rows.items())

    __repr__ = __str__


def info() -> Info:
    """Version, instruction set, threads, compiler, and the state of every backend.

    Examples
    --------
    >>> print(bptt.info())                                              # doctest: +SKIP
    """
    from . import __version__
    from .backends.numba import compile_seconds
    from .compiled import core as _core

    statuses = backends()
    isa = _core.isa() if statuses["native"].available else None
    return Info(
        version=__version__,
        python=platform.python_version(),
        numpy=np.__version__,
        isa=isa,
        isas=() if _core is None else tuple(_core.isas()),
        compiler=None if _core is None else _core.compiler(),
        jax=None if _core is None else _core.xla_ffi,
        threads=get_num_threads(),
        fma_peak=isa and fma_peak(isa, "float32", loads=False),
        fma_peak_loads=isa and fma_peak(isa, "float32", loads=True),
        numba_compile_seconds=compile_seconds(),
        backends=statuses,
        cells=tuple(CELLS),
    )
