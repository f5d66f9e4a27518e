"""Calls run on the workers of PyTorch's OpenMP runtime, with the same bits, and live with forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import bptt
import numpy as np
import pytest
from conftest import BACKENDS

torch = pytest.importorskip("torch")
import bptt.torch  # noqa: E402
from bptt.torch.workers import share_workers  # noqa: E402

needs_openmp = pytest.mark.skipif(
    "native" not in BACKENDS or not share_workers(),
    reason="needs the native backend, and PyTorch with OpenMP",
)

# Prints by how much CPU time of the team's own workers, which Python did not start, has grown.
CALLS = """
import glob, os, sys
import bptt, numpy as np, torch
import bptt.torch
from bptt import compiled

def cpu_times():
    found = {}
    for path in glob.glob("/proc/self/task/*/schedstat"):
        found[path] = int(open(path).read().split()[0])
    return found

if sys.argv[1] == "own":
    compiled.core.share_workers(0, 0, 0, 0)
torch.set_num_threads(2)
module = bptt.torch.GRU(64, 128)
x = torch.ones(128, 32, 64)
torch.ones(512, 512) @ torch.ones(512, 512)  # PyTorch starts its worker
of_torch = set(cpu_times())
module(x)  # the team starts its own
before = cpu_times()
for _ in range(5):
    module(x)
after = cpu_times()
print(sum(t - before[path] for path, t in after.items() if path not in of_torch) * 1e-9)
"""


@needs_openmp
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_own_workers_sleep_where_those_of_pytorch_are_used() -> None:
    def seconds(whose: str) -> float:
        return float(subprocess.check_output([sys.executable, "-c", CALLS, whose], timeout=120))

    assert seconds("shared") < 0.001
    assert seconds("own") > 0.001


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
