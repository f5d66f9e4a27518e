"""`bptt.Stepper`: however a sequence is cut into calls, the bits are those of one pass over it."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import tracemalloc
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends.numpy import NumpyBackend
from bptt.states import as_tuple
from conftest import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Problem, make_problem

SIZES = (1, 2, 3, 7, 8, 9, 17, 31, 33, 100, 129)
ONE = "one"  # a step given as (B, I), in a cut of time

needs_native = pytest.mark.skipif("native" not in BACKENDS, reason="the native backend alone")


def make_stepper(p: Problem, backend: str) -> bptt.Stepper:
    return bptt.Stepper(p.cell, p.params, p.x.shape[1], state=p.state, backend=backend)


def run_in_pieces(stepper: bptt.Stepper, x: np.ndarray, cut: list[Any]) -> np.ndarray:
    """y of x, a call for each entry of `cut`: a block of so many steps, or one step."""
    found, t = [], 0
    for entry in cut:
        if entry == ONE:
            found.append(stepper(x[t])[None])
        else:
            found.append(stepper(x[t : t + entry]))
        t += len(found[-1])
    assert t == len(x)
    return np.concatenate(found)


def assert_same_bits(found: Any, expected: Any, message: object = "") -> None:
    for a, b in zip(as_tuple(found), as_tuple(expected), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(message))
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes(), message


def assert_goes_like_forward(p: Problem, backend: str, cut: list[Any]) -> None:
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    stepper = make_stepper(p, backend)
    assert_same_bits(run_in_pieces(stepper, p.x, cut), tape.y, p)
    assert_same_bits(stepper.state, tape.state, p)


# --- bits ---------------------------------------------------------------------------------------


def test_steps_and_blocks_have_the_bits_of_forward(backend: str, cell: str, dtype: str) -> None:
    p = make_problem(cell, 12, 3, 5, 9, dtype=dtype)
    assert_goes_like_forward(p, backend, [ONE, ONE, 4, 0, ONE, 5])


@needs_native
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    cell=st.sampled_from(["linear", "tanh", "relu", "lstm", "gru"]),
    dtype=st.sampled_from(["float32", "float64"]),
    batch=st.sampled_from(SIZES),
    inputs=st.sampled_from(SIZES),
    hidden=st.sampled_from(SIZES),
    cut=st.lists(st.one_of(st.just(ONE), st.sampled_from((0, 1, 2, 7, 17))), max_size=6),
    biases=st.sampled_from([(), ("b_ih",), ("b_ih", "b_hh")]),
)
def test_any_cut_of_any_shape_has_the_bits_of_forward(
    cell: str,
    dtype: str,
    batch: int,
    inputs: int,
    hidden: int,
    cut: list[Any],
    biases: tuple[str, ...],
) -> None:
    steps = sum(1 if entry == ONE else entry for entry in cut)
    p = make_problem(cell, steps, batch, inputs, hidden, dtype=dtype, biases=biases)
    assert_goes_like_forward(p, "native", cut or [0])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("batch", "inputs", "hidden"),
    [(1, 33, 200), (2, 9, 33), (33, 100, 129), (129, 1, 129)],  # pipeline, one, slices, pieces
)
@pytest.mark.usefixtures("core", "keep_num_threads")
def test_the_bits_of_a_block_do_not_depend_on_threads(
    cell: str, threads: int, batch: int, inputs: int, hidden: int
) -> None:
    p = make_problem(cell, 100, batch, inputs, hidden, dtype="float64")
    bptt.set_num_threads(1)
    expected = bptt.forward(p.cell, p.params, p.x, p.state, backend="native")
    bptt.set_num_threads(threads)
    stepper = make_stepper(p, "native")
    assert_same_bits(run_in_pieces(stepper, p.x, [ONE, 90, 2, ONE, 6]), expected.y, p)
    assert_same_bits(stepper.state, expected.state, p)


def test_a_nan_passes_through_its_row_alone(backend: str, cell: str) -> None:
    p = make_problem(cell, 6, 3, 2, 5, dtype="float32", with_state=False)
    p.x[2, 1, 0] = np.nan
    assert_goes_like_forward(p, backend, [ONE, ONE, ONE, 3])
    stepper = make_stepper(p, backend)
    run_in_pieces(stepper, p.x, [6])
    assert [bool(np.isnan(row).all()) for row in as_tuple(stepper.state)[0]] == [False, True, False]


@needs_native
def test_subnormal_numbers_count_as_they_did_when_the_stepper_was_made() -> None:
    tiny = np.float32(1e-40)
    params = bptt.Params(w_ih=np.ones((1, 1), "f4"), w_hh=np.zeros((1, 1), "f4"))
    try:
        for flush, expected in ((True, np.float32(0)), (False, tiny)):
            bptt.set_flush_subnormals(flush)
            stepper = bptt.Stepper("linear", params, backend="native")
            bptt.set_flush_subnormals(not flush)
            assert stepper(np.full((1, 1), tiny))[0, 0] == expected
    finally:
        bptt.set_flush_subnormals(True)


def test_no_rows_and_no_steps(backend: str, cell: str) -> None:
    p = make_problem(cell, 4, 0, 2, 3, dtype="float32")
    stepper = make_stepper(p, backend)
    assert stepper(p.x).shape == (4, 0, 3)
    assert stepper(p.x[0]).shape == (0, 3)
    stepper.reset()
    p = make_problem(cell, 0, 2, 2, 3, dtype="float32")
    stepper = make_stepper(p, backend)
    assert stepper(p.x).shape == (0, 2, 3)
    assert_same_bits(stepper.state, p.state)


# --- the weights are the stepper's own ----------------------------------------------------------


def test_weights_that_change_afterwards_are_not_seen(backend: str, cell: str) -> None:
    p = make_problem(cell, 5, 2, 3, 4, dtype="float32")
    expected = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend).y.copy()
    stepper = make_stepper(p, backend)
    for array in (*p.params.arrays().values(), *as_tuple(p.state)):
        array[:] = np.nan
    assert_same_bits(run_in_pieces(stepper, p.x, [2, ONE, 2]), expected)


def test_nbytes_holds_the_weights_and_the_state(backend: str, cell: str) -> None:
    p = make_problem(cell, 1, 4, 16, 32, dtype="float32")
    weights = p.params.w_ih.nbytes + p.params.w_hh.nbytes
    nbytes = make_stepper(p, backend).nbytes
    assert weights + 4 * 32 * 4 < nbytes < 2 * weights


# --- rows that begin anew -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [2, -3, [0, 4], np.array([1, 3]), [True, False, False, True, False], (), None, range(5)],
    ids=str,
)
def test_a_row_that_is_reset_goes_like_a_fresh_one_and_the_others_go_on(
    backend: str, cell: str, rows: Any
) -> None:
    p = make_problem(cell, 9, 5, 3, 7, dtype="float32")
    reset = np.zeros(5, bool)
    if rows is None:
        reset[:] = True
    elif len(np.atleast_1d(rows)):
        reset[rows] = True
    stepper = make_stepper(p, backend)
    stepper(p.x[:4])
    stepper.reset(rows)
    found = run_in_pieces(stepper, p.x[4:], [ONE, 4])

    fresh = bptt.Stepper(p.cell, p.params, 5, backend=backend)
    assert_same_bits(found[:, reset], fresh(p.x[4:])[:, reset])
    gone_on = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend).y[4:]
    assert_same_bits(found[:, ~reset], gone_on[:, ~reset])


def test_rows_get_the_state_that_is_given(backend: str, cell: str) -> None:
    p = make_problem(cell, 3, 4, 2, 5, dtype="float32")
    stepper = bptt.Stepper(p.cell, p.params, 4, backend=backend)
    some = tuple(s[:2] for s in as_tuple(p.state))
    stepper.reset([3, 1], some if len(some) > 1 else some[0])
    for part, given_part in zip(as_tuple(stepper.state), as_tuple(p.state), strict=True):
        assert_same_bits(part[[3, 1]], given_part[:2])
        assert not part[[0, 2]].any()
    stepper.state = p.state
    assert_same_bits(stepper(p.x), bptt.forward(p.cell, p.params, p.x, p.state, backend=backend).y)


def test_the_state_is_a_copy(backend: str, cell: str) -> None:
    p = make_problem(cell, 3, 2, 2, 5, dtype="float32")
    stepper = make_stepper(p, backend)
    y = stepper(p.x[0])
    before = stepper.state
    y[:] = np.nan
    for part in as_tuple(stepper.state):
        part[:] = np.nan
    assert_same_bits(stepper.state, before)


# --- where y goes -------------------------------------------------------------------------------


def test_out_is_written_and_returned(backend: str, cell: str) -> None:
    p = make_problem(cell, 5, 2, 3, 4, dtype="float32")
    y = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend).y
    stepper, step, block = (
        make_stepper(p, backend),
        np.empty((2, 4), "f4"),
        np.empty((4, 2, 4), "f4"),
    )
    assert stepper(p.x[0], out=step) is step
    assert stepper(p.x[1:], out=block) is block
    assert_same_bits(np.concatenate([step[None], block]), y)


@pytest.mark.usefixtures("core")
def test_a_step_into_out_allocates_nothing(cell: str) -> None:
    p = make_problem(cell, 1, 2, 3, 64, dtype="float32")
    stepper, x, out = make_stepper(p, "native"), p.x[0], np.empty((2, 64), "f4")
    stepper(x, out=out)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(100):
            stepper(x, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < out.nbytes


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: x[:, ::-1][:, ::-1], id="strided"),
        pytest.param(lambda x: x.transpose(1, 0, 2).copy().transpose(1, 0, 2), id="batch first"),
        pytest.param(lambda x: x.astype(">f4"), id="byte order"),
        pytest.param(lambda x: x.view(type("Own", (np.ndarray,), {})), id="subclass"),
    ],
)
def test_an_input_that_kernels_cannot_read_is_converted(backend: str, change: Any) -> None:
    p = make_problem("lstm", 5, 2, 3, 4, dtype="float32")
    y = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend).y
    found = make_stepper(p, backend)(change(p.x))
    assert type(found) is np.ndarray
    assert_same_bits(found, y)


# --- what is refused ----------------------------------------------------------------------------

X = np.zeros((2, 3), "f4")
SHARED = np.zeros((2, 4), "f4")


@pytest.mark.parametrize(
    ("x", "out", "error", "message"),
    [
        (X[0], None, ValueError, r"x: expected shape \(2, 3\) of a step or \(T, 2, 3\) of a block"),
        (X[:1], None, ValueError, r"got \(1, 3\)"),
        (np.zeros((5, 3, 3), "f4"), None, ValueError, r"got \(5, 3, 3\)"),
        (X.astype("f8"), None, TypeError, "x: expected dtype float32 like w_hh, got float64"),
        (X.astype(int), None, TypeError, "x: expected a float array"),
        ([[0.0] * 3] * 2, None, TypeError, "x: expected a NumPy array"),
        (np.ma.masked_array(X), None, TypeError, "x: expected a plain array, got a masked one"),
        (X, np.zeros((4, 2), "f4"), ValueError, r"out: expected shape \(2, 4\)"),
        (X[None], np.zeros((2, 4), "f4"), ValueError, r"out: expected shape \(1, 2, 4\)"),
        (X, np.zeros((2, 4)), TypeError, "out: expected dtype float32"),
        (X, np.zeros((4, 2), "f4").T, ValueError, "out: .* not C-contiguous"),
        (X, [0.0], TypeError, "out: expected a NumPy array, got list"),
        (SHARED.reshape(-1)[:6].reshape(2, 3), SHARED, ValueError, "out: .* shared with x"),
    ],
)
def test_a_wrong_call_names_the_argument_and_changes_nothing(
    backend: str, x: Any, out: Any, error: type[Exception], message: str
) -> None:
    p = make_problem("lstm", 1, 2, 3, 4, dtype="float32")
    stepper = make_stepper(p, backend)
    before = copy.deepcopy(out)
    with pytest.raises(error, match=message):
        stepper(x, out=out)
    np.testing.assert_array_equal(out, before)
    assert_same_bits(stepper.state, p.state)


def test_a_read_only_out_is_refused(backend: str) -> None:
    p = make_problem("gru", 1, 2, 3, 4, dtype="float32")
    out = np.zeros((2, 4), "f4")
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"out: .* not writeable"):
        make_stepper(p, backend)(p.x[0], out=out)


H, C = np.zeros((2, 4), "f4"), np.zeros((2, 4), "f4")


@pytest.mark.parametrize(
    ("rows", "state", "error", "message"),
    [
        (2, None, ValueError, "rows: expected ints from -2 to 1, got 2"),
        ([0, -3], None, ValueError, "rows: expected ints from -2 to 1, got -3"),
        (True, None, TypeError, r"rows: expected an int, ints or a mask of shape \(2,\), got bool"),
        ("all", None, TypeError, "rows: .* got str"),
        ([0.0], None, TypeError, "rows: .* got dtype float64"),
        ([[0, 1]], None, ValueError, r"rows: .* got shape \(1, 2\)"),
        ([[0], [0, 1]], None, TypeError, "rows: .* got list"),
        ([True, False, True], None, ValueError, r"rows: expected shape \(2,\) to match batch"),
        ([1, 1], None, ValueError, "rows: expected each row once, got row 1 .*; a mask has bools"),
        ([0, -2], None, ValueError, "rows: expected each row once, got row 0"),
        (0, (H, C), ValueError, r"state\[0\]: expected shape \(1, 4\) to match rows and w_hh"),
        (None, H, TypeError, "state: expected a tuple"),
        (None, (H, C.astype("f8")), TypeError, r"state\[1\]: expected dtype float32"),
    ],
)
def test_a_wrong_reset_names_the_argument_and_changes_nothing(
    backend: str, rows: Any, state: Any, error: type[Exception], message: str
) -> None:
    p = make_problem("lstm", 1, 2, 3, 4, dtype="float32")
    stepper = make_stepper(p, backend)
    with pytest.raises(error, match=message):
        stepper.reset(rows, state)
    with pytest.raises(TypeError, match=r"state: .*reset\(\) sets it to zero"):
        stepper.state = None
    assert_same_bits(stepper.state, p.state)


PARAMS = bptt.init_params("lstm", input_size=3, hidden_size=4, rng=0)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("lstn", PARAMS), {}, ValueError, "cell: .*did you mean 'lstm'"),
        (("gru", PARAMS), {}, ValueError, "w_hh: expected shape"),
        (("lstm", {}), {}, TypeError, "params: expected bptt.Params, got dict"),
        (("lstm", PARAMS, -1), {}, ValueError, "batch: expected an integer of at least 0, got -1"),
        (("lstm", PARAMS, 1.0), {}, TypeError, "batch: expected an integer, got float"),
        (("lstm", PARAMS), {"state": (H, C)}, ValueError, r"state\[0\]: expected shape \(1, 4\)"),
        (("lstm", PARAMS), {"backend": "cpu"}, ValueError, "backend: expected one of"),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bptt.Stepper(*arguments, **options)


def test_neither_copied_nor_pickled(backend: str) -> None:
    stepper = bptt.Stepper("lstm", PARAMS, backend=backend)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"make another one, Stepper\(cell, params, batch"):
            attempt(stepper)


def test_it_tells_what_it_is(backend: str) -> None:
    stepper = bptt.Stepper("lstm", PARAMS, 2, backend=backend)
    assert (stepper.cell, stepper.backend, stepper.batch) == ("lstm", backend, 2)
    assert (stepper.input_size, stepper.hidden_size, stepper.dtype) == (3, 4, np.float32)
    assert repr(stepper) == (
        f"Stepper('lstm', batch=2, input_size=3, hidden_size=4, backend={backend!r}, "
        f"nbytes={stepper.nbytes})"
    )


# --- one call at a time, whole or not at all ----------------------------------------------------


def long_block() -> tuple[bptt.Stepper, np.ndarray]:
    """Of several seconds, in pieces of 1024 steps."""
    params = bptt.init_params("lstm", input_size=1, hidden_size=1024, rng=0)
    state = tuple(np.full((1, 1024), value, "f4") for value in (0.25, -0.5))
    stepper = bptt.Stepper("lstm", params, state=state, backend="native")
    return stepper, np.zeros((20_000, 1, 1), "f4")


@needs_native
def test_control_c_leaves_the_state_before_the_block() -> None:
    stepper, x = long_block()
    before = stepper.state
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        stepper(x)
    assert_same_bits(stepper.state, before)
    stepper(x[:2])  # and it goes on
    assert stepper.state[0][0, 0] != before[0][0, 0]


@needs_native
def test_a_call_during_another_one_is_refused() -> None:
    stepper, x = long_block()
    calls = {
        "run": lambda: stepper(x[:1]),
        "state": lambda: stepper.state,
        "reset": stepper.reset,
    }
    refused = []

    def handle(*_: object) -> None:
        for name, call in calls.items():
            with pytest.raises(RuntimeError, match="another call of it is running"):
                call()
            refused.append(name)
        raise KeyboardInterrupt  # the block need not go on

    before = signal.signal(signal.SIGINT, handle)
    try:
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            stepper(x)
    finally:
        signal.signal(signal.SIGINT, before)
    assert refused == list(calls)
    assert_same_bits(stepper.state, tuple(np.full((1, 1024), v, "f4") for v in (0.25, -0.5)))


def test_a_backend_without_a_stepper_of_its_own_keeps_to_one_call_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = make_problem("lstm", 3, 2, 3, 4, dtype="float32")
    stepper = make_stepper(p, "numpy")

    def forward(*_: object) -> None:
        for call in (lambda: stepper(p.x), lambda: stepper.state, stepper.reset):
            with pytest.raises(RuntimeError, match="another call of it is running"):
                call()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NumpyBackend, "forward", forward)
        with pytest.raises(KeyboardInterrupt):
            stepper(p.x)
    assert_same_bits(stepper.state, p.state)


@needs_native
def test_steppers_of_several_threads_do_not_meet() -> None:
    p = make_problem("lstm", 300, 3, 7, 65, dtype="float32")
    y = bptt.forward(p.cell, p.params, p.x, p.state, backend="native").y
    found: dict[int, np.ndarray] = {}

    def run(n: int) -> None:
        found[n] = run_in_pieces(make_stepper(p, "native"), p.x, [ONE] * 100 + [n, 200 - n])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert_same_bits(found[n], y)
