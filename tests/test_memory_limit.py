"""What does not fit the memory is refused before anything is touched."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.backends.dense_runs import DenseRuns
from bptt.grads import EVERYTHING
from bptt.holdings import (
    backward_nbytes,
    forward_nbytes,
    is_small,
    moved_nbytes,
    prediction_nbytes,
    value_and_grad_nbytes,
)
from bptt.memory import ALWAYS_GRANTED
from bptt.row_map import dense_rows
from bptt.sequence_options import read_row_map
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
    "Stepper": lambda p, backend: bptt.Stepper("tanh", p, 10**12, backend=backend),
    "a block of steps": lambda p, backend: bptt.Stepper("tanh", p, 1000, backend=backend)(X),
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
    monkeypatch.setattr("bptt.memory.require_memory", lambda nbytes, what: asked.append(nbytes))
    tape.jvp(dx=x)
    tracemalloc.start()
    tape.jvp(dx=x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < max(asked) < 2.5 * peak


LSTM = bptt.init_params("lstm", input_size=8, hidden_size=32, output_size=16, rng=0)
SEQUENCES = np.zeros((100, 384, 8), np.float32)
TARGETS = np.zeros((100, 384), int)
LENGTHS = np.arange(384) % 50 + 51

# What makes a call ready, which is not measured.
PREPARED: dict[str, Callable] = {
    "backward": lambda backend: bptt.forward("lstm", LSTM, SEQUENCES, backend=backend),
    "backward, gates anew": lambda backend: bptt.forward(
        "lstm", LSTM, SEQUENCES, save="minimal", backend=backend
    ),
    "backward, several lengths": lambda backend: bptt.forward(
        "lstm", LSTM, SEQUENCES, lengths=LENGTHS, backend=backend
    ),
}
WITHIN: dict[str, Callable] = {
    "forward": lambda _, backend: bptt.forward("lstm", LSTM, SEQUENCES, backend=backend),
    "forward, minimal": lambda _, backend: bptt.forward(
        "lstm", LSTM, SEQUENCES, save="minimal", backend=backend
    ),
    "backward": lambda tape, backend: tape.backward(tape.y),
    "backward, gates anew": lambda tape, backend: tape.backward(tape.y),
    "value_and_grad": lambda _, backend: bptt.value_and_grad(
        "lstm", LSTM, SEQUENCES, TARGETS, loss="cross_entropy", at="all", backend=backend
    ),
    "truncated": lambda _, backend: bptt.value_and_grad(
        "lstm",
        LSTM,
        SEQUENCES,
        TARGETS,
        loss="cross_entropy",
        at="all",
        truncate=1,
        backend=backend,
    ),
    "predict": lambda _, backend: bptt.predict("lstm", LSTM, SEQUENCES, backend=backend),
    "lag_gradients": lambda _, backend: bptt.lag_gradients(
        "lstm", LSTM, SEQUENCES, TARGETS[0], loss="cross_entropy", at="last", backend=backend
    ),
    "jacobian_norms": lambda _, backend: bptt.jacobian_norms(
        "lstm", LSTM, SEQUENCES, distances=[100], iterations=2, tolerance=1e9, backend=backend
    ),
    "forward, several lengths": lambda _, backend: (
        bptt.forward("lstm", LSTM, SEQUENCES, lengths=LENGTHS, backend=backend).y
    ),
    "backward, several lengths": lambda tape, backend: tape.backward(tape.y),
    "value_and_grad, several lengths": lambda _, backend: bptt.value_and_grad(
        "lstm",
        LSTM,
        SEQUENCES,
        TARGETS,
        loss="cross_entropy",
        at="all",
        lengths=LENGTHS,
        backend=backend,
    ),
    "Grads.zeros": lambda _, backend: bptt.Grads.zeros(LSTM, 100, 384, cell="lstm"),
}


@pytest.mark.parametrize("call", WITHIN)
def test_a_call_asks_once_and_for_what_it_takes(
    call: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "bptt.memory.require_memory", lambda nbytes, what: asked.append((nbytes, what))
    )
    prepared = PREPARED.get(call, lambda _: None)(backend)
    WITHIN[call](prepared, backend)  # Numba compiles, and holds what it compiled
    asked.clear()
    tracemalloc.start()
    WITHIN[call](prepared, backend)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(asked) == 1, asked
    assert peak < asked[0][0] + (2 << 20)  # of objects, and of single steps of the reference


def sizes(most: int) -> st.SearchStrategy[int]:
    """From 1 on, each order of magnitude as likely as another."""
    return st.floats(0, np.log2(most)).map(lambda log: int(2**log))


def empty_params(cell: str, inputs: int, hidden: int, outputs: int) -> bptt.Params:
    """Of these sizes, and of no memory."""
    rows = bptt.CELLS[cell].gates * hidden
    shapes = {"w_ih": (rows, inputs), "w_hh": (rows, hidden), "b_ih": (rows,), "b_hh": (rows,)}
    shapes |= {"w_ho": (outputs, hidden), "b_o": (outputs,)}
    return bptt.Params(**{n: np.broadcast_to(np.float64(0), s) for n, s in shapes.items()})


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(sorted(bptt.CELLS)),
    steps=sizes(1 << 16),
    batch=sizes(1 << 16),
    inputs=sizes(1 << 12),
    hidden=sizes(1 << 11),
    outputs=sizes(1 << 12),
)
@example("tanh", 1, 1, 8, 8, 1)
def test_a_call_that_is_not_added_up_holds_no_more_than_is_always_granted(
    cell: str, steps: int, batch: int, inputs: int, hidden: int, outputs: int
) -> None:
    params, kind = empty_params(cell, inputs, hidden, outputs), bptt.CELLS[cell]
    if not is_small(kind, params, dense_rows(steps, batch)):
        return
    given = (kind, params, steps, batch)
    moved = moved_nbytes(
        params, read_row_map((batch, steps), batch_first=True), inputs=3, units=len(kind.states)
    )
    for backend in (*REGISTRY.values(), *map(DenseRuns, REGISTRY.values())):
        for save in ("gates", "minimal"):
            beside = backend.beside(kind, save)
            assert forward_nbytes(*given, save, beside) + moved <= ALWAYS_GRANTED
            assert prediction_nbytes(*given, steps, beside) + moved <= ALWAYS_GRANTED
            for per_row in (None, "norm", "gradient"):
                asked = {"out": False, "wanted": EVERYTHING, "per_row": per_row, "histories": 6}
                needed = backward_nbytes(*given, save, beside, **asked)
                assert needed + moved <= ALWAYS_GRANTED
                needed = value_and_grad_nbytes(*given, beside, kept=steps, read=steps, **asked)
                assert needed + moved + batch * params.nbytes <= ALWAYS_GRANTED


def test_what_the_smallest_call_holds_is_not_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def added_up(needed: int, what: str) -> None:
        raise AssertionError(f"{what}: {needed} bytes")

    monkeypatch.setattr("bptt.memory.require_memory", added_up)
    x = np.ones((1, 1, 100), np.float32)
    tape = bptt.forward("tanh", PARAMS, x)
    tape.backward(tape.y)
    bptt.value_and_grad("tanh", PARAMS, x, IDS[0, :1], loss="cross_entropy", at="last")
    bptt.predict("tanh", PARAMS, x)
