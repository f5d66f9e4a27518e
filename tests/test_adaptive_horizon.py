"""`AdaptiveHorizon`: the lags that it keeps, and the relative bias that is left."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.lags import probe
from problems import make_problem

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


def milliseconds() -> Callable[[], float]:
    """A clock by which every measurement, and every step of training, takes a millisecond."""
    ticks = itertools.count()
    return lambda: next(ticks) / 1000


def relative_bias(cut: bptt.Grads, full: bptt.Grads) -> float:
    gap = sum(np.sum((getattr(cut, n) - getattr(full, n)) ** 2) for n in WEIGHTS)
    return float(np.sqrt(gap / sum(np.sum(getattr(full, n) ** 2) for n in WEIGHTS)))


@pytest.mark.parametrize("at", ["last", "all", "step"])
@pytest.mark.parametrize("tolerance", [0.5, 0.1, 0.001])
def test_the_bias_on_what_was_measured_is_below_the_bound(
    at: str, tolerance: float, cell: str, backend: str
) -> None:
    p = make_problem(cell, 30, 3, 2, 5, 2, seed=13)
    where, target = p.loss_at(at, "squared_error")
    call: dict[str, Any] = {"loss": "squared_error", "at": where, "state": p.state}
    horizon = bptt.AdaptiveHorizon(tolerance, margin=1, backend=backend)
    K = horizon.update(p.cell, p.params, p.x, target, **call)
    assert K == horizon.K
    assert horizon.bias is not None
    assert horizon.bias <= tolerance
    call["backend"] = backend
    _, full = bptt.value_and_grad(p.cell, p.params, p.x, target, **call)
    _, cut = bptt.value_and_grad(p.cell, p.params, p.x, target, truncate=K, **call)
    assert relative_bias(cut, full) <= horizon.bias + 1e-12


def test_a_smaller_tolerance_keeps_more_lags_and_a_margin_as_well() -> None:
    p = make_problem("tanh", 60, 3, 2, 5, 2, seed=14)
    found = []
    for tolerance, margin in ((0.5, 1), (0.1, 1), (0.1, 10), (0.001, 1)):
        horizon = bptt.AdaptiveHorizon(tolerance, margin=margin)
        found.append(
            horizon.update("tanh", p.params, p.x, p.target[-1], loss="squared_error", at="last")
        )
    assert found == sorted(set(found))


def test_norms_beyond_the_largest_lag_that_is_measured_fall_geometrically() -> None:
    """On a network of one unit that does so exactly, 0.9 each lag, few lags tell the same K."""
    one = np.ones((1, 1))
    params = bptt.Params(one, 0.9 * one, w_ho=one)
    x = np.zeros((200, 1, 1))
    x[:] = 1
    found = []
    for max_lag in (None, 8, 3, 1):
        horizon = bptt.AdaptiveHorizon(0.05, margin=1, max_lag=max_lag)
        found.append(
            horizon.update("linear", params, x, np.zeros((1, 1)), loss="squared_error", at="last")
        )
        assert horizon.lags is not None
        assert len(horizon.lags.lags) == (200 if max_lag is None else max_lag + 1)
    assert found[0] == pytest.approx(np.log(0.05) / np.log(0.9), abs=2)
    assert max(found) - min(found) <= 4


def test_nothing_is_cut_where_gradients_do_not_fade() -> None:
    one = np.ones((1, 1))
    params = bptt.Params(one, 1.1 * one, w_ho=one)
    x = np.ones((40, 1, 1))
    horizon = bptt.AdaptiveHorizon(0.01, max_lag=5)
    assert (
        horizon.update("linear", params, x, np.zeros((1, 1)), loss="squared_error", at="last") == 39
    )


def test_the_bias_stays_within_the_tolerance_while_a_network_is_trained() -> None:
    """In 95 % of the steps, on the batch of each: 20 steps ahead in a noisy sum of two waves."""
    rng = np.random.default_rng(0)
    params = bptt.init_params("gru", input_size=1, hidden_size=16, output_size=1, rng=1)
    horizon = bptt.AdaptiveHorizon(0.1)
    square = {name: np.zeros_like(w) for name, w in params.arrays().items()}
    biases, reach = [], []
    for step in range(1, 241):
        t = rng.uniform(0, 1000, 16) + np.arange(121)[:, None]
        wave = (np.sin(t / 3) + np.sin(t / 7.3)).astype("float32")[..., None]
        x = wave[:100] + 0.1 * rng.standard_normal((100, 16, 1)).astype("float32")
        call = ("gru", params, x, wave[120])
        loss: dict[str, Any] = {"loss": "squared_error", "at": "last"}
        K = horizon.update(*call, **loss)
        _, full = bptt.value_and_grad(*call, **loss)
        _, cut = bptt.value_and_grad(*call, truncate=K, **loss)
        biases.append(relative_bias(cut, full))
        reach.append(K)
        for name, w in params.arrays().items():
            g = getattr(cut, name)
            square[name] += 0.02 * (g * g - square[name])
            w -= np.float32(0.01) * g / (np.sqrt(square[name] / (1 - 0.98**step)) + 1e-6)
    assert np.mean(np.array(biases) <= 0.1) >= 0.95
    assert np.median(reach) < 90  # and not by cutting nothing


def steps_measured(follower: Any, steps: int) -> list[int]:
    """The steps at which a `LagMonitor` or an `AdaptiveHorizon` measures."""
    p = make_problem("tanh", 20, 3, 2, 5, 2, seed=15)
    call = follower.step if isinstance(follower, bptt.LagMonitor) else follower.update
    counts = []
    for _ in range(steps):
        call("tanh", p.params, p.x, p.target[-1], loss="squared_error", at="last")
        counts.append(follower._schedule.count)
    return [step for step, more in enumerate(np.diff(counts, prepend=0)) if more]


def test_a_monitor_measures_at_every_so_many_steps() -> None:
    assert steps_measured(bptt.LagMonitor(every=10), 45) == [0, 10, 20, 30, 40]


def test_a_horizon_measures_once_in_so_many_steps_and_more_often_at_the_start() -> None:
    measured = steps_measured(bptt.AdaptiveHorizon(0.1, every=10), 100)
    assert measured[:5] == [0, 1, 2, 3, 4]
    assert np.diff(measured)[-3:].tolist() == [10, 10, 10]
    assert (np.diff(np.diff(measured)) >= 0).all()


def test_a_horizon_measures_at_the_same_steps_however_long_they_take() -> None:
    slow = itertools.count()
    timed = bptt.AdaptiveHorizon(0.1, clock=lambda: next(slow) * 100)
    assert steps_measured(timed, 300) == steps_measured(bptt.AdaptiveHorizon(0.1), 300)


def test_a_horizon_measures_often_at_the_start_and_within_its_budget_later() -> None:
    horizon = bptt.AdaptiveHorizon(0.1, every=None, clock=milliseconds())
    measured = steps_measured(horizon, 100)
    assert measured == [0, 1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 60, 75, 94]


def test_a_horizon_costs_its_budget_and_a_second_at_most() -> None:
    """By a clock that goes on by half a second when it is read, after the training of as much."""
    ticks = itertools.count()
    horizon = bptt.AdaptiveHorizon(0.1, every=None, budget=0.2, clock=lambda: next(ticks) / 2)
    measured = steps_measured(horizon, 400)
    assert len(measured) / 2 <= 1 + 0.2 * 400 / 2


def test_a_sample_of_a_horizon_is_drawn_as_that_of_a_monitor() -> None:
    p = make_problem("lstm", 12, 6, 2, 5, 3)
    call: Any = ("lstm", p.params, p.x, p.target)
    given: dict[str, Any] = {"loss": "squared_error", "at": "all", "state": p.state}
    horizon = bptt.AdaptiveHorizon(0.1, sample=2, rng=7)
    horizon.update(*call, **given)
    monitor = bptt.LagMonitor(sample=2, rng=7, lags=range(12))
    found = monitor.step(*call, **given)
    assert found is not None
    assert horizon.lags is not None
    np.testing.assert_array_equal(horizon.lags.norm["params"], found.norm["params"])
    assert horizon.lags.loss == found.loss
    assert bptt.AdaptiveHorizon(0.1, sample=9).update(*call, **given) is not None


def test_a_gradient_of_all_states_is_measured_over_all_steps_whatever_at_says() -> None:
    p = make_problem("tanh", 12, 3, 2, 5, 3)
    for at in ("last", "all", 3):
        horizon = bptt.AdaptiveHorizon(1e-9, margin=1)
        assert horizon.update("tanh", p.params, p.x, dy=p.dy, at=at) == 11
        monitor = bptt.LagMonitor(sample=2)
        monitor.step("tanh", p.params, p.x, dy=p.dy, at=at)
        assert monitor.history[0].lags[-1] == 11


@pytest.mark.parametrize("at", [12, -13, "first", None, 1.5])
def test_a_step_that_there_is_not_is_refused_by_all_that_measures(at: Any) -> None:
    p = make_problem("tanh", 12, 3, 2, 5, 3)
    call: Any = ("tanh", p.params, p.x, p.target[-1])
    for measure in (
        bptt.lag_gradients,
        bptt.LagMonitor(sample=2).step,
        bptt.AdaptiveHorizon(0.1, max_lag=3).update,
    ):
        with pytest.raises((TypeError, ValueError), match=r"^at: expected"):
            measure(*call, loss="squared_error", at=at)


def test_ctrl_c_in_a_measurement_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    p = make_problem("tanh", 12, 3, 2, 5, 3)

    class Partial:
        complete = False

    monkeypatch.setattr(probe, "measured", lambda question: Partial())
    horizon = bptt.AdaptiveHorizon(0.1)
    with pytest.raises(KeyboardInterrupt):
        horizon.update("tanh", p.params, p.x, p.target, loss="squared_error")
    assert (horizon.K, horizon.steps) == (None, 0)


@pytest.mark.parametrize(
    ("function", "keywords"),
    [
        (bptt.lag_gradients, "terms progress dy loss at backend max_lag lags route sample rng"),
        (bptt.lag_terms, "dy loss at reduction state backend max_lag lags route sample rng"),
        (bptt.LagMonitor, "tolerance max_lag lags every budget sample backend rng clock"),
        (bptt.AdaptiveHorizon, "memory margin max_lag every budget sample backend rng clock"),
        (bptt.LagMonitor.step, "dy loss at reduction state"),
        (bptt.AdaptiveHorizon.update, "dy loss at reduction state"),
    ],
)
def test_help_shows_all_keywords_and_others_are_named(
    function: Callable[..., Any], keywords: str
) -> None:
    shown = inspect.signature(function).parameters
    for name in keywords.split():
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert shown[name].default is not inspect.Parameter.empty
    of = {"step": bptt.LagMonitor(), "update": bptt.AdaptiveHorizon(0.1)}.get(function.__name__)
    data = () if isinstance(function, type) else ("tanh", None, None)
    if function is bptt.AdaptiveHorizon:
        data = (0.1,)
    with pytest.raises(TypeError, match=r"^\w+: unknown options: lagz$"):
        (function if of is None else getattr(of, function.__name__))(*data, lagz=1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tolerance": 0}, ValueError, "tolerance: expected a number above 0, got 0"),
        ({"tolerance": "1 %"}, TypeError, "tolerance: expected a number, got str"),
        ({"tolerance": np.nan}, ValueError, "tolerance: expected a finite number"),
        ({"budget": 0}, ValueError, "budget: expected a positive number, got 0"),
        ({"sample": 0}, ValueError, "sample: expected an integer of at least 1, got 0"),
        ({"backend": "cuda"}, ValueError, "backend: expected one of"),
        ({"every": 0}, ValueError, "every: expected an integer of at least 1, got 0"),
        ({"memory": 0}, ValueError, "memory: expected an integer of at least 1, got 0"),
        ({"margin": 0.5}, ValueError, "margin: expected a number of at least 1, got 0.5"),
        ({"max_lag": 0}, ValueError, "max_lag: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_options_of_a_horizon_are_refused(
    options: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        bptt.AdaptiveHorizon(**{"tolerance": 0.1, **options})


@pytest.mark.parametrize("option", ["lags", "route", "max_lag", "terms", "backend"])
def test_an_update_takes_no_option_that_would_change_what_is_cut(option: str) -> None:
    p = make_problem("gru", 4, 2, 2, 3)
    with pytest.raises(TypeError, match=option):
        bptt.AdaptiveHorizon(0.1).update(
            "gru", p.params, p.x, p.target[-1], loss="squared_error", at="last", **{option: None}
        )


def test_bad_input_to_an_update_is_refused_and_measured_again() -> None:
    p = make_problem("tanh", 4, 2, 2, 3)
    horizon = bptt.AdaptiveHorizon(0.1)
    assert horizon.K is None
    with pytest.raises(TypeError, match="x: expected a NumPy array"):
        horizon.update("tanh", p.params, 3, p.target[-1], loss="squared_error", at="last")
    with pytest.raises(ValueError, match="loss: expected one of"):
        horizon.update("tanh", p.params, p.x, p.target[-1], loss="mse", at="last")
    assert horizon.K is None
    assert (
        horizon.update("tanh", p.params, p.x, p.target[-1], loss="squared_error", at="last")
        is not None
    )
