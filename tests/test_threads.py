"""The number of threads changes no bit, and calls from several threads do not meet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bptt
import numpy as np
import pytest
from problems import Problem, Result, make_problem

# (T, B, I, H, O), each large enough that a second thread pays: many rows, few rows, a
# single one, and one whose steps are small.
SHAPES = [
    (20, 33, 20, 129, 9),
    (40, 3, 17, 257, 5),
    (60, 1, 31, 300, 3),
    (257, 17, 8, 33, 2),
    (900, 1, 2, 60, 3),
]


def all_results(p: Problem, backend: str) -> list[Result]:
    return [
        p.forward_backward(backend),
        p.value_and_grad(backend, "squared_error", "last"),
        p.value_and_grad(backend, "cross_entropy", "weights"),
    ]


def assert_same_bits(found: list[Result], expected: list[Result], message: str) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in other:
            same = np.array_equal(one[name], other[name])
            assert same, f"{name}: {message}"


@pytest.mark.parametrize("shape", SHAPES)
def test_same_bits_from_any_number_of_threads(
    shape: tuple[int, ...], cell: str, dtype: str, compiled_backend: str, keep_num_threads: None
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    bptt.set_num_threads(1)
    expected = all_results(p, compiled_backend)
    for threads in (2, 3, 7):
        bptt.set_num_threads(threads)
        assert_same_bits(all_results(p, compiled_backend), expected, f"{threads} threads, {p}")


def test_same_bits_from_every_run(cell: str, compiled_backend: str) -> None:
    p = make_problem(cell, *SHAPES[0], dtype="float32")
    expected = all_results(p, compiled_backend)
    for _ in range(5):
        assert_same_bits(all_results(p, compiled_backend), expected, f"{p}")


@pytest.mark.parametrize(
    "shape", [(9, 33, 20, 129, 3), (17, 8, 3, 17, 3), (5, 129, 9, 8, 3), (7, 17, 1, 1, 1)]
)
def test_same_bits_for_a_row_alone_or_in_any_batch(
    shape: tuple[int, ...], cell: str, dtype: str, compiled_backend: str
) -> None:
    """y, dx and dstate are a row's own; weight gradients are sums over the batch."""
    p = make_problem(cell, *shape, dtype=dtype)
    whole = p.forward_backward(compiled_backend)
    for n in (0, 1, shape[1] // 2, shape[1] - 1):
        alone = p.row(n).forward_backward(compiled_backend)
        for name in ("y", "dx"):
            assert np.array_equal(alone[name][:, 0], whole[name][:, n]), f"{name} of {p.row(n)}"
        for name in ("last", "dstate"):
            assert np.array_equal(alone[name][0], whole[name][n]), f"{name} of {p.row(n)}"


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_from_several_threads_give_the_serial_results(
    threads: int, cell: str, backend: str, keep_num_threads: None
) -> None:
    bptt.set_num_threads(threads)
    shapes = [(20, 33, 20, 65, 9), (5, 3, 2, 7, 3), (30, 1, 17, 129, 4), (9, 9, 9, 9, 9)]
    problems = [
        make_problem(cell, *shape, dtype="float32", seed=n) for n, shape in enumerate(shapes)
    ]
    expected = [all_results(p, backend) for p in problems]
    jobs = [n % len(problems) for n in range(24)]
    with ThreadPoolExecutor(max_workers=6) as pool:
        found = list(pool.map(lambda n: all_results(problems[n], backend), jobs))
    for n, results in zip(jobs, found, strict=True):
        assert_same_bits(results, expected[n], f"{problems[n]}")


def test_a_tape_may_be_played_back_by_several_threads(cell: str, backend: str) -> None:
    p = make_problem(cell, 20, 9, 5, 33)
    tape = bptt.forward(cell, p.params, p.x, p.state, backend=backend)
    expected = tape.backward(p.dy)
    with ThreadPoolExecutor(max_workers=4) as pool:
        for grads in pool.map(lambda _: tape.backward(p.dy), range(12)):
            np.testing.assert_array_equal(grads.x, expected.x)
            np.testing.assert_array_equal(grads.w_hh, expected.w_hh)


def test_set_num_threads_sets_what_get_num_threads_gives(keep_num_threads: None) -> None:
    for n in (1, 3, np.int64(2)):
        bptt.set_num_threads(n)
        assert bptt.get_num_threads() == n
        assert bptt.info().threads == n


@pytest.mark.parametrize(
    ("n", "error", "words"),
    [
        (0, ValueError, r"expected an integer of at least 1, got 0"),
        (-2, ValueError, r"expected an integer of at least 1, got -2"),
        (2**40, ValueError, r"expected an integer of at most 1024, got 1099511627776"),
        (1.5, TypeError, r"expected an integer, got float"),
        ("2", TypeError, r"expected an integer, got str"),
        (True, TypeError, r"expected an integer, got bool"),
        (None, TypeError, r"expected an integer, got NoneType"),
    ],
)
def test_a_number_of_threads_that_is_none_is_refused(
    n: object, error: type[Exception], words: str
) -> None:
    before = bptt.get_num_threads()
    with pytest.raises(error, match=f"^n: {words}"):
        bptt.set_num_threads(n)
    assert bptt.get_num_threads() == before


def test_more_threads_than_work_or_processors_are_harmless(
    cell: str, backend: str, keep_num_threads: None
) -> None:
    p = make_problem(cell, 20, 9, 20, 129, dtype="float32")
    bptt.set_num_threads(1)
    expected = all_results(p, backend)
    bptt.set_num_threads(20)
    assert_same_bits(all_results(p, backend), expected, f"20 threads, {p}")


def threads_with(value: str | None, warns: bool = False) -> str:
    """What a fresh process with OMP_NUM_THREADS prints, and whether it warns of the value."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    if value is not None:
        environment["OMP_NUM_THREADS"] = value
    program = "import bptt; print(bptt.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    told = f"OMP_NUM_THREADS: expected a positive integer, got {(value or '')[:40]!r}: as if"
    assert done.stderr.count(told) == warns, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", "1"), ("3", "3"), ("3,2", "3"), (" 3 ", "3"), (" 3 , 2", "3"), ("5000", "1024")],
)
def test_omp_num_threads_is_honoured(value: str, expected: str) -> None:
    assert threads_with(value) == expected


@pytest.mark.parametrize("value", ["", "0", "-2", "many", ",2", "2.5", "9" * 5000])
def test_what_is_no_number_of_threads_in_omp_num_threads_is_as_good_as_none(value: str) -> None:
    assert threads_with(value, warns=value != "") == threads_with(None)


def test_threadpoolctl_limits_hold(keep_num_threads: None, core: object) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    bptt.set_num_threads(3)
    assert {"bptt"} <= {library["user_api"] for library in threadpoolctl.threadpool_info()}
    with threadpoolctl.threadpool_limits(1):
        assert bptt.get_num_threads() == 1
    assert bptt.get_num_threads() == 3
    with threadpoolctl.threadpool_limits({"bptt": 2}):
        assert bptt.get_num_threads() == 2
    assert bptt.get_num_threads() == 3


@pytest.mark.parametrize("first", ["import bptt", "import threadpoolctl"])
@pytest.mark.parametrize("asked", ["", "import importlib.util as u; u.find_spec('threadpoolctl')"])
def test_threadpoolctl_limits_hold_whichever_is_imported_first(
    first: str, asked: str, core: object
) -> None:
    """And with no call of bptt between the imports and the limit."""
    code = f"""
{first}
import bptt
{asked}
import inspect, threadpoolctl
before = bptt.get_num_threads()
with threadpoolctl.threadpool_limits(1):
    print(bptt.get_num_threads())
print(bptt.get_num_threads() == before, "def register" in inspect.getsource(threadpoolctl))
"""
    pytest.importorskip("threadpoolctl")
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "True", "True"]


def test_a_threadpoolctl_without_registration_is_imported_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "threadpoolctl.py").write_text("__version__ = '3.1.0'")
    code = (
        "import bptt, threadpoolctl; print(threadpoolctl.__version__, bptt.get_num_threads() > 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3.1.0", "True"]


def test_idle_threads_use_no_cpu(keep_num_threads: None, core: object) -> None:
    """Workers stay awake for 300 us, and then sleep."""
    bptt.set_num_threads(4)
    p = make_problem("tanh", *SHAPES[0], dtype="float32")
    p.forward_backward("native")
    used = min(cpu_seconds_of_a_pause(0.2) for _ in range(3))
    assert used < 0.02


def cpu_seconds_of_a_pause(seconds: float) -> float:
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before


@pytest.mark.parametrize(("limit", "expected"), [(0, 1), (5000, 1024)])
def test_a_limit_of_threadpoolctl_that_is_none_of_ours_becomes_the_nearest(
    limit: int, expected: int, keep_num_threads: None, core: object
) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(limit, user_api="bptt"):
        assert bptt.get_num_threads() == expected


def test_threadpoolctl_is_left_as_it_is_without_bptt() -> None:
    pytest.importorskip("threadpoolctl")
    program = """
import bptt, copy, pickle, sys, threadpoolctl
loader = threadpoolctl.__spec__.loader
copy.copy(loader), copy.deepcopy(loader), pickle.dumps(loader)
assert threadpoolctl.__loader__ is loader
named = [type(part).__module__ for part in (loader, *sys.meta_path)]
assert not any(name.startswith("bptt") for name in named), named
"""
    subprocess.run([sys.executable, "-c", program], check=True)
