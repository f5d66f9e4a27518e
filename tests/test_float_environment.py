"""What flags the caller's thread has changes neither bits nor flags: a call has its own.

A small library is built here, which does to a thread what any library linked with -ffast-math does
when it is loaded, and tells what the thread has.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import bptt
import numpy as np
import pytest
from bptt.subnormals import get_flush_subnormals
from conftest import BACKENDS

T, B, I, H, O = 300, 12, 3, 64, 2  # noqa: E741
BUILT_IN = [name for name, kind in bptt.CELLS.items() if kind.step is None]
# What has an environment of its own, and which flags of the caller then do not matter. NumPy adds
# up the losses of Numba's kernels, and rounds as the caller does.
FLAGS = {"native": ("flush", "upward")}
if platform.machine() in ("x86_64", "AMD64"):
    FLAGS["numba"] = ("flush",)

LIBRARY = r"""
#include <fenv.h>

#if defined(__x86_64__)
#include <immintrin.h>
enum { FLUSH = 0x8040, FLAGS = 0x3f };
static unsigned long get(void) { return _mm_getcsr(); }
static void set(unsigned long control) { _mm_setcsr((unsigned)control); }
#elif defined(__aarch64__)
enum { FLUSH = 1 << 24, FLAGS = 0 };
static unsigned long get(void) {
  unsigned long control;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  return control;
}
static void set(unsigned long control) { __asm__ volatile("msr fpcr, %0" : : "r"(control)); }
#endif

unsigned long control(void) { return get() & ~(unsigned long)FLAGS; }
// fesetround also turns the unit of long double, which `control` does not hold.
void restore(unsigned long control) { fesetround(FE_TONEAREST); set(control); }
void flush(void) { set(get() | FLUSH); }
void upward(void) { fesetround(FE_UPWARD); }
__attribute__((constructor)) static void loaded(void) { flush(); }
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, in a file that was not loaded yet."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build the library that sets flags")
    folder = tmp_path_factory.mktemp("flags")
    (folder / "flags.c").write_text(LIBRARY)
    target = folder / "flags.so"
    options = ["-O1", "-frounding-math", "-shared", "-fPIC", "-o", str(target)]
    subprocess.run([compiler, *options, str(folder / "flags.c"), "-lm"], check=True)
    return target


@pytest.fixture
def library(built: Path) -> Iterator[ctypes.CDLL]:
    """The library; the thread has its own flags back afterwards."""
    loaded: list[ctypes.CDLL] = []
    # Another thread loads it, so that this one has its flags still.
    loader = threading.Thread(target=lambda: loaded.append(ctypes.CDLL(str(built))))
    loader.start()
    loader.join()
    (library,) = loaded
    library.control.restype = ctypes.c_ulong
    library.restore.argtypes = [ctypes.c_ulong]
    before = library.control()
    yield library
    library.restore(before)


@pytest.fixture
def keep_flush_subnormals() -> Iterator[None]:
    before = bptt.get_flush_subnormals()
    yield
    bptt.set_flush_subnormals(before)


@pytest.fixture(params=[name for name in FLAGS if name in BACKENDS])
def compiled_backend(request: pytest.FixtureRequest) -> str:
    return request.param


def fading(cell: str, dtype: str, backend: str) -> Callable[[], list[np.ndarray]]:
    """A call whose gradient is below the smallest normal number before the first step."""
    rate = {"float32": 0.6, "float64": 0.05}[dtype]
    params = bptt.init_params(
        cell, input_size=I, hidden_size=H, output_size=O, rng=0, dtype=dtype, spectral_radius=rate
    )
    if len(params.w_ih) > H:  # the gate on the way from state to state lets as much pass
        params.b_ih[H : 2 * H] = np.log(rate / (1 - rate))
        params.w_hh *= 0.05
    rng = np.random.default_rng(1)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    target = rng.standard_normal((B, O)).astype(dtype)

    def call() -> list[np.ndarray]:
        loss, grads = bptt.value_and_grad(
            cell,
            params,
            x,
            target,
            loss="squared_error",
            at="last",
            reduction="sum",  # Python divides in its own environment
            backend=backend,
        )
        return [np.array(loss), grads.x, *grads.arrays().values()]

    return call


def subnormals(arrays: list[np.ndarray]) -> int:
    """How many of the values are subnormal numbers."""
    return sum(np.sum((a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny)) for a in arrays)


