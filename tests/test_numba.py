"""What is particular to the Numba backend: its extra, compilation and cache, threads and forks.

That it agrees with the reference is tested with the other backends.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.pointwise import sigmoid
from bptt.states import as_tuple
from conftest import BACKENDS
from problems import Problem, make_problem

calls = importlib.import_module("bptt.backends.numba_calls")

TIMEOUT = 120  # seconds, on a busy machine that has to compile
NO_SUCH_LAYER = 77

needs_numba = pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# What Numba can run threads with; which of them are there depends on the machine.
every_layer = pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue"])

# One problem, large enough for two threads, and the gradient that everybody has to find.
PROGRAM = """
    import os, sys, threading
    import numpy as np
    import bptt

    params = bptt.init_params("tanh", input_size=64, hidden_size=64, output_size=3, rng=0)
    x = np.random.default_rng(0).standard_normal((70, 8, 64)).astype(np.float32)
    ids = np.zeros((70, 8), int)

    def gradient():
        _, grads = bptt.value_and_grad(
            "tanh", params, x, ids, loss="cross_entropy", at="all", backend="numba"
        )
        return grads.w_hh

    bptt.set_num_threads(1)
    expected = gradient()
    bptt.set_num_threads(2)
"""
START_THREADS = f"""
    try:
        gradient()
    except ValueError as error:
        sys.exit({NO_SUCH_LAYER} if "threading layer could be loaded" in str(error) else error)
