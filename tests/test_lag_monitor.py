"""`LagMonitor` follows the horizon within its budget, and a Ctrl-C stops the training."""

from __future__ import annotations

import json
import math
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.lags import probe
from bptt.lags.schedule import Schedule

STEPS, BATCH = 12, 6


class FakeClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def problem(cell: str = "tanh") -> tuple[bptt.Params, Any, Any]:
    rng = np.random.default_rng(3)
    params = bptt.init_params(
        cell, input_size=2, hidden_size=5, output_size=3, spectral_radius=0.7, rng=rng
    )
    x = rng.standard_normal((STEPS, BATCH, 2), dtype=np.float32)
    return params, x, rng.integers(0, 3, BATCH)


def trained(
    monitor: bptt.LagMonitor, clock: FakeClock, steps: int, seconds: float, at: Any = "last"
) -> None:
    """A training whose steps take so many seconds each."""
    params, x, ids = problem()
    target = ids if isinstance(at, (str, int)) and at != "all" else np.tile(ids, (STEPS, 1))
    for _ in range(steps):
        monitor.step("tanh", params, x, target, loss="cross_entropy", at=at)
        clock.now += seconds


def costing(clock: FakeClock, costs: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each measurement take the next of `costs`, and after them always the last."""
    measure, remaining = probe.measured, list(costs)

    def slow(*args: Any, **options: Any) -> bptt.LagGradients:
        clock.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return measure(*args, **options)

    monkeypatch.setattr(probe, "measured", slow)


@pytest.mark.parametrize("budget", [0.03, 0.2])
def test_overhead_stays_within_the_budget_and_makes_use_of_it(
    budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    costing(clock, [2.0], monkeypatch)
    monitor = bptt.LagMonitor(budget=budget, clock=clock)
    trained(monitor, clock, 4000, 1.0)
    assert 0.9 * budget < monitor.overhead <= budget
    assert len(monitor.history) == pytest.approx(budget * 4000 / 2, abs=3)


def test_a_training_of_two_hundred_steps_gets_a_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measurement takes as long as two steps, so that 3 % would be three of them."""
    clock = FakeClock()
    costing(clock, [0.02], monkeypatch)
    monitor = bptt.LagMonitor(clock=clock)
    trained(monitor, clock, 200, 0.01)
    steps = [record.step for record in monitor.history]
    assert len(steps) >= 10
    assert max(np.diff(steps)) <= 200 / 3
    assert steps[-1] > 200 / 2


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.3, 1.5])
@pytest.mark.parametrize("steps", [10, 200, 4000])
def test_a_monitor_takes_its_budget_and_one_second_at_most(
    steps: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    costing(clock, [seconds], monkeypatch)
    monitor = bptt.LagMonitor(clock=clock)
    trained(monitor, clock, steps, 0.01)
    spent = sum(record.seconds for record in monitor.history)
    assert spent <= 0.03 * 0.01 * steps + max(1.0, seconds) + 1e-9


def test_default_budget_is_three_percent() -> None:
    assert bptt.LagMonitor().budget == 0.03


def test_measurement_that_took_longer_than_expected_is_paid_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    costing(clock, [1.0, 1.0, 50.0, 1.0], monkeypatch)
    monitor = bptt.LagMonitor(clock=clock)
    trained(monitor, clock, 8000, 1.0)
    assert monitor.overhead <= 0.03
    third, fourth = monitor.history[2].step, monitor.history[3].step
    assert fourth - third > 50 / 0.03


def test_overhead_counts_the_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    costing(clock, [3.0], monkeypatch)
    monitor = bptt.LagMonitor(clock=clock)
    assert math.isnan(monitor.overhead)
    trained(monitor, clock, 11, 1.0)  # the last step's second is not known yet
    assert monitor.overhead == pytest.approx(3 / 10)


def test_every_counts_steps_and_not_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    costing(clock, [100.0], monkeypatch)
    monitor = bptt.LagMonitor(every=4, clock=clock)
    trained(monitor, clock, 10, 1.0)
    assert [record.step for record in monitor.history] == [0, 4, 8]


def test_history_of_a_long_training_stays_small() -> None:
    clock = FakeClock()
    schedule = Schedule(None, 0.03, clock, 1.5)
    schedule.step(lambda: "the first")
    schedule.steps = 10**6
    found = []
    for _ in range(4000):
        clock.now += 1e9
        found.append(schedule.step(lambda: "another"))
    assert found.count("another") == 2


def test_sequences_of_any_kind_are_measured_as_lag_gradients_measures_them() -> None:
    params, x, ids = problem()
    for how in (
        {"lengths": [12, 3, 0, 7, 12, 1]},
        {"reverse": True, "at": 0},
        {"reset": np.arange(STEPS)[:, None] % 5 == np.arange(BATCH)},
    ):
        monitor = bptt.LagMonitor(max_lag=STEPS - 1)
        options = {"loss": "cross_entropy", "at": "last", **how}
        found = monitor.step("tanh", params, x, ids, **options)
        expected = bptt.lag_gradients("tanh", params, x, ids, **options)
        assert found is not None
        at = found.lags
        np.testing.assert_array_equal(found.norm["params"], expected.norm["params"][at])
        assert len(at) > 4
    with pytest.raises(TypeError, match=r"LagMonitor: unknown options: lengthz$"):
        bptt.LagMonitor().step("tanh", params, x, ids, lengthz=[1])


def test_arguments_are_made_only_if_a_measurement_is_due() -> None:
    params, x, ids = problem()
    monitor, made = bptt.LagMonitor(every=3), []

    def arguments() -> dict[str, Any]:
        made.append(monitor.steps)
        return {"cell": "tanh", "params": params, "x": x, "target": ids, "at": -1}

    for _ in range(7):
        monitor.step_if_due(lambda: {**arguments(), "loss": "cross_entropy"})
    assert made == [0, 3, 6] == [record.step for record in monitor.history]


def test_records_are_what_lag_gradients_measures() -> None:
    params, x, ids = problem()
    monitor = bptt.LagMonitor(tolerance=0.1)
    found = monitor.step("tanh", params, x, ids, loss="cross_entropy", at="last")
    expected = bptt.lag_gradients("tanh", params, x, ids, loss="cross_entropy", at="last")
    (record,) = monitor.history
    assert found is not None
    assert record.horizon == expected.horizon(0.1) == found.horizon(0.1)
    assert record.horizon not in (None, 0, STEPS - 1)
    assert record.half_life == expected.half_life()
    np.testing.assert_array_equal(record.error, expected.error["params"])
    np.testing.assert_array_equal(record.norm, expected.norm["params"])


@pytest.mark.parametrize(("at", "last"), [("last", STEPS - 1), (4, 4), (-2, STEPS - 2)])
def test_loss_at_one_step_takes_all_lags(at: Any, last: int) -> None:
    monitor = bptt.LagMonitor()
    trained(monitor, FakeClock(), 1, 1.0, at)
    np.testing.assert_array_equal(monitor.history[0].lags, np.arange(last + 1))


def test_loss_at_many_steps_takes_fewer_lags_as_they_grow() -> None:
    params, _, _ = problem()
    x, ids = np.zeros((400, 2, 2), "float32"), np.zeros((400, 2), int)
    monitor = bptt.LagMonitor()
    monitor.step("tanh", params, x, ids, loss="cross_entropy", at="all")
    lags = monitor.history[0].lags
    assert lags[0] == 0
    assert lags[-1] == 399
    assert len(lags) < 70
    assert (np.diff(lags) >= 1).all()


@pytest.mark.parametrize(
    ("options", "lags"), [({"max_lag": 3}, [0, 1, 2, 3]), ({"lags": (0, 5)}, [0, 5])]
)
def test_lags_are_those_asked_for(options: dict[str, Any], lags: list[int]) -> None:
    monitor = bptt.LagMonitor(**options)
    trained(monitor, FakeClock(), 1, 1.0)
    assert monitor.history[0].lags.tolist() == lags


def test_measurements_are_spread_over_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """None follows at once when an expensive one has been paid back."""
    clock = FakeClock()
    costing(clock, [40.0, 1.0], monkeypatch)
    monitor = bptt.LagMonitor(clock=clock)
    trained(monitor, clock, 4000, 1.0)
    apart = np.diff([record.step for record in monitor.history])
    assert apart.min() >= 1 / 0.03


@pytest.mark.parametrize("at", ["last", 3, "all", np.ones((STEPS, BATCH), "float32")])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_sample_takes_the_same_sequences_of_all_arguments(cell: str, at: Any) -> None:
    params, x, ids = problem(cell)
    state = np.arange(BATCH * 5, dtype="float32").reshape(BATCH, 5) / 30
    states: Any = (state, -state) if cell == "lstm" else state
    one_step = isinstance(at, int) or (isinstance(at, str) and at == "last")
    target = ids if one_step else np.tile(ids, (STEPS, 1))
    found = bptt.LagMonitor(sample=2, rng=7).step(
        cell, params, x, target, loss="cross_entropy", at=at, state=states
    )
    rows = np.sort(np.random.default_rng(7).choice(BATCH, 2, replace=False))
    loss, _ = bptt.value_and_grad(
        cell,
        params,
        np.ascontiguousarray(x[:, rows]),
        target[rows] if one_step else np.ascontiguousarray(target[:, rows]),
        loss="cross_entropy",
        at=np.ascontiguousarray(at[:, rows]) if isinstance(at, np.ndarray) else at,
        state=(state[rows], -state[rows]) if cell == "lstm" else state[rows],
    )
    assert found is not None
    assert found.loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("sequences", [1, BATCH + 2])
def test_sample_of_data_that_do_not_fit_is_refused(sequences: int) -> None:
    params, x, ids = problem()
    given: Any = {"loss": "cross_entropy", "at": "last"}
    monitor = bptt.LagMonitor(sample=2)
    with pytest.raises(ValueError, match=rf"^target: expected {BATCH} sequences along axis 0"):
        monitor.step("tanh", params, x, np.resize(ids, sequences), **given)
    with pytest.raises(ValueError, match=r"^state: expected .* got shape \("):
        monitor.step("tanh", params, x, ids, state=np.zeros((sequences, 5), "f4"), **given)
    with pytest.raises(TypeError, match=r"^x: expected a NumPy array"):
        monitor.step("tanh", params, None, ids, **given)  # type: ignore[arg-type]
    assert not monitor.history


def test_sample_of_more_than_the_batch_takes_all_of_it() -> None:
    params, x, ids = problem()
    given: Any = {"loss": "cross_entropy", "at": "last"}
    found = bptt.LagMonitor(sample=BATCH + 1).step("tanh", params, x, ids, **given)
    assert found is not None
    assert found.loss == bptt.lag_gradients("tanh", params, x, ids, **given).loss


def test_ctrl_c_in_a_measurement_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lag_gradients` returns what it has by then; the training is to end all the same."""

    def interrupted(self: Any, parts: Any) -> bool:
        if self.lags:
            raise KeyboardInterrupt
        self.lags.append(parts[0].lag)
        return True

    monkeypatch.setattr("bptt.lags.measures.Curves.add", interrupted)
    monkeypatch.setattr("bptt.lags.measures.Curves.result", lambda self, complete, *_: _Partial())
    monitor = bptt.LagMonitor()
    with pytest.raises(KeyboardInterrupt):
        trained(monitor, FakeClock(), 1, 1.0, at="all")
    assert monitor.history == []


class _Partial:
    complete = False


def test_overflow_leaves_a_record_without_a_horizon() -> None:
    params, x, ids = problem("linear")
    params.w_hh[:] = 1e20 * np.eye(5, dtype="float32")
    params.b_hh = None
    monitor = bptt.LagMonitor()
    with np.errstate(all="ignore"):
        monitor.step(
            "linear", params, x[:4] * 1e-30, np.tile(ids, (4, 1)), loss="cross_entropy", at="all"
        )
    assert [record.horizon for record in monitor.history] == [None]


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"budget": 0}, ValueError, "budget: "),
        ({"budget": "much"}, TypeError, "budget: "),
        ({"tolerance": -1}, ValueError, "tolerance: "),
        ({"every": 0}, ValueError, "every: "),
        ({"sample": 0}, ValueError, "sample: "),
        ({"lags": [1], "max_lag": 1}, ValueError, "lags: "),
        ({"lags": 5}, TypeError, "lags: expected a sequence of integers, got int"),
        ({"lags": [3, 1]}, ValueError, "lags: expected them sorted"),
        ({"backend": "cuda"}, ValueError, "backend: expected one of"),
        ({"clock": 3}, TypeError, "clock: expected a function, got int"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: Any, named: str) -> None:
    with pytest.raises(error, match=f"^{named}"):
        bptt.LagMonitor(**options)


def test_to_dict_is_json() -> None:
    clock = FakeClock()
    monitor = bptt.LagMonitor(every=2, clock=clock)
    trained(monitor, clock, 3, 1.0)
    found = json.loads(json.dumps(monitor.to_dict()))
    assert [row["step"] for row in found["history"]] == [0, 2]
    assert len(found["history"][0]["error"]) == STEPS
    assert found["steps"] == 3


def test_plot_shows_the_horizons_over_the_steps() -> None:
    pytest.importorskip("matplotlib")
    clock = FakeClock()
    monitor = bptt.LagMonitor(every=1, clock=clock)
    trained(monitor, clock, 3, 1.0)
    axes = monitor.plot().axes[0]
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 1, 2]
    assert axes.get_xlim() == (0, 3)  # no steps before the first, and all that there were
    (mesh,) = axes.collections
    columns, rows = mesh.get_coordinates()[..., 0], mesh.get_coordinates()[..., 1]
    assert (columns.min(), columns.max()) == (0, 3)
    assert (rows.min(), rows.max()) == (-0.5, STEPS - 0.5)
    assert list(line.get_ydata()) == [record.horizon for record in monitor.history]
