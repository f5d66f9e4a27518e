"""A process has one team of threads, however many copies of the engine are in it.

The copies are those of `bptt._core` and of the library for C, and the libraries at the paths of
BPTT_TEST_COPIES, which .ci/installed-library makes of the static one. Those of
BPTT_TEST_OTHER_COPIES are of another version, whose team is another.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import bptt
import pytest
from c_library import shared_library
from conftest import BACKENDS

try:
    LIBRARY = str(shared_library(Path(bptt.get_library_dir())))
except RuntimeError as error:
    pytest.skip(str(error), allow_module_level=True)


def paths(variable: str) -> list[str]:
    return [path for path in os.environ.get(variable, "").split(os.pathsep) if path]


COPIES = ["python", LIBRARY, *paths("BPTT_TEST_COPIES")]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or "native" not in BACKENDS,
    reason="elsewhere than on Linux each copy has a team of its own",
)


def run(program: str, *names: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "BPTT_ISA"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "OPENBLAS_NUM_THREADS": "1"}
    program = "import sys, copies, numpy as np\n" + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "order", [COPIES[n:] + COPIES[:n] for n in range(len(COPIES))], ids=lambda o: Path(o[0]).stem
)
@pytest.mark.parametrize("called", ["as loaded", "from the last"])
def test_all_copies_call_the_same_threads(order: list[str], called: str) -> None:
    program = """
        *names, called = sys.argv[1:]
        calls = [copies.copy(name) for name in names]
        before = copies.tasks()
        found = [call() for call in calls[:: 1 if called == "as loaded" else -1]]
        assert all(np.array_equal(y, found[0]) for y in found)
        copies.assert_added(copies.WORKERS, before)
    """
    run(program, *order, called)


def test_calls_of_two_copies_at_once_have_the_bits_of_one_alone() -> None:
    program = """
        import threading

        calls = [copies.copy(name) for name in sys.argv[1:]]
        before = copies.tasks()
        alone = calls[0]()
        barrier, differ = threading.Barrier(len(calls)), []

        def repeat(call):
            barrier.wait()
            differ.extend(n for n in range(100) if not np.array_equal(call(), alone))

        threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not differ
        copies.assert_added(copies.WORKERS, before)
    """
    run(program, *COPIES)


def test_a_call_in_the_midst_of_a_call_of_another_copy_runs_alone() -> None:
    program = """
        import ctypes

        inner, outer = map(copies.copy, sys.argv[1:])
        alone, long_alone = inner(), outer(copies.LONG_X)
        within = []

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
        def interrupt(_):
            within.append(inner())
            return 0

        assert np.array_equal(outer(copies.LONG_X, interrupt), long_alone)
        assert within, "the call was too short to be asked for"
        assert all(np.array_equal(y, alone) for y in within)
    """
    run(program, "python", LIBRARY)


def test_the_copy_whose_threads_they_are_may_be_closed() -> None:
    program = """
        import _ctypes, threading, c_library

        of_python = copies.copy("python")  # loaded first, but called last
        library = c_library.loaded(sys.argv[1])
        before, found = copies.tasks(), []
        # A thread that calls keeps what it called loaded until it ends.
        caller = threading.Thread(target=lambda: found.append(copies.of_library(library)))
        caller.start()
        caller.join()
        _ctypes.dlclose(library._handle)
        assert np.array_equal(of_python(), *found)
        copies.assert_added(copies.WORKERS, before)
    """
    run(program, LIBRARY)


@pytest.mark.parametrize("first", [0, 1])
def test_a_forked_child_has_one_team_of_its_own(first: int) -> None:
    program = """
        import os, signal

        calls = [copies.copy(name) for name in sys.argv[1:]]
        y = calls[0]()
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # instead of waiting for ever
            same = all(np.array_equal(call(), y) for call in calls)
            os._exit(0 if same and copies.tasks() == copies.THREADS else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert all(np.array_equal(call(), y) for call in calls)
    """
    run(program, *(COPIES if first == 0 else COPIES[::-1]))


@pytest.mark.skipif(not paths("BPTT_TEST_OTHER_COPIES"), reason="BPTT_TEST_OTHER_COPIES has none")
def test_a_copy_of_another_version_stays_apart() -> None:
    program = """
        calls = [copies.copy(name) for name in sys.argv[1:]]
        before = copies.tasks()
        assert np.array_equal(*(call() for call in calls))
        copies.assert_added(2 * copies.WORKERS, before)
    """
    run(program, LIBRARY, *paths("BPTT_TEST_OTHER_COPIES"))
