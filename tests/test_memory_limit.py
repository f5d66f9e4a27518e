"""What does not fit the memory is refused before anything is touched."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import bptt
import numpy as np
import pytest

PARAMS = bptt.init_params("tanh", input_size=100, hidden_size=8, output_size=4, rng=0)
# Terabytes by their shape, four bytes in fact.
X = np.broadcast_to(np.float32(0), (10**7, 1000, 100))
IDS = np.broadcast_to(np.int64(0), (10**7, 1000))


def many_rows(params: bptt.Params, backend: str) -> object:
    """No steps, but a state for each of a trillion rows."""
    return bptt.forward("tanh", params, np.zeros((0, 10**12, 100), np.float32), backend=backend)


CALLS: dict[str, Callable] = {
    "forward": lambda p, backend: bptt.forward("tanh", p, X, backend=backend),
    "forward without steps": many_rows,
    "value_and_grad": lambda p, backend: bptt.value_and_grad(
        "tanh", p, X, IDS[0], loss="cross_entropy", at="last", backend=backend
    ),
    "predict": lambda p, backend: bptt.predict("tanh", p, X, backend=backend),
    "a target": lambda p, backend: bptt.value_and_grad(
        "tanh",
        p,
        np.zeros((1, 2, 100), np.float32),
        np.broadcast_to(np.float32(0), (2, 10**12)),
        loss="squared_error",
        at="last",
        backend=backend,
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_too_large_for_memory_is_refused_before_anything_is_touched(
    call: str, backend: str
) -> None:
    params = PARAMS
    if call == "a target":
        readout = np.broadcast_to(np.float32(0), (10**12, 8))
        params = bptt.Params(PARAMS.w_ih, PARAMS.w_hh, w_ho=readout)
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError, match=r"needs [\d.]+ GiB, but [\d.]+ GiB are available"):
            CALLS[call](params, backend)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000


def test_parameters_too_large_for_memory_are_not_drawn() -> None:
    with pytest.raises(MemoryError, match=r"parameters needs [\d.]+ GiB, but"):
        bptt.init_params("tanh", input_size=1, hidden_size=10**7)
    with pytest.raises(MemoryError, match=r"parameters needs [\d.]+ GiB, but"):
        bptt.init_params("tanh", input_size=10**30, hidden_size=1)


def test_a_view_that_fits_is_copied_and_read(backend: str) -> None:
    x = np.broadcast_to(np.float32(0.5), (7, 3, 100))
    tape = bptt.forward("tanh", PARAMS, x, backend=backend)
    copied = bptt.forward("tanh", PARAMS, np.full((7, 3, 100), np.float32(0.5)), backend=backend)
    np.testing.assert_array_equal(tape.y, copied.y)


@pytest.mark.parametrize("save", ["gates", "minimal"])
def test_forward_mode_asks_for_what_it_takes(save: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = bptt.init_params("lstm", input_size=4, hidden_size=64, rng=0)
    x = np.zeros((200, 16, 4), np.float32)
    tape = bptt.forward("lstm", params, x, save=save)
    asked = []
    monkeypatch.setattr("bptt.checks.require_memory", lambda nbytes, what: asked.append(nbytes))
    tape.jvp(dx=x)
    tracemalloc.start()
    tape.jvp(dx=x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < max(asked) < 2.5 * peak
