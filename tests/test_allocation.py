"""A step of a training loop that reuses its arrays allocates nothing large, in Python or C++.

tracemalloc sees what NumPy allocates. For what kernels allocate, a small library is built here and
loaded in front of the C library (LD_PRELOAD): it counts large allocations between two marks.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import bptt
import numpy as np
import pytest

LARGE = 1 << 16
T, B, I, H, O = 128, 32, 64, 128, 10  # noqa: E741
WARM_UP, STEPS = 3, 5

COUNTER = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_long counted, least = -1; /* -1: nothing is counted */

void count_from(long bytes) { atomic_store(&counted, 0), atomic_store(&least, bytes); }
long count_until(void) { return atomic_store(&least, -1), atomic_load(&counted); }
static void count(size_t bytes) {
  const long from = atomic_load(&least);
  if (from >= 0 && bytes > (size_t)from) atomic_fetch_add(&counted, 1);
}

void *malloc(size_t n) { return count(n), __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return count(n * size), __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return count(n), __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { return count(n), __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { return count(n), __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
  return count(n), (*p = __libc_memalign(a, n)) || !n ? 0 : ENOMEM;
}
void *mmap(void *p, size_t n, int protection, int flags, int file, off_t offset) {
  return count(n), (void *)syscall(SYS_mmap, p, n, protection, flags, file, offset);
}
"""


def make_step(call: str) -> Callable[[], object]:
    """One step of a training loop, with arrays that are made here once."""
    rng = np.random.default_rng(0)
    params = bptt.init_params("tanh", input_size=I, hidden_size=H, output_size=O, rng=rng)
    x, dy = (rng.standard_normal((T, B, n), dtype=np.float32) for n in (I, H))
    ids, grads = np.arange(B) % O, bptt.Grads.zeros(params, T, B)
    tape = bptt.forward("tanh", params, x, backend="native")

    def forward_and_backward() -> None:
        bptt.forward("tanh", params, x, tape.state, backend="native", out=tape)
        tape.backward(dy, out=grads)
        tape.backward(dy, out=grads, accumulate=True)

    def value_and_grad() -> None:
        for accumulate in (False, True):
            bptt.value_and_grad(
                "tanh",
                params,
                x,
                ids,
                loss="cross_entropy",
                at="last",
                backend="native",
                out=grads,
                accumulate=accumulate,
            )

    return {"forward_and_backward": forward_and_backward, "value_and_grad": value_and_grad}[call]


CALLS = pytest.mark.parametrize("call", ["forward_and_backward", "value_and_grad"])


@CALLS
def test_a_step_allocates_nothing_large_in_python(call: str, core: object) -> None:
    step = make_step(call)
    tracemalloc.start()
    try:
        peaks = []
        for action in (*[step] * (WARM_UP + 1), lambda: np.empty(1 << 20, np.uint8)):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            action()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert peaks[-1] >= 1 << 20, "what is measured does not see a fresh array"
    assert peaks[-2] <= LARGE


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that counts, built by the C compiler of this machine."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc"))), None)
    if compiler is None:
        pytest.skip("no C compiler")
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("counts allocations of glibc, which is not the C library here")
    if os.environ.get("LD_PRELOAD"):
        pytest.skip("another library is loaded in front of the C library")
    folder = tmp_path_factory.mktemp("counter")
    (folder / "counter.c").write_text(COUNTER, encoding="utf-8")
    command = [compiler, "-O1", "-fno-builtin", "-shared", "-fPIC", "counter.c", "-o", "counter.so"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "counter.so"


@CALLS
def test_a_step_allocates_nothing_large_anywhere(call: str, counter: Path, core: object) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(counter), "PYTHONMALLOC": "malloc"}
    paths = [str(Path(bptt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run(
        [sys.executable, __file__, call], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    steps, cold, fresh = map(int, done.stdout.split())
    assert fresh == 1, "the counter does not see a fresh array"
    assert cold > 0, "the counter does not see the kernels' scratch memory, new at a first call"
    assert steps == 0


def count_large(action: Callable[[], object]) -> int:
    """Large allocations of `action`, by the library that was preloaded."""
    import ctypes

    library = ctypes.CDLL(None)
    library.count_until.restype = ctypes.c_long
    library.count_from(ctypes.c_long(LARGE))
    action()
    return int(library.count_until())


def main(call: str) -> None:
    step = make_step(call)
    cold = count_large(step)
    for _ in range(WARM_UP):
        step()
    steps = count_large(lambda: [step() for _ in range(STEPS)])
    print(steps, cold, count_large(lambda: np.empty(1 << 20, np.uint8)))


if __name__ == "__main__":
    main(*sys.argv[1:])