def assert_same_bits(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("cell", BUILT_IN)
def test_bits_and_flags_do_not_depend_on_the_callers_flags(
    cell: str,
    dtype: str,
    compiled_backend: str,
    library: ctypes.CDLL,
    keep_num_threads: None,
) -> None:
    call = fading(cell, dtype, compiled_backend)
    bptt.set_num_threads(1)
    expected, before = call(), library.control()
    for set_flags in FLAGS[compiled_backend]:
        for threads in (1, 2, 3):
            bptt.set_num_threads(threads)
            getattr(library, set_flags)()
            flags = library.control()
            assert flags != before
            found, after = call(), library.control()
            library.restore(before)
            assert after == flags, f"flags {flags:#x} became {after:#x}"
            assert_same_bits(found, expected)


@pytest.mark.parametrize("cell", BUILT_IN)
def test_subnormals_are_kept_if_that_is_asked_for(
    cell: str,
    dtype: str,
    compiled_backend: str,
    keep_num_threads: None,
    keep_flush_subnormals: None,
) -> None:
    call = fading(cell, dtype, compiled_backend)
    assert subnormals(call()) == 0
    bptt.set_num_threads(1)
    bptt.set_flush_subnormals(False)
    expected = call()
    assert subnormals(expected) > 0
    for threads in (2, 3):  # threads that began to work when subnormals were flushed
        bptt.set_num_threads(threads)
        assert_same_bits(call(), expected)


def test_another_threads_library_changes_nothing(
    built: Path, compiled_backend: str, tmp_path: Path, keep_num_threads: None
) -> None:
    fresh = shutil.copy(built, tmp_path / "flags.so")  # loaded for the first time below
    call = fading("tanh", "float32", compiled_backend)
    bptt.set_num_threads(2)
    expected = call()
    found: list[list[np.ndarray]] = []

    def load_and_call() -> None:
        ctypes.CDLL(str(fresh))
        found.append(call())

    thread = threading.Thread(target=load_and_call)
    thread.start()
    thread.join()
    assert_same_bits(found[0], expected)
    assert_same_bits(call(), expected)


class HandlerError(Exception):
    """What the signal handler of a test raises."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
@pytest.mark.skipif("native" not in BACKENDS, reason=f"native backend {bptt.backends()['native']}")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_handler_runs_with_the_callers_flags_which_stay_after_its_error(
    threads: int, library: ctypes.CDLL, keep_num_threads: None
) -> None:
    bptt.set_num_threads(threads)
    params = bptt.init_params("tanh", input_size=1, hidden_size=1024, rng=0)
    x = np.zeros((50_000, 1, 1), np.float32)  # seconds of work
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(library.control())
        raise HandlerError

    before = signal.signal(signal.SIGALRM, handler)
    library.upward()
    flags = library.control()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(HandlerError):
            bptt.forward("tanh", params, x, backend="native")
        after = library.control()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen == [flags]
    assert after == flags


def test_the_gradient_by_lag_does_not_depend_on_the_callers_flags(
    library: ctypes.CDLL, dtype: str, keep_num_threads: None
) -> None:
    params = bptt.init_params("tanh", input_size=I, hidden_size=33, rng=0, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((40, 5, I)).astype(dtype)
    dy = np.ones((40, 5, 33), dtype)

    def norms() -> list[np.ndarray]:
        lags = bptt.lag_gradients("tanh", params, x, dy=dy)
        return [lags.norm["w_hh"], lags.error["w_hh"], lags.total["w_hh"]]

    expected = norms()
    library.flush()
    assert_same_bits(norms(), expected)


def test_torch_may_flush_or_not(compiled_backend: str, keep_num_threads: None) -> None:
    torch = pytest.importorskip("torch")
    call = fading("lstm", "float32", compiled_backend)
    expected = call()
    try:
        for flush in (True, False):
            if not torch.set_flush_denormal(flush):
                pytest.skip("PyTorch cannot set the flags of this CPU")
            for threads in (1, 2, 3):
                bptt.set_num_threads(threads)
                assert_same_bits(call(), expected)
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("flush", [1, None, "no"])
def test_what_is_no_bool_is_refused(flush: object) -> None:
    with pytest.raises(TypeError, match=r"^flush: expected True or False, got "):
        bptt.set_flush_subnormals(flush)
    assert bptt.get_flush_subnormals()


def test_a_truth_value_of_numpy_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bptt.subnormals._flush", True)
    bptt.set_flush_subnormals(np.bool_(False))
    assert get_flush_subnormals() is False
