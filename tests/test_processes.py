"""Forks, signals and the end of the process: kernels that hold threads live with all of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import bptt
import numpy as np
import pytest
from conftest import BACKENDS
from problems import make_problem

TIMEOUT = 60  # seconds, on a busy machine

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_native = pytest.mark.skipif("native" not in BACKENDS, reason="native backend not built")


def run_in_fork(work: object) -> int:
    """Exit status of a forked child: 0 if `work` returned true; 99 if it had to be killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 99


@needs_fork
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_after_use_computes_the_same(
    threads: int, backend: str, keep_num_threads: None
) -> None:
    """The child has none of its parent's threads, and must not wait for them."""
    bptt.set_num_threads(threads)
    p = make_problem("tanh", 20, 33, 20, 129, 9, dtype="float32")
    expected = p.value_and_grad(backend, "squared_error", "all")

    def work() -> bool:
        found = p.value_and_grad(backend, "squared_error", "all")
        return all(np.array_equal(found[name], expected[name]) for name in expected)

    assert run_in_fork(work) == 0
    assert work(), "the parent, after the fork"
    assert run_in_fork(lambda: run_in_fork(work) == 0) == 0, "a fork of a fork"


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_processes_of_multiprocessing_compute_the_same(
    method: str, backend: str, keep_num_threads: None
) -> None:
    bptt.set_num_threads(2)
    p = make_problem("tanh", 20, 33, 20, 129, 9, dtype="float32")
    expected = p.value_and_grad(backend, "squared_error", "all")
    with multiprocessing.get_context(method).Pool(2) as pool:
        task = pool.starmap_async(p.value_and_grad, [(backend, "squared_error", "all")] * 4)
        for found in task.get(2 * TIMEOUT):
            assert all(np.array_equal(found[name], expected[name]) for name in expected)


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@needs_native
@pytest.mark.parametrize("call", ["forward", "backward", "value_and_grad"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_control_c_ends_a_long_native_call(call: str, threads: str) -> None:
    # Each call would take many seconds: 20,000 steps through 2048 x 2048 weights.
    program = """
        import os, signal, sys, threading, time
        import numpy as np
        import bptt

        call, threads = sys.argv[1:]
        bptt.set_num_threads(int(threads))
        params = bptt.init_params("tanh", input_size=1, hidden_size=2048, output_size=1, rng=0)
        x = np.zeros((20_000, 1, 1), np.float32)
        sent = []

        def interrupt():
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        if call == "backward":
            # The tape of a forward pass that was cut short serves as well as any.
            from dataclasses import replace
            from bptt.backends.protocol import Record
            from bptt.row_map import dense_rows
            from bptt.tape import Tape
            short = bptt.forward("tanh", params, x[:1], backend="native")
            history = (np.zeros((20_000, 1, 2048), np.float32),)
            record = Record(history, (np.zeros((1, 2048), "f4"),))
            layer, rows = replace(short._layer, x=x), dense_rows(20_000, 1)
            tape = Tape(short._backend, "gates", layer, record, rows)
        calls = {
            "forward": lambda: bptt.forward("tanh", params, x, backend="native"),
            "backward": lambda: tape.backward(None, np.ones((1, 2048), np.float32)),
            "value_and_grad": lambda: bptt.value_and_grad(
                "tanh", params, x, np.zeros((1, 1), np.float32),
                loss="squared_error", at="last", backend="native",
            ),
        }
        timer = threading.Timer(0.3, interrupt)
        timer.start()
        try:
            calls[call]()
        except KeyboardInterrupt:
            took = time.monotonic() - sent[0]
            print("interrupted after", took)
            # The process goes on as if nothing had happened.
            bptt.forward("tanh", params, x[:2], backend="native").backward(
                np.ones((2, 1, 2048), np.float32)
            )
            sys.exit(0 if took < 1 else 3)
        sys.exit(4)
    """
    done = run_program(program, call, threads)
    assert done.returncode == 0, f"exit {done.returncode} (3: too late, 4: never) {done.stderr}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_process_ends_in_the_midst_of_calls(backend: str) -> None:
    """Threads of the kernels must not keep it alive, nor crash while it ends."""
    program = """
        import sys, threading
        import numpy as np
        import bptt

        bptt.set_num_threads(2)
        params = bptt.init_params("tanh", input_size=20, hidden_size=128, rng=0)
        x = np.ones((50, 32, 20), np.float32)

        def run():
            while True:
                bptt.forward("tanh", params, x, backend=sys.argv[1])

        bptt.forward("tanh", params, x, backend=sys.argv[1])
        threading.Thread(target=run, daemon=True).start()
        bptt.forward("tanh", params, x, backend=sys.argv[1])
        print("done")
    """
    done = run_program(program, backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert done.stderr == ""


@needs_native
def test_a_signal_handler_may_call_in_the_midst_of_a_call() -> None:
    """A checkpoint on a signal runs inside the kernel's poll for Ctrl-C, on the same thread."""
    program = """
        import signal, sys
        import numpy as np
        import bptt

        params = bptt.init_params("tanh", input_size=64, hidden_size=256, output_size=5, rng=0)
        x = np.random.default_rng(0).standard_normal((3000, 16, 64)).astype("float32")

        def run(steps):
            tape = bptt.forward("tanh", params, x[:steps], backend="native")
            return tape.backward(dy=tape.y).w_hh

        alone, small = run(3000), run(40)
        seen = []

        def handler(signum, frame):
            seen.append(run(40))

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.06)
        interrupted = [run(3000) for _ in range(3)]
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert seen, "no signal came in time"
        assert all(np.array_equal(w, alone) for w in interrupted), "the call was disturbed"
        assert all(np.array_equal(w, small) for w in seen), "the nested call was disturbed"
    """
    done = run_program(program)
    assert done.returncode == 0, done.stderr
