"""Bad input raises an error that names the argument, what came and what was wanted.

Each case changes one argument of a call that is right; every case runs on every backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.cells import Cell

T, B, I, H, O = 5, 6, 2, 3, 4  # noqa: E741
F4 = np.float32


def zeros(*shape: int, dtype: Any = F4) -> np.ndarray:
    return np.zeros(shape, dtype)


PARAMS = bptt.init_params("tanh", input_size=I, hidden_size=H, output_size=O, rng=0)
NO_READOUT = bptt.init_params("tanh", input_size=I, hidden_size=H, rng=0)
X = zeros(T, B, I)


class Elsewhere:
    """Memory of a device that NumPy cannot read."""

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("this array lies on a GPU")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def forward(backend: str, **changed: Any) -> bptt.Tape:
    call: dict[str, Any] = {"cell": "tanh", "params": PARAMS, "x": X, "backend": backend}
    return bptt.forward(**{**call, **changed})


def backward(backend: str, **changed: Any) -> bptt.Grads:
    return forward(backend).backward(**{"dy": zeros(T, B, H), **changed})


def squared_error(backend: str, **changed: Any) -> tuple[float, bptt.Grads]:
    call: dict[str, Any] = {
        "cell": "tanh",
        "params": PARAMS,
        "x": X,
        "target": zeros(B, O),
        "loss": "squared_error",
        "at": "last",
        "backend": backend,
    }
    return bptt.value_and_grad(**{**call, **changed})


def cross_entropy(backend: str, **changed: Any) -> tuple[float, bptt.Grads]:
    right = {"target": zeros(B, dtype=int), "loss": "cross_entropy"}
    return squared_error(backend, **{**right, **changed})


IDS = np.array([0, 1, 2, 3, 0, 1])

# call, the argument that is changed, its value, the error, and words that the message must have
CASES: list[tuple[Callable, str, Any, type[Exception], str]] = [
    # cell, params, backend
    (
        forward,
        "cell",
        "lstmm",
        ValueError,
        r"expected one of linear, tanh, relu, lstm, gru, .*got 'lstmm'",
    ),
    (forward, "cell", None, TypeError, r"expected a string or a Cell, got NoneType"),
    (forward, "params", {"w_ih": X}, TypeError, r"expected bptt.Params, got dict"),
    (forward, "backend", "cuda-9", ValueError, r"expected one of auto, .*cuda, got 'cuda-9'"),
    (forward, "backend", None, TypeError, r"expected a string, got NoneType"),
    # x
    (forward, "x", X[0], ValueError, r"expected shape \(T, B, 2\).*w_ih.*got \(6, 2\)"),
    (forward, "x", zeros(T, B, 9), ValueError, r"expected shape \(T, B, 2\).*got \(5, 6, 9\)"),
    (forward, "x", np.array(F4(1)), ValueError, r"expected shape \(T, B, 2\).*got \(\)"),
    (forward, "x", X.astype("f8"), TypeError, r"expected dtype float32 like w_hh, got float64"),
    (forward, "x", X.astype("f2"), TypeError, r"expected dtype float32 like w_hh, got float16"),
    (forward, "x", X.astype("i4"), TypeError, r"expected a float array, got dtype int32"),
    (forward, "x", X.astype("O"), TypeError, r"expected a float array, got dtype object"),
    (forward, "x", X.astype("?"), TypeError, r"expected a float array, got dtype bool"),
    (forward, "x", X.astype("c8"), TypeError, r"expected a float array, got dtype complex64"),
    (forward, "x", X.tolist(), TypeError, r"expected a NumPy array .*__dlpack__, got list"),
    (forward, "x", 1.0, TypeError, r"expected a NumPy array .*__dlpack__, got float"),
    (forward, "x", None, TypeError, r"expected a NumPy array .*__dlpack__, got NoneType"),
    (forward, "x", np.ma.masked_array(X), TypeError, r"expected a plain array, got a masked one"),
    (
        forward,
        "x",
        Elsewhere(),
        TypeError,
        r"cannot read Elsewhere through DLPack: .*GPU.*; copy it .*host",
    ),
    # state
    (forward, "state", zeros(B, 9), ValueError, r"expected shape \(6, 3\).*got \(6, 9\)"),
    (forward, "state", zeros(9, H), ValueError, r"expected shape \(6, 3\) to match x.*\(9, 3\)"),
    (forward, "state", zeros(H), ValueError, r"expected shape \(6, 3\).*got \(3,\)"),
    (forward, "state", zeros(B, H, dtype="f8"), TypeError, r"expected dtype float32.*got float64"),
    (forward, "state", (zeros(B, H),), TypeError, r"expected a NumPy array .*got tuple"),
    # backward
    (backward, "dy", zeros(T - 1, B, H), ValueError, r"\(5, 6, 3\) to match tape.y, got \(4, 6"),
    (backward, "dy", zeros(B, H), ValueError, r"expected shape \(5, 6, 3\).*got \(6, 3\)"),
    (backward, "dy", zeros(T, B, H, dtype="f8"), TypeError, r"float32 like the tape, got float64"),
    (backward, "dy", zeros(T, B, H, dtype=int), TypeError, r"expected a float array, got .*int64"),
    (backward, "dy", 1.0, TypeError, r"expected a NumPy array .*got float"),
    (backward, "dy", None, ValueError, r"expected at least one of them, got None for both"),
    (backward, "dstate", zeros(B, 9), ValueError, r"\(6, 3\) to match tape.state, got \(6, 9\)"),
    (backward, "dstate", zeros(B, H, dtype="f8"), TypeError, r"expected dtype float32.*float64"),
    # loss, reduction, at
    (squared_error, "loss", "mse", ValueError, r"one of squared_error, cross_entropy, got 'mse'"),
    (squared_error, "loss", None, TypeError, r"expected a string, got NoneType"),
    (squared_error, "reduction", "avg", ValueError, r"expected one of mean, sum, got 'avg'"),
    (squared_error, "reduction", None, TypeError, r"expected a string, got NoneType"),
    (squared_error, "at", "first", ValueError, r"expected 'last', 'all', an integer .*got 'first'"),
    (squared_error, "at", None, TypeError, r"expected 'last', 'all', an integer .*got NoneType"),
    (squared_error, "at", 1.0, TypeError, r"expected 'last', 'all', an integer .*got float"),
    (squared_error, "at", True, TypeError, r"expected 'last', 'all', an integer .*got bool"),
    (squared_error, "at", T, ValueError, r"expected a step in \[-5, 5\), got 5"),
    (squared_error, "at", -T - 1, ValueError, r"expected a step in \[-5, 5\), got -6"),
    (squared_error, "at", 2**80, ValueError, r"expected a step in \[-5, 5\), got 12089"),
    (squared_error, "at", zeros(T, 9), ValueError, r"expected shape \(5, 6\).*got \(5, 9\)"),
    (squared_error, "at", zeros(T, B, dtype="f8"), TypeError, r"dtype float32.*got float64"),
    (squared_error, "at", zeros(T, B, dtype=int), TypeError, r"weights .*\(T, B\), not .*int64"),
    (squared_error, "at", np.array([0, 2]), TypeError, r"weights .*\(T, B\), not step.*int64"),
    # target
    (squared_error, "target", zeros(B, 9), ValueError, r"shape \(6, 4\).*one step, got \(6, 9\)"),
    (squared_error, "target", zeros(T, B, O), ValueError, r"\(6, 4\).*one step, got \(5, 6, 4\)"),
    (squared_error, "target", IDS, TypeError, r"expected a float array, got dtype int64"),
    (squared_error, "target", zeros(B, O, dtype="f8"), TypeError, r"float32.*got float64"),
    (squared_error, "target", None, TypeError, r"expected a NumPy array .*got NoneType"),
    (squared_error, "target", zeros(T, O), ValueError, r"match x .*\(T, B, I\) = \(5, 6, 2\) and"),
    (cross_entropy, "target", IDS + 1, ValueError, r"class ids in \[0, 4\), got .* 1 to 4"),
    (cross_entropy, "target", IDS - 1, ValueError, r"class ids in \[0, 4\), got .* -1 to 2"),
    (cross_entropy, "target", (IDS - 1).astype("u8"), ValueError, r"class ids in \[0, 4\), got"),
    (cross_entropy, "target", np.full(B, np.nan), TypeError, r"integer class ids, got .*float64"),
    (cross_entropy, "target", IDS.astype("f4"), TypeError, r"integer class ids, got .*float32"),
    (cross_entropy, "target", IDS.astype("?"), TypeError, r"integer class ids, got dtype bool"),
    (cross_entropy, "target", IDS[:-1], ValueError, r"expected shape \(6,\).*got \(5,\)"),
    (cross_entropy, "target", np.eye(O, dtype=int)[IDS], ValueError, r"\(6,\).*got \(6, 4\)"),
    (cross_entropy, "at", "all", ValueError, r"expected shape \(5, 6\).*every step, got \(6,\)"),
    (squared_error, "params", NO_READOUT, ValueError, r"needs the readout weights w_ho, got None"),
]


@pytest.mark.parametrize(
    ("call", "argument", "value", "error", "words"),
    CASES,
    ids=[f"{call.__name__}-{name}-{n}" for n, (call, name, *_) in enumerate(CASES)],
)
def test_error_names_the_argument_what_came_and_what_was_wanted(
    call: Callable, argument: str, value: Any, error: type[Exception], words: str, backend: str
) -> None:
    # What `at` makes of the target is the target's error.
    named = "target" if (call, argument) == (cross_entropy, "at") else argument
    with pytest.raises(error, match=rf"^{named}\b.*: .*{words}"):
        call(**{"backend": backend, argument: value})


@pytest.mark.parametrize("call", [forward, backward, squared_error, cross_entropy])
def test_the_call_that_cases_change_is_right(call: Callable, backend: str) -> None:
    call(backend)


@pytest.mark.parametrize(
    ("argument", "value", "meant"),
    [
        ("cell", "GRU", "'gru'"),
        ("cell", "Tanh", "'tanh'"),
        ("cell", "lsmt", "'lstm'"),
        ("cell", "rnn", "'tanh'"),
        ("loss", "mse", r"'squared_error' \(1/2 sum_o \(Y - O\)\^2 a row: the 1/2 .* differ\)"),
        ("loss", "MSELoss", r"'squared_error' \(1/2 .*\)"),
        ("loss", "CrossEntropy", "'cross_entropy'"),
        ("loss", "cross-entropy", "'cross_entropy'"),
        (
            "loss",
            "nll",
            r"'cross_entropy' \(of the outputs themselves: log_softmax is part of it\)",
        ),
        ("reduction", "avg", "'mean'"),
        ("reduction", "Sum", "'sum'"),
        ("backend", "NumPy", "'numpy'"),
        ("backend", "C++", "'native'"),
        ("at", "Last", "'last'"),
    ],
)
def test_a_name_close_to_a_known_one_gets_a_suggestion(
    argument: str, value: str, meant: str
) -> None:
    given = {"backend": "numpy", argument: value}
    with pytest.raises(ValueError, match=rf"^{argument}: expected .*; did you mean {meant}\?$"):
        squared_error(**given)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("cell", "transformer"), ("loss", "bce"), ("loss", "hinge"), ("backend", "tpu")],
)
def test_a_name_that_resembles_none_gets_no_suggestion(argument: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: .*, got '{value}'$"):
        squared_error(**{"backend": "numpy", argument: value})


def test_a_dtype_of_another_library_gets_a_suggestion() -> None:
    for dtype, end in (("fp32", "; did you mean 'float32'?"), ("F64", "; did you mean 'float64'?")):
        with pytest.raises(
            TypeError, match=rf"^dtype: expected a float dtype, .*{re.escape(end)}$"
        ):
            PARAMS.astype(dtype)
    with pytest.raises(TypeError, match=r"^dtype: expected a float dtype, got '?bfloat16'?$"):
        PARAMS.astype("bfloat16")


def test_a_target_of_too_few_or_too_many_steps_is_told_its_remedy(backend: str) -> None:
    one, every = {"target": zeros(B, O)}, {"target": zeros(T, B, O)}
    for at in ("all", zeros(T, B) + 1):
        with pytest.raises(ValueError, match=r"^target: .*got \(6, 4\); .*at=\"last\"$"):
            squared_error(backend, at=at, **one)
        with pytest.raises(ValueError, match=r"^target: .*got \(6,\); .*at=\"last\"$"):
            cross_entropy(backend, at=at)
    for at in ("last", 2):
        with pytest.raises(ValueError, match=r"^target: .*got \(5, 6, 4\); .*at=\"all\"$"):
            squared_error(backend, at=at, **every)
        with pytest.raises(ValueError, match=r"^target: .*got \(5, 6\); .*at=\"all\"$"):
            cross_entropy(backend, at=at, target=np.zeros((T, B), int))
    with pytest.raises(ValueError, match=r"^target: .*at=\"last\"$"):
        bptt.lag_gradients("tanh", PARAMS, X, loss="squared_error", backend=backend, **one)
    with pytest.raises(ValueError, match=r"^target: .*got \(6, 9\)$"):
        squared_error(backend, target=zeros(B, 9))


def test_no_step_can_be_named_where_there_are_none(backend: str) -> None:
    for step in (0, -1):
        with pytest.raises(ValueError, match=r"^at: there are no steps .*T = 0.*, got step"):
            squared_error(backend, x=X[:0], at=step)


def test_weights_without_a_mean_are_refused(backend: str) -> None:
    target = zeros(T, B, O)
    with pytest.raises(ValueError, match=r"^at: expected weights with a mean, got .* sum to 0"):
        squared_error(backend, at=zeros(T, B), target=target)
    loss, _ = squared_error(backend, at=zeros(T, B), target=target, reduction="sum")
    assert loss == 0


def test_a_released_tape_is_told_so(backend: str) -> None:
    tape = forward(backend)
    tape.backward(zeros(T, B, H))
    tape.release()
    for use in (lambda: tape.backward(zeros(T, B, H)), lambda: tape.y, lambda: tape.state):
        with pytest.raises(RuntimeError, match=r"tape was released; call bptt\.forward"):
            use()
    assert tape.nbytes == 0
    assert "released" in repr(tape)


def test_a_tape_releases_itself_at_the_end_of_a_with_block(backend: str) -> None:
    with forward(backend) as tape:
        assert tape.nbytes > 0
    with pytest.raises(RuntimeError, match="released"):
        tape.backward(zeros(T, B, H))


def test_params_that_no_longer_fit_are_refused_at_the_next_call(backend: str) -> None:
    params = bptt.init_params("tanh", input_size=I, hidden_size=H, output_size=O, rng=0)
    forward(backend, params=params)
    params.b_ih = zeros(7)
    with pytest.raises(ValueError, match=r"^b_ih: expected shape \(3,\).*got \(7,\)"):
        forward(backend, params=params)
    params.b_ih = zeros(H, dtype="f8")
    with pytest.raises(TypeError, match=r"^b_ih: expected dtype float32.*got float64"):
        forward(backend, params=params)


def test_other_arrays_in_params_do_not_reach_an_older_tape(backend: str) -> None:
    params = bptt.init_params("tanh", input_size=I, hidden_size=H, rng=0)
    tape = forward(backend, params=params)
    before = tape.backward(np.ones((T, B, H), F4))
    params.w_ih, params.w_hh = zeros(H, 9), zeros(H, H)
    np.testing.assert_array_equal(tape.backward(np.ones((T, B, H), F4)).x, before.x)


def test_params_of_another_number_of_gates_are_refused(
    cell: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = bptt.CELLS[cell].gates + 2
    monkeypatch.setitem(bptt.CELLS, "gated", Cell("gated", gates, ""))
    params = bptt.Params(zeros(gates * H, I), zeros(gates * H, H))
    with pytest.raises(ValueError, match=rf"^w_hh: expected shape .* cell '{cell}'.*got"):
        forward(backend, cell=cell, params=params)


@pytest.mark.parametrize("dtype", ["float16", "longdouble"])
def test_a_dtype_that_kernels_do_not_know_is_refused(dtype: str, compiled_backend: str) -> None:
    params, x = PARAMS.astype(dtype), X.astype(dtype)
    with pytest.raises(TypeError, match=rf"backend '{compiled_backend}' .*dtype float"):
        forward(compiled_backend, params=params, x=x)
    assert forward("auto", params=params, x=x).backend == "numpy"
