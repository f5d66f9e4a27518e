"""Thousands of calls leave the memory where a few hundred left it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bptt
import numpy as np
import pytest
from problems import Problem, make_problem

STATM = Path("/proc/self/statm")
PAGE = 4096

# The smallest array of the problem below, b_o, is an object of 112 bytes and its data of 8; a
# kernel's scratch buffer is at least 64 bytes. Leaked at each of 700 traced calls the one is
# 84 kB, and at each of 4,000 others the other is 256 kB; Python's own tables come and go by 35 kB.
TRACED_CALLS = 700
CALLS = 4_000
WARM_UP = 200
ALLOWED_TRACED = 60_000
ALLOWED_RESIDENT = 200_000


def resident() -> int:
    return int(STATM.read_text().split()[1]) * PAGE


def forward_backward(p: Problem, backend: str) -> None:
    p.forward_backward(backend)


def value_and_grad(p: Problem, backend: str) -> None:
    p.value_and_grad(backend, "cross_entropy", "all")


def steps(p: Problem, backend: str) -> None:
    """A stepper made anew, and steps, a block and a reset of it."""
    stepper = bptt.Stepper(p.cell, p.params, p.x.shape[1], state=p.state, backend=backend)
    stepper(p.x[0])
    stepper(p.x, out=np.empty_like(p.dy))
    stepper.reset([0], stepper.state[:1])


def refused(p: Problem, backend: str) -> None:
    """Calls that end in an error, before the kernel and after the forward pass."""
    with pytest.raises(ValueError, match="loss:"):
        p.value_and_grad(backend, "mse", "all")
    with pytest.raises(ValueError, match="expected at least one"):
        p.forward_backward(backend, dy=False, dstate=False)


@pytest.mark.slow
@pytest.mark.parametrize("call", [forward_backward, value_and_grad, steps, refused])
def test_calls_leave_no_array_behind(call: Callable, backend: str) -> None:
    p = make_problem("tanh", 3, 2, 2, 5, 1)
    tracemalloc.start()
    try:
        for _ in range(WARM_UP):
            call(p, backend)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(TRACED_CALLS):
            call(p, backend)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < ALLOWED_TRACED, f"{(after - before) / TRACED_CALLS:.0f} bytes a call"


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="no /proc on this system")
@pytest.mark.parametrize("call", [forward_backward, value_and_grad, steps])
def test_calls_leave_the_process_as_large_as_it_was(call: Callable, compiled_backend: str) -> None:
    """What kernels allocate by themselves is not seen by tracemalloc."""
    # Sizes that make every scratch buffer larger than the margin, if leaked.
    p = make_problem("tanh", 9, 3, 17, 33, 5)
    for _ in range(WARM_UP):
        call(p, compiled_backend)
    gc.collect()
    before = resident()
    for _ in range(CALLS):
        call(p, compiled_backend)
    gc.collect()
    growth = resident() - before
    assert growth < ALLOWED_RESIDENT, f"{growth} bytes in {CALLS} calls"


@pytest.mark.skipif(not STATM.exists(), reason="no /proc on this system")
def test_a_thread_that_ends_takes_its_memory_with_it(compiled_backend: str) -> None:
    """Kernels may keep scratch memory for their thread's next call, and grow it call by call."""
    problems = [make_problem("tanh", 9, 3, 17, hidden, 5) for hidden in (8, 33, 100)]

    def calls_of_a_fresh_thread() -> None:
        with ThreadPoolExecutor(max_workers=1) as pool:
            for p in problems:
                pool.submit(value_and_grad, p, compiled_backend).result()

    for _ in range(50):
        calls_of_a_fresh_thread()
    gc.collect()
    before = resident()
    for _ in range(300):
        calls_of_a_fresh_thread()
    gc.collect()
    growth = resident() - before
    # The scratch of these calls is more than 100 kB: 30 MB in all. Threads alone let a process
    # breathe by less than one.
    assert growth < 5_000_000, f"{growth / 300:.0f} bytes a thread"
