"""The final state and the outputs come from `value_and_grad` and `predict`, as from `forward`."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import partial
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_tuple
from problems import AT, Problem, by_name, make_problem

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

T, B, I, H, O = 6, 3, 2, 5, 4  # noqa: E741


def assert_same_states(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    for one, other in zip(as_tuple(found), as_tuple(expected), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def final_state(p: Problem, backend: str) -> Any:
    return bptt.forward(p.cell, p.params, p.x, p.state, backend=backend).state


def with_state(p: Problem, backend: str, loss: str, at: str, **options: Any) -> Any:
    where, target = p.loss_at(at, loss)
    options = {"loss": loss, "at": where, "backend": backend, "return_state": True, **options}
    return bptt.value_and_grad(p.cell, p.params, p.x, target, state=p.state, **options)


@pytest.mark.parametrize("at", AT)
def test_the_state_is_that_of_forward_wherever_the_loss_is_read(
    cell: str, loss: str, at: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, T, B, I, H, O, dtype=dtype)
    value, grads, state = with_state(p, backend, loss, at)
    assert_same_states(state, final_state(p, backend))
    alone = p.value_and_grad(backend, loss, at)
    for name, array in {"loss": value, **by_name(grads)}.items():
        np.testing.assert_array_equal(array, alone[name], name)


@pytest.mark.parametrize("at", ["last", "all", "step", "weights"])
@pytest.mark.parametrize("cut", [{"truncate": 1}, {"detach_every": 2}, {"detach_every": 4}])
def test_the_state_of_truncated_gradients_is_that_of_forward(
    cell: str, at: str, cut: dict[str, int], backend: str
) -> None:
    p = make_problem(cell, T, B, I, H, O)
    *_, state = with_state(p, backend, "squared_error", at, **cut)
    assert_same_states(state, final_state(p, backend))


@pytest.mark.parametrize("sizes", [(0, B), (T, 0), (0, 0)])
def test_without_rows_the_state_is_the_initial_one_in_memory_of_its_own(
    cell: str, sizes: tuple[int, int], backend: str
) -> None:
    p = make_problem(cell, *sizes, I, H, O)
    *_, state = with_state(p, backend, "squared_error", "all")
    outputs, predicted = bptt.predict(p.cell, p.params, p.x, p.state, backend=backend)
    assert outputs.shape == (*sizes, O)
    for found in (state, predicted):
        assert_same_states(found, p.state)
        for one, other in zip(as_tuple(found), as_tuple(p.state), strict=True):
            assert not np.shares_memory(one, other)


def test_the_state_goes_on_where_the_call_before_it_ended(cell: str, backend: str) -> None:
    p = make_problem(cell, T, B, I, H, O)
    whole = with_state(p, backend, "cross_entropy", "all", reduction="sum", detach_every=4)
    loss, state = 0.0, p.state
    for steps in (slice(0, 4), slice(4, T)):
        part = replace(p, x=p.x[steps], ids=p.ids[steps], state=state)
        value, _, state = with_state(part, backend, "cross_entropy", "all", reduction="sum")
        loss += value
    np.testing.assert_allclose(loss, whole[0], rtol=1e-13)
    assert_same_states(state, whole[2])


def test_a_state_is_returned_when_it_is_asked_for_alone(backend: str) -> None:
    p = make_problem("tanh", T, B, I, H, O)
    assert len(with_state(p, backend, "squared_error", "all", return_state=False)) == 2
    with pytest.raises(TypeError, match=r"^return_state: expected True or False, got str"):
        with_state(p, backend, "squared_error", "all", return_state="yes")
    out = p.zeros()
    _, grads, state = with_state(p, backend, "squared_error", "all", out=out)
    assert grads is out
    assert_same_states(state, final_state(p, backend))


@pytest.mark.parametrize("steps", [1, T, 300])
@pytest.mark.parametrize("outputs", [1, O, 131])
def test_outputs_are_those_of_the_readout(
    cell: str, steps: int, outputs: int, dtype: str, backend: str
) -> None:
    biases = ("b_ih", "b_hh", "b_o") if steps > 1 else ()
    p = make_problem(cell, steps, B, I, H, outputs, dtype=dtype, biases=biases)
    tape = bptt.forward(cell, p.params, p.x, p.state, backend=backend)
    found = bptt.predict(cell, p.params, p.x, p.state, backend=backend)
    assert found.outputs.dtype == dtype
    wide = p.params.astype("float64")
    exact = tape.y.astype("float64") @ wide.w_ho.T + (0 if wide.b_o is None else wide.b_o)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found.outputs, exact, rtol=8 * eps, atol=8 * H * eps)
    assert_same_states(found.state, tape.state)
    for step in (0, -1, steps // 2):
        one = bptt.predict(cell, p.params, p.x, p.state, at=step, backend=backend)
        assert_same_states(one.state, tape.state)
        assert one.outputs.shape == (B, outputs)
        np.testing.assert_allclose(one.outputs, exact[step], rtol=8 * eps, atol=8 * H * eps)
    last = bptt.predict(cell, p.params, p.x, p.state, at="last", backend=backend)
    np.testing.assert_allclose(last.outputs, exact[-1], rtol=8 * eps, atol=8 * H * eps)


def test_outputs_of_a_sequence_depend_on_no_other_and_on_no_cut(
    cell: str, compiled_backend: str
) -> None:
    p = make_problem(cell, 150, B, I, H, O, dtype="float32")
    call = {"backend": compiled_backend}
    # Numba's readout is NumPy's product, and BLAS takes other numbers of rows in another order.
    error = 0 if compiled_backend == "native" else 4 * H * np.finfo("float32").eps
    same_outputs = partial(np.testing.assert_allclose, rtol=error, atol=error)
    whole = bptt.predict(cell, p.params, p.x, p.state, **call)
    row = p.row(1)
    alone = bptt.predict(cell, p.params, row.x, row.state, **call)
    same_outputs(alone.outputs, whole.outputs[:, 1:2])
    first = bptt.predict(cell, p.params, p.x[:70], p.state, **call)
    second = bptt.predict(cell, p.params, p.x[70:], first.state, **call)
    same_outputs(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    assert_same_states(second.state, whole.state)


def test_the_loss_is_that_of_the_outputs(cell: str, backend: str) -> None:
    p = make_problem(cell, T, B, I, H, O)
    logits, _ = bptt.predict(cell, p.params, p.x, p.state, backend=backend)
    likelihoods = np.take_along_axis(logits, p.ids[..., None], -1)[..., 0]
    expected = (np.log(np.exp(logits).sum(axis=-1)) - likelihoods).mean()
    loss, *_ = with_state(p, backend, "cross_entropy", "all")
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_states_of_all_steps_are_not_kept(compiled_backend: str) -> None:
    p = make_problem("tanh", 4000, B, 1, 64, 1, dtype="float32")
    bptt.predict("tanh", p.params, p.x[:10], backend=compiled_backend)  # compiled now
    tracemalloc.start()
    try:
        bptt.predict("tanh", p.params, p.x, backend=compiled_backend)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    all_states = 4000 * B * 64 * 4
    assert peak < all_states / 4


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"at": "first"}, ValueError, r"^at: expected 'last', 'all' or an integer step, got"),
        ({"at": np.ones((T, B))}, TypeError, r"^at: expected 'last', .* step, got ndarray"),
        ({"at": T}, ValueError, r"^at: expected a step in \[-6, 6\), got 6"),
        ({"x": np.zeros((0, B, I)), "at": "last"}, ValueError, r"^at: there are no steps"),
        ({"x": np.zeros((0, B, I)), "at": 0}, ValueError, r"^at: there are no steps"),
        ({"x": np.zeros((T, B))}, ValueError, r"^x: expected shape"),
        ({"state": np.zeros((B, 9))}, ValueError, r"^state: expected shape"),
    ],
)
def test_predict_names_what_is_wrong(
    options: dict[str, Any], error: type[Exception], words: str, backend: str
) -> None:
    p = make_problem("tanh", T, B, I, H, O)
    with pytest.raises(error, match=words):
        bptt.predict("tanh", p.params, **{"x": p.x, "backend": backend, **options})


def test_predict_needs_a_readout(backend: str) -> None:
    p = make_problem("tanh", T, B, I, H, O)
    with pytest.raises(ValueError, match=r"^params: predict needs the readout weights w_ho"):
        bptt.predict("tanh", replace(p.params, w_ho=None, b_o=None), p.x, backend=backend)
