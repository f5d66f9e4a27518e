"""A weight of 0 selects, it does not multiply: nothing of such a step counts or is checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bptt
import numpy as np
import pytest
from problems import Problem, by_name, make_problem

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

T, B, I, H, O = 7, 4, 2, 5, 3  # noqa: E741
BAD = {"squared_error": (np.nan, np.inf, -np.inf, 1e38), "cross_entropy": (-100, 2**40, -1)}


def with_gaps(
    cell: str, loss: str, dtype: str = "float32", outputs: int = O
) -> tuple[Problem, np.ndarray, Any, Any]:
    """A problem, weights of which many are 0, and targets that are right or, there alone, bad."""
    p = make_problem(cell, T, B, I, H, outputs, dtype=dtype)
    weights = p.weights.copy()
    weights[np.random.default_rng(1).random((T, B)) < 0.5] = 0
    weights[:, 1], weights[2], weights[-1, 0] = 0, 0, -0.0  # a whole row, a whole step
    right = p.ids if loss == "cross_entropy" else p.target
    bad = right.copy()
    gaps = weights == 0
    bad[gaps] = np.resize(BAD[loss], bad[gaps].shape)
    return p, weights, right, bad


def call(p: Problem, target: Any, weights: np.ndarray, backend: str, **options: Any) -> Any:
    loss = "cross_entropy" if target.dtype.kind in "iu" else "squared_error"
    options = {"loss": loss, "at": weights, "state": p.state, "backend": backend, **options}
    value, grads = bptt.value_and_grad(p.cell, p.params, p.x, target, **options)
    return {"loss": value, **by_name(grads)}


def assert_same_bits(found: Any, expected: Any) -> None:
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
        assert np.isfinite(value).all(), name


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_a_target_holds_at_weight_0_changes_no_bit(
    cell: str, loss: str, dtype: str, reduction: str, backend: str
) -> None:
    p, weights, right, bad = with_gaps(cell, loss, dtype)
    found = call(p, bad, weights, backend, reduction=reduction)
    assert_same_bits(found, call(p, right, weights, backend, reduction=reduction))


@pytest.mark.parametrize("cell", ["linear", "relu"])  # the states of the others are bounded
def test_outputs_that_overflow_at_weight_0_change_no_bit(
    cell: str, loss: str, backend: str
) -> None:
    p, weights, right, _ = with_gaps(cell, loss)
    weights[:-1], weights[-1] = 1, 0
    p = replace(p, params=replace(p.params, w_ho=p.params.w_ho * np.float32(1e10)))
    large = p.x.copy()
    large[-1] *= np.float32(1e30)
    last = bptt.forward(cell, p.params, large, p.state, backend=backend).state
    with np.errstate(over="ignore"):
        assert np.isinf(last @ p.params.w_ho.T).any()
    found = call(replace(p, x=large), right, weights, backend)
    assert_same_bits(found, call(p, right, weights, backend))


@pytest.mark.parametrize("cut", [{"truncate": 2}, {"detach_every": 3}])
def test_truncated_gradients_do_not_see_targets_of_weight_0(
    cell: str, loss: str, cut: dict[str, int], backend: str
) -> None:
    p, weights, right, bad = with_gaps(cell, loss)
    found = call(p, bad, weights, backend, **cut)
    assert_same_bits(found, call(p, right, weights, backend, **cut))


@pytest.mark.parametrize("outputs", [2, 9])  # fewer than units, and more
def test_the_gradient_by_lag_does_not_see_targets_of_weight_0(
    cell: str, loss: str, outputs: int, backend: str
) -> None:
    p, weights, right, bad = with_gaps(cell, loss, outputs=outputs)
    asked = {"loss": loss, "at": weights, "backend": backend, "state": p.state}
    found = bptt.lag_gradients(p.cell, p.params, p.x, bad, **asked)
    expected = bptt.lag_gradients(p.cell, p.params, p.x, right, **asked)
    assert found.loss == expected.loss
    for name, norm in expected.norm.items():
        np.testing.assert_array_equal(found.norm[name], norm, name)
        assert np.isfinite(norm).all(), name
    terms = zip(
        bptt.lag_terms(p.cell, p.params, p.x, bad, **asked),
        bptt.lag_terms(p.cell, p.params, p.x, right, **asked),
        strict=True,
    )
    for one, other in terms:
        for name, term in other.params.items():
            np.testing.assert_array_equal(one.params[name], term, name)


def test_what_measures_lags_in_training_does_not_see_targets_of_weight_0(loss: str) -> None:
    p, weights, right, bad = with_gaps("gru", loss)
    asked = {"loss": loss, "at": weights}
    horizons = [bptt.AdaptiveHorizon(0.1) for _ in range(2)]
    found = [
        h.update("gru", p.params, p.x, t, **asked)
        for h, t in zip(horizons, (bad, right), strict=True)
    ]
    assert found[0] == found[1]
    monitors = [bptt.LagMonitor() for _ in range(2)]
    for monitor, target in zip(monitors, (bad, right), strict=True):
        monitor.step("gru", p.params, p.x, target, **asked)
    one, other = (monitor.history[0] for monitor in monitors)
    np.testing.assert_array_equal(one.norm, other.norm)


def test_a_monitor_draws_none_of_the_sequences_that_have_no_loss() -> None:
    p, weights, right, _ = with_gaps("tanh", "squared_error")
    weights[:, 1:] = 0
    monitor = bptt.LagMonitor(every=1, sample=2)
    for _ in range(20):
        monitor.step("tanh", p.params, p.x, right, loss="squared_error", at=weights)
    assert len(monitor.history) == 20


def test_gradients_are_checked_without_targets_of_weight_0(
    cell: str, loss: str, backend: str
) -> None:
    p, weights, _, bad = with_gaps(cell, loss, "float64")
    asked = {"loss": loss, "at": weights, "backend": backend, "entries": 5}
    found = bptt.check_gradients(p.cell, p.params, p.x, bad, state=p.state, **asked)
    assert found, str(found)


def test_weights_of_0_and_1_are_the_loss_at_one_step(cell: str, loss: str, backend: str) -> None:
    p, weights, right, bad = with_gaps(cell, loss)
    weights[:] = 0
    weights[3] = 1
    bad[weights == 0] = np.resize(BAD[loss], bad[weights == 0].shape)
    bad[3] = right[3]
    found = call(p, bad, weights, backend)
    alone = call(p, right[3], 3, backend)
    for name, value in alone.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_class_ids_are_checked_where_they_count(backend: str) -> None:
    p, weights, right, bad = with_gaps("tanh", "cross_entropy")
    counts = tuple(np.argwhere(weights != 0)[0])
    for wrong in (-1, O):
        bad[counts] = wrong
        with pytest.raises(ValueError, match=r"^target: expected class ids in \[0, 3\), got val"):
            call(p, bad, weights, backend)
        with pytest.raises(ValueError, match=rf"values from .*{wrong}"):
            call(p, np.where(weights != 0, bad, right), "all", backend)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, loss: str, backend: str) -> None:
    p, weights, right, _ = with_gaps("tanh", loss)
    weights[2, 3] = value
    for reduction in ("sum", "mean"):
        with pytest.raises(ValueError, match=rf"^at: expected finite .*got {value} at \(2, 3\)"):
            call(p, right, weights, backend, reduction=reduction)


def test_negative_weights_have_a_meaning_in_a_sum_alone(loss: str, backend: str) -> None:
    p, weights, right, _ = with_gaps("tanh", loss)
    with pytest.raises(ValueError, match=r"^at: expected weights of at least 0.*sum.*got -"):
        call(p, right, -weights, backend)
    found = call(p, right, -weights, backend, reduction="sum")
    plus = call(p, right, weights, backend, reduction="sum")
    for name, value in plus.items():
        np.testing.assert_allclose(found[name], -value, rtol=1e-6, err_msg=name)


def test_a_subnormal_weight_selects_nothing_as_in_the_kernels(backend: str) -> None:
    params = bptt.init_params("tanh", input_size=2, hidden_size=3, output_size=2, rng=0)
    x, ids = np.ones((2, 1, 2), np.float32), np.array([[-100], [1]])
    found = [
        bptt.value_and_grad(
            "tanh",
            params,
            x,
            ids,
            loss="cross_entropy",
            at=np.array([[weight], [1]], np.float32),
            backend=backend,
        )
        for weight in (0, 1e-40)
    ]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1].w_hh, found[1][1].w_hh)


def test_weights_whose_sum_overflows_have_no_mean() -> None:
    params = bptt.init_params(
        "tanh", input_size=2, hidden_size=3, output_size=2, rng=0, dtype="float64"
    )
    with pytest.raises(ValueError, match=r"^at: expected weights with a finite sum, got inf"):
        bptt.value_and_grad(
            "tanh",
            params,
            np.ones((2, 1, 2)),
            np.zeros((2, 1), int),
            loss="cross_entropy",
            at=np.full((2, 1), 1e308),
        )


@pytest.mark.parametrize("name", ["nll", "NLLLoss"])
def test_the_suggestion_for_a_loss_of_log_probabilities_says_what_differs(name: str) -> None:
    params = bptt.init_params("tanh", input_size=2, hidden_size=3, output_size=2, rng=0)
    x = np.ones((2, 1, 2), np.float32)
    with pytest.raises(ValueError, match=r"'cross_entropy' \(of the outputs themselves: log_soft"):
        bptt.value_and_grad("tanh", params, x, np.zeros(1, int), loss=name, at="last")
