"""Calls run on the workers of PyTorch's OpenMP runtime, with the same bits, and live with forks."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bptt
import copies
import numpy as np
import pytest
from bptt import compiled
from c_library import shared_library
from conftest import BACKENDS

torch = pytest.importorskip("torch")
import bptt.torch  # noqa: E402
from bptt.torch import direct  # noqa: E402
from bptt.torch.workers import openmp_functions, share_workers  # noqa: E402

needs_openmp = pytest.mark.skipif(
    "native" not in BACKENDS or not share_workers(),
    reason="needs the native backend, and PyTorch with OpenMP",
)


@pytest.fixture
def regions() -> Iterator[list[int]]:
    """The threads of each region of PyTorch's runtime that a call of `bptt` opens."""
    runtime = openmp_functions()
    assert runtime is not None
    parallel, *others = runtime
    found = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    def counted(job: int, context: int, threads: int, flags: int) -> None:
        found.append(threads)
        parallel(ctypes.c_void_p(job), ctypes.c_void_p(context), threads, flags)

    addresses = (ctypes.cast(f, ctypes.c_void_p).value for f in (counted, *others))
    compiled.core.share_workers(*addresses)
    yield found
    share_workers()


@needs_openmp
def test_calls_are_regions_of_the_runtime_of_pytorch(
    regions: list[int], keep_num_threads: None
) -> None:
    bptt.set_num_threads(2)
    time.sleep(0.06)  # so that it is measured anew what it costs two threads to meet
    assert all(torch.equal(*pair) for pair in zip(gradients(2), gradients(1), strict=True))
    assert regions
    assert min(regions) >= 2


@needs_openmp
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each copy has a team of its own")
def test_so_are_calls_of_the_library_for_c(regions: list[int], keep_num_threads: None) -> None:
    expected = copies.copy("python")()
    del regions[:]
    time.sleep(0.06)  # so that it is measured anew, which is a region, what it costs to meet
    try:
        library = shared_library(Path(bptt.get_library_dir()))
    except RuntimeError as error:
        pytest.skip(str(error))
    assert np.array_equal(copies.copy(str(library))(), expected)
    assert regions
    assert min(regions) >= 2


def gradients(threads: int) -> list[torch.Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        module = bptt.torch.LSTM(33, 129, bidirectional=True)
        y, _ = module(torch.randn(20, 33, 33))
        y.square().sum().backward()
        return [y.detach(), *(p.grad for p in module.parameters())]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int, keep_num_threads: None) -> None:
    bptt.set_num_threads(4)
    for one, other in zip(gradients(threads), gradients(1), strict=True):
        assert torch.equal(one, other)


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_workers_that_it_has_not(keep_num_threads: None) -> None:
    bptt.set_num_threads(2)
    params = bptt.init_params("gru", input_size=64, hidden_size=128, rng=0)
    x = np.ones((64, 32, 64), np.float32)
    y = bptt.forward("gru", params, x).y
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # instead of waiting for ever
        os._exit(int(not np.array_equal(bptt.forward("gru", params, x).y, y)))
    assert os.waitpid(child, 0)[1] == 0


@needs_openmp
@pytest.mark.parametrize(("theirs", "ours", "used"), [(1, 3, 1), (3, 2, 2), (2, 2, 2)])
def test_a_call_takes_as_many_threads_as_both_allow(
    theirs: int,
    ours: int,
    used: int,
    monkeypatch: pytest.MonkeyPatch,
    keep_num_threads: None,
) -> None:
    of_torch, seen = torch.get_num_threads(), []

    count = direct.num_threads

    def noted() -> int:
        seen.append(count())
        return seen[-1]

    monkeypatch.setattr(direct, "num_threads", noted)
    try:
        bptt.set_num_threads(ours)
        torch.set_num_threads(theirs)
        y, _ = bptt.torch.GRU(3, 4)(torch.randn(5, 2, 3))
        y.square().sum().backward()
        assert seen == [used, used]
        assert bptt.get_num_threads() == ours  # outside of such calls
    finally:
        torch.set_num_threads(of_torch)