"""


def run_program(*parts: str, **environment: str) -> str:
    """What the program prints; skips the test if the machine lacks its threading layer."""
    done = subprocess.run(
        [sys.executable, "-c", "".join(map(textwrap.dedent, parts))],
        env={**os.environ, "NUMBA_NUM_THREADS": "2", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode == NO_SUCH_LAYER:
        pytest.skip("this threading layer is not available")
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    return done.stdout


# --- the extra ----------------------------------------------------------------------------------


def test_without_numba_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status = bptt.backends()["numba"]
    assert not status.available
    assert status.reason == "Numba is not installed (pip install numba)"
    p = make_problem("tanh", 2, 2, 2, 2)
    with pytest.raises(ImportError, match=r"^backend 'numba' is not available: Numba is not inst"):
        bptt.forward("tanh", p.params, p.x, backend="numba")


def test_without_numba_auto_takes_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    p = make_problem("tanh", 2, 2, 2, 2)
    assert bptt.forward("tanh", p.params, p.x).backend in ("native", "numpy")


# --- compilation --------------------------------------------------------------------------------


@needs_numba
def test_info_shows_the_time_of_compilation_after_the_first_use_and_only_of_that() -> None:
    printed = run_program(
        """
        import time, warnings, bptt
        print(bptt.info().numba_compile_seconds, "not used yet" in str(bptt.info()))
        start = time.perf_counter()
        """,
        PROGRAM,
        """
        first = bptt.info().numba_compile_seconds
        took = time.perf_counter() - start
        print(0 < first < took, f"{first:.2f} s" in str(bptt.info()))
        bptt.set_num_threads(1)
        for _ in range(10):
            gradient()
        print(bptt.info().numba_compile_seconds == first)
        """,
    )
    assert printed.split() == ["None", "True", "True", "True", "True"]


@needs_numba
def test_one_specialisation_a_dtype_serves_every_cell_loss_and_read_only_input() -> None:
    from bptt.backends import numba_kernels

    for dtype in ("float32", "float64"):
        for cell in bptt.CELLS:
            for biases in ((), ("b_ih",), ("b_ih", "b_hh", "b_o")):
                p = make_problem(cell, 3, 2, 1, 5, dtype=dtype, biases=biases)
                for array in arrays_of(p):
                    array.flags.writeable = False
                p.forward_backward("numba")
                for loss in ("squared_error", "cross_entropy"):
                    for at in ("last", "all", "weights"):
                        p.value_and_grad("numba", loss, at)
    assert len(numba_kernels.run_serially.overloads) == 2
    assert len(numba_kernels.run_in_parallel.overloads) <= 2


@needs_numba
def test_nothing_that_is_compiled_for_the_cache_comes_from_another_module_of_the_package() -> None:
    """Numba compares the time of one file, that of the kernels: a constant, function or tuple out
    of another would stay in compiled code after an upgrade that changed it."""
    from bptt.backends import numba_kernels

    source = ast.parse(Path(numba_kernels.__file__).read_text())
    at_run_time = [node for node in source.body if not isinstance(node, ast.If)]
    imported = {
        name.split(".")[0]
        for node in itertools.chain.from_iterable(map(ast.walk, at_run_time))
        for name in names_imported(node)
    }
    # What is compiled with another version of Numba lies elsewhere in its cache.
    allowed = {"numba", "llvmlite", "numpy"} | set(sys.stdlib_module_names) | {"__future__"}
    assert imported <= allowed
    passed = (numba_kernels.Pointwise, numba_kernels.Layer, numba_kernels.Record)
    assert {kind.__module__ for kind in passed} == {numba_kernels.__name__}


def names_imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


@needs_numba
def test_the_backend_supports_the_cells_that_have_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from bptt.backends import numba_cells

    backend, float32 = REGISTRY["numba"], np.dtype("float32")
    new = bptt.cells.Cell("new", 1, "S_t = a_t")
    assert not backend.supports(new, float32)
    monkeypatch.setitem(numba_cells.STEPS, "new", numba_cells.STEPS["linear"])
    assert backend.supports(new, float32)


def arrays_of(p: Problem) -> list[np.ndarray]:
    """Everything that a call reads."""
    states = (*as_tuple(p.state), *as_tuple(p.dstate))
    given = (p.x, p.dy, p.weights, *states, *p.params.arrays().values())
    return [*given] if p.dc is None else [*given, p.dc]


@needs_numba
@pytest.mark.slow  # compiles, and cannot keep it
@pytest.mark.parametrize("failure", ["no place", "full disk"])
def test_a_cache_that_cannot_be_written_is_no_error(failure: str) -> None:
    printed = run_program(
        f"""
        from numba.core import caching

        def fail(*arguments):
            raise OSError("no space left on device")

        if {failure!r} == "no place":
            caching._CacheLocator.ensure_cache_path = fail
        else:
            caching.IndexDataCacheFile.load = lambda *arguments: None
            caching.IndexDataCacheFile.save = fail
        """,
        PROGRAM,
        """
        print(np.isfinite(expected).all(), bptt.info().numba_compile_seconds > 0)
        """,
        NUMBA_OPT="0",  # a quarter of the time less
    )
    assert printed.split() == ["True", "True"]


@needs_numba
def test_sigmoid_is_within_three_units_in_the_last_place() -> None:
    """Through a cell that is nothing but a sigmoid."""

    @bptt.cell(gates=("a",), name="sigmoid")
    def step(sums: Any, h: Any) -> Any:
        return sigmoid(sums[0]), ()

    @step.derivative
    def only(saved: Any, before: Any, h: Any, dh: Any) -> Any:
        return (dh,), 0.0

    del bptt.CELLS["sigmoid"]
    rng = np.random.default_rng(0)
    sizes = np.concatenate([np.linspace(0, 86, 100_001), 10.0 ** rng.uniform(-30, 0, 10_000)])
    for dtype, wider in (("float32", "float64"), ("float64", "longdouble")):
        a = np.concatenate([sizes, -sizes]).astype(dtype)
        params = bptt.Params(np.ones((1, 1), dtype), np.zeros((1, 1), dtype))
        y = bptt.forward(only, params, a.reshape(1, -1, 1), backend="numba").y.ravel()
        error = np.abs(y - 1 / (1 + np.exp(-a.astype(wider)))) / np.spacing(y)
        assert error.max() < 3, f"sigmoid({a[error.argmax()]!r}) in {dtype}"
        far = np.array([-np.inf, -1000, 1000, np.inf, np.nan], dtype).reshape(1, -1, 1)
        limits = bptt.forward(only, params, far, backend="numba").y.ravel()
        np.testing.assert_array_equal(limits, [0, 0, 1, 1, np.nan])


@needs_numba
def test_tanh_is_within_three_units_in_the_last_place() -> None:
    """Through a network that is nothing but tanh: one step, I = H = 1, W_x = 1."""
    rng = np.random.default_rng(0)
    sizes = np.concatenate([np.linspace(0, 25, 100_001), 10.0 ** rng.uniform(-30, 0, 10_000)])
    for dtype, wider in (("float32", "float64"), ("float64", "longdouble")):
        a = np.concatenate([sizes, -sizes]).astype(dtype)
        params = bptt.Params(np.ones((1, 1), dtype), np.zeros((1, 1), dtype))
        y = bptt.forward("tanh", params, a.reshape(1, -1, 1), backend="numba").y.ravel()
        error = np.abs(y - np.tanh(a.astype(wider))) / np.spacing(np.abs(y))
        assert error.max() < 3, f"tanh({a[error.argmax()]!r}) in {dtype}"
        assert np.array_equal(np.sign(y), np.sign(a))
        assert np.abs(y).max() == 1


# --- threads ------------------------------------------------------------------------------------


@needs_numba
def test_same_bits_from_one_thread_and_from_two_however_small_the_work(
    cell: str, dtype: str, monkeypatch: pytest.MonkeyPatch, keep_num_threads: None
) -> None:
    monkeypatch.setattr(calls, "WORK_PER_THREAD", 1)
    for shape in ((7, 1, 1, 1, 1), (9, 2, 3, 33, 2), (70, 5, 17, 31, 1), (3, 129, 8, 7, 9)):
        p = make_problem(cell, *shape, dtype=dtype)
        found = []
        for threads in (1, 2):
            bptt.set_num_threads(threads)
            found.append(
                [p.forward_backward("numba")]
                + [p.value_and_grad("numba", loss, "all") for loss in ("squared_error",)]
                + [p.value_and_grad("numba", loss, "step") for loss in ("cross_entropy",)]
            )
        for one, two in zip(*found, strict=True):
            for name in one:
                assert np.array_equal(one[name], two[name]), f"{name} of {p}"


@needs_numba
def test_numbas_own_number_of_threads_is_left_as_it_was(keep_num_threads: None) -> None:
    import numba

    most = numba.config.NUMBA_NUM_THREADS
    p = make_problem("tanh", 40, 33, 64, 64, dtype="float32")
    before = numba.get_num_threads()
    try:
        for callers, ours in ((most, 1), (1, 2), (most, 1000)):
            numba.set_num_threads(callers)
            bptt.set_num_threads(ours)
            p.forward_backward("numba")
            assert numba.get_num_threads() == callers
    finally:
        numba.set_num_threads(before)


@needs_numba
@every_layer
def test_python_threads_may_call_at_once_in_every_threading_layer(layer: str) -> None:
    """Without care, "workqueue" aborts the process when two callers meet in it."""
    printed = run_program(
        PROGRAM,
        START_THREADS,
        """
        same = []

        def call():
            same.extend(np.array_equal(gradient(), expected) for _ in range(20))

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        print(len(same), all(same))
        """,
        NUMBA_THREADING_LAYER=layer,
    )
    assert printed.split() == ["80", "True"]


# --- forks --------------------------------------------------------------------------------------

FORK = """
    def exit_code_of_child():
        child = os.fork()
        if child == 0:
            bptt.set_num_threads(2)
            os._exit(0 if np.array_equal(gradient(), expected) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@needs_numba
@needs_fork
@every_layer
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_after_use_computes_the_same_in_every_threading_layer(layer: str) -> None:
    """Without care, "omp" ends such a child with SIGTERM."""
    printed = run_program(
        PROGRAM,
        START_THREADS,
        FORK,
        """
        print(*(exit_code_of_child() for _ in range(3)), np.array_equal(gradient(), expected))
        """,
        NUMBA_THREADING_LAYER=layer,
    )
    assert printed.split() == ["0", "0", "0", "True"]


@needs_numba
@needs_fork
@every_layer
def test_a_child_forked_in_the_midst_of_a_call_computes_the_same(layer: str) -> None:
    printed = run_program(
        PROGRAM,
        START_THREADS,
        FORK,
        """
        def call_for_ever():
            while True:
                gradient()

        threading.Thread(target=call_for_ever, daemon=True).start()
        print(*(exit_code_of_child() for _ in range(5)), flush=True)
        os._exit(0)
        """,
        NUMBA_THREADING_LAYER=layer,
    )
    assert printed.split() == ["0"] * 5


@needs_numba
@needs_fork
def test_a_child_may_use_threads_if_its_parent_had_started_none() -> None:
    printed = run_program(
        PROGRAM,
        """
        child = os.fork()
        if child == 0:
            same = np.array_equal(gradient(), expected)
            import numba
            print(same, numba.threading_layer() != "", flush=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
    )
    assert printed.split() == ["True", "True"]


@needs_numba
@needs_fork
def test_a_fork_waits_for_a_compilation() -> None:
    """Or the child would find Numba's lock taken by a thread that it does not have."""
    compiling, compiled = threading.Event(), threading.Event()

    class Slow:
        __name__ = "slow"

        def compile(self, signature: object) -> None:
            compiling.set()
            time.sleep(0.5)
            compiled.set()

    before = calls._compile_seconds, set(calls._compiled)
    caller = threading.Thread(target=calls._ready, args=(Slow(), np.dtype("f4"), ()))
    caller.start()
    try:
        assert compiling.wait(TIMEOUT)
        child = os.fork()
        if child == 0:
            os._exit(0 if compiled.is_set() and calls._compiling.acquire(timeout=1) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        caller.join()
        calls._compile_seconds, calls._compiled = before
