"""Many threads at once, each with calls of its own kind, find the bits that one thread finds.

Under a free-threaded Python they run at the same time in Python too; `.ci/free-threaded` does that.
"""

from __future__ import annotations

import importlib
import itertools
import random
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import bptt
import numpy as np
import pytest
from conftest import BACKENDS
from problems import make_problem

THREADS = 8
SHAPES = [(5, 3, 2, 7, 3), (30, 1, 17, 65, 4), (20, 33, 20, 129, 9)]

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def run_at_once(works: Iterable[Callable[[], None]]) -> None:
    """Run each of `works` on a thread of its own, from the same moment; raise the first error."""
    works = list(works)
    start, errors = threading.Barrier(len(works)), []

    def run(work: Callable[[], None]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def calls() -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every backend, cell, dtype and shape in a forward and backward pass, and one with a loss."""
    found: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    for backend, cell, dtype, shape in itertools.product(
        BACKENDS, bptt.CELLS, ("float32", "float64"), SHAPES
    ):
        if bptt.CELLS[cell].step is not None and backend == "native":
            continue
        p = make_problem(cell, *shape, dtype=dtype)
        found.append((f"{backend}: {p}", lambda p=p, b=backend: p.forward_backward(b)))
        found.append(
            (f"{backend}: {p}", lambda p=p, b=backend: p.value_and_grad(b, "squared_error", "all"))
        )
    return found


def test_threads_that_make_different_calls_find_the_bits_of_one_thread(
    keep_num_threads: None,
) -> None:
    every = calls()
    expected = [call() for _, call in every]

    def caller(seed: int) -> Callable[[], None]:
        order = random.Random(seed).sample(range(len(every)), len(every))

        def work() -> None:
            for n in order:
                what, call = every[n]
                bptt.set_num_threads(1 + n % 3)
                for name, array in call().items():
                    assert np.array_equal(array, expected[n][name]), f"{name}, {what}"

        return work

    run_at_once(map(caller, range(THREADS)))


@pytest.mark.parametrize("reuse", ["params", "tape", "grads"])
def test_threads_that_share_what_they_read_find_the_bits_of_one(reuse: str, backend: str) -> None:
    """`Params` remember their checks, a tape is played back, and `Grads` are known to be apart."""
    p = make_problem("gru", 9, 5, 3, 33, dtype="float32")

    def work() -> None:
        for _ in range(20):
            params = p.params if reuse == "params" else p.params.snapshot()
            own = bptt.forward("gru", params, p.x, p.state, backend=backend)
            played = tape if reuse == "tape" else own
            out = None
            if reuse == "grads":
                out = bptt.Grads.zeros(p.params, steps=9, batch=5, cell="gru")
            grads = played.backward(p.dy, out=out)
            assert np.array_equal(own.y, tape.y)
            assert np.array_equal(grads.w_hh, expected.w_hh)

    tape = bptt.forward("gru", p.params, p.x, p.state, backend=backend)
    expected = tape.backward(p.dy)
    run_at_once([work] * THREADS)


FIRST_CALLS = """
import sys, threading
import bptt, numpy as np

params = bptt.init_params("tanh", input_size=3, hidden_size=33, rng=0)
x = np.ones((5, 4, 3), np.float32)
start, found = threading.Barrier(8), []

def work(n):
    start.wait()
    if n % 2:
        bptt.backends()
    tape = bptt.forward("tanh", params, x, backend=sys.argv[1])
    found.append(tape.backward(np.ones((5, 4, 33), "f4")).w_hh)

threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), all(np.array_equal(f, found[0]) for f in found))
print(getattr(sys, "_is_gil_enabled", lambda: True)())
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_calls_of_a_process_may_come_all_at_once(backend: str) -> None:
    """What is made once, is made then: the choice of kernels, the team, what Numba compiles."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALLS, backend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "8 True", done.stderr


@pytest.mark.skipif(not FREE_THREADED, reason="this Python has the GIL always")
@pytest.mark.skipif("native" not in BACKENDS, reason="native backend not built")
def test_the_compiled_module_leaves_the_gil_off() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FIRST_CALLS, "native"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["8 True", "False"], done.stderr


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not available")
def test_numba_compiles_a_cell_once_for_all_who_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = importlib.import_module("bptt.backends.numba_calls")
    numba_cells = importlib.import_module("bptt.backends.numba_cells")
    made = []

    def compiled(cell: bptt.Cell, dtype: str) -> object:
        time.sleep(0.1)
        made.append(object())
        return made[-1]

    monkeypatch.setattr(numba_cells, "compiled", compiled)
    monkeypatch.setattr(calls, "_compiled_cells", {})
    monkeypatch.setattr(calls, "_compile_seconds", calls._compile_seconds)
    found: list[object] = []
    run_at_once([lambda: found.append(calls._pointwise(bptt.CELLS["gru"], "f"))] * THREADS)
    assert len(made) == 1
    assert found == made * THREADS
