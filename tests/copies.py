"""Copies of the engine in one process, each called in the same way: programs of test_one_team.py
import this."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from c_library import Layer, Options, Record, loaded, made

THREADS = 3
WORKERS = THREADS - 1
T, B, INPUTS, H = 20, 64, 32, 129  # enough work for so many
BUSY = 3000  # steps that take longer than the 50 ms after which a call asks whether to go on

rng = np.random.default_rng(0)
X = rng.standard_normal((T, B, INPUTS)).astype("f")
LONG_X = np.tile(X, (BUSY // T, 1, 1))
W_IH, W_HH = (rng.uniform(-0.1, 0.1, (H, k)).astype("f") for k in (INPUTS, H))


def of_python(x: Any = X) -> Any:
    import bptt

    bptt.set_num_threads(THREADS)
    return bptt.forward("tanh", bptt.Params(W_IH, W_HH), x, backend="native").y


def of_library(library: Any, x: Any = X, interrupt: Any = None) -> Any:
    y = np.empty((len(x), B, H), "f")
    sizes = {"steps": len(x), "batch": B, "inputs": INPUTS, "hidden": H}
    layer = made(Layer, cell=b"tanh", x=x, w_ih=W_IH, w_hh=W_HH, **sizes)
    options = made(Options, threads=THREADS, interrupt=ctypes.cast(interrupt, ctypes.c_void_p))
    given = map(ctypes.byref, (layer, made(Record, y=y), options))
    assert library.bptt_forward(*given) == 0, library.bptt_error_message()
    return y


def copy(name: str) -> Callable[..., Any]:
    """The copy of `bptt._core`, if the name is "python", or of the library at that path."""
    if name == "python":
        import bptt.compiled

        assert bptt.compiled.core is not None
        return of_python
    library = loaded(name)
    return lambda *args: of_library(library, *args)


def tasks() -> int:
    """Threads of this process."""
    return len(os.listdir("/proc/self/task"))


def assert_added(workers: int, before: int) -> None:
    """That there are so many threads more than `before`."""
    deadline = time.monotonic() + 5
    while tasks() > before + workers and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread of Python's ends a little after it is joined
    assert tasks() == before + workers, f"{before} threads, then {tasks()}"
