"""``bptt demo --task adding``: the adding problem as it is stated, and what the demo says of it."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.cli import main
from bptt.cli.demo import file_names
from bptt.cli.tasks.adding import BASELINE, Adding, draw
from bptt.cli.training import optimise
from reports import figures_of, images_in, require_extra, results_of, stated_accuracy, undrawn


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished ``bptt demo --task adding``, of shorter sequences."""
    require_extra()
    folder = tmp_path_factory.mktemp("adding") / "out"
    with pytest.MonkeyPatch.context() as patch:
        _shorten(patch, lengths=(10, 20), training_steps=60)
        assert main(["demo", "--task", "adding", "--out", str(folder)]) == 0
    return folder


def _shorten(patch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let the demo run with other settings than those of the full one."""

    def make(*, seed: int, backend: str, quick: bool) -> Adding:
        return dataclasses.replace(Adding(seed, backend, quick), **changes)

    patch.setattr(Adding, "make", make)


def test_each_sequence_has_one_mark_in_each_half_and_asks_for_the_marked_sum() -> None:
    x, sums = draw(11, 40, np.random.default_rng(0))
    assert x.shape == (11, 40, 2)
    assert sums.shape == (40, 1)
    numbers, marks = x[..., 0], x[..., 1]
    assert set(np.unique(marks)) == {0, 1}
    np.testing.assert_array_equal(marks[:5].sum(axis=0), 1)
    np.testing.assert_array_equal(marks[5:].sum(axis=0), 1)
    np.testing.assert_allclose((numbers * marks).sum(axis=0), sums[:, 0], rtol=1e-6)
    assert numbers.min() >= 0
    assert numbers.max() < 1


def test_who_always_answers_one_has_the_error_of_the_baseline() -> None:
    _, sums = draw(10, 200_000, np.random.default_rng(1))
    assert np.mean((sums - 1) ** 2) == pytest.approx(BASELINE, rel=0.01)


def test_batches_are_new_at_each_step_and_repeat_with_the_seed() -> None:
    first, again, other = (Adding(seed, batch_size=3).batches(8) for seed in (0, 0, 1))
    x, _ = next(first)
    np.testing.assert_array_equal(x, next(again)[0])
    assert not np.array_equal(x, next(first)[0])
    assert not np.array_equal(x, next(other)[0])


def test_an_lstm_learns_to_add() -> None:
    task = Adding(cells=("lstm",), lengths=(12,), batch_size=32, training_steps=800)
    task = dataclasses.replace(task, hidden_size=65, learning_rate=1e-2)
    (network,) = task.networks()
    task.prepare(network)
    assert len(list(optimise(network, task))) == 800
    assert task.evaluate(network)["mean_squared_error"] < 0.1 * BASELINE


def test_full_demo_trains_each_cell_at_each_length_with_nearly_as_many_parameters() -> None:
    task = Adding.make(seed=0, backend="auto", quick=False)
    networks = task.networks()
    assert [(n.steps, n.cell) for n in networks] == [
        (steps, cell) for steps in (50, 100, 200) for cell in ("tanh", "gru", "lstm")
    ]
    for network in networks:
        task.prepare(network)
    counts = [network.parameters for network in networks]
    assert max(counts) < 1.05 * min(counts)


def test_quick_demo_is_the_full_one_with_a_tenth_of_the_steps() -> None:
    full, quick = (Adding.make(seed=2, backend="numpy", quick=each) for each in (False, True))
    assert quick.training_steps * 10 == full.training_steps
    assert quick == dataclasses.replace(full, quick=True, training_steps=quick.training_steps)


def test_demo_writes_parameters_numbers_figures_and_report(demo: Path) -> None:
    written = {str(path.relative_to(demo)) for path in demo.rglob("*") if path.is_file()}
    params = [
        f"params/{cell}-steps-{steps}.npz" for cell in ("tanh", "gru", "lstm") for steps in (10, 20)
    ]
    figures = [f"figures/{name}.png" for name in figures_of(demo)]
    assert written == {"results.json", "report.html", *figures, *params}
    assert figures_of(demo) == {"adding", "adding-distance"}
    assert set(figures) < set(file_names())


def test_demo_parameters_reproduce_the_error_that_was_written(demo: Path) -> None:
    for network in results_of(demo)["networks"]:
        course = network["course"]
        params = bptt.Params.load(demo / network["params_file"])
        x, sums = draw(network["steps"], 500, np.random.default_rng((0, network["steps"])))
        outputs, _ = bptt.predict(network["cell"], params, x, at="last")
        expected = pytest.approx(np.mean((outputs - sums) ** 2), rel=1e-4)
        assert course["held_out"]["mean_squared_error"][-1] == expected
        assert course["evaluated"] == [0, 50, 60]
        assert len(course["loss"]) == 60


def test_terms_that_were_measured_sum_to_the_whole_gradient(demo: Path) -> None:
    networks = results_of(demo)["networks"]
    for result in networks:
        assert len(result["before"]["state"]) == result["steps"]
    checks = [result[when]["check"] for result in networks for when in ("before", "after")]
    assert 1e-17 < max(checks) < 1e-12
    assert stated_accuracy(demo) == pytest.approx(max(checks), rel=0.05, abs=0)


def test_report_needs_no_other_file_and_names_every_network(demo: Path) -> None:
    report = (demo / "report.html").read_text()
    assert images_in(demo) == 2
    assert "quick run" not in report
    for steps in (10, 20):
        for cell in ("tanh", "gru", "lstm"):
            assert f"<td>T = {steps}, {cell}</td>" in report
    assert "interrupted" not in report


def test_forced_demo_replaces_the_files_of_the_other_task(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/regimes.png").touch()
    (tmp_path / "notes.txt").touch()
    undrawn(monkeypatch)
    _shorten(monkeypatch, lengths=(6,), cells=("tanh",), training_steps=1)
    assert main(["demo", "--task", "adding", "--force", "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "figures/regimes.png").exists()
    assert (tmp_path / "notes.txt").exists()


def test_ctrl_c_keeps_what_is_done(
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    undrawn(monkeypatch)
    _shorten(monkeypatch, lengths=(6,), training_steps=40, steps_per_evaluation=20)
    calls, score = [], Adding.score

    def interrupted_later(self: Adding, outputs: Any, target: Any) -> float:
        calls.append(outputs)
        if len(calls) == 6:  # once for the answer 1, thrice in the first network, then here
            signal.raise_signal(signal.SIGINT)
        return score(self, outputs, target)

    monkeypatch.setattr(Adding, "score", interrupted_later)
    assert main(["demo", "--task", "adding", "--out", str(tmp_path / "out")]) == 130
    results = results_of(tmp_path / "out")
    assert results["status"] == "interrupted"
    assert [result["finished"] for result in results["networks"]] == [True, False]
    report = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert "1 of 3 networks were trained to the end. gru, T = 6 was stopped after 20" in report
    assert "what was done is kept" in capsys.readouterr().out


def test_backend_that_does_not_know_a_cell_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(cell: str, *args: Any, **options: Any) -> Any:
        raise TypeError(f"backend 'numpy' does not compute cell {cell!r}")

    monkeypatch.setattr("bptt.forward", unknown)
    command = ["demo", "--task", "adding", "--backend", "numpy", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        "bptt demo: --backend numpy: backend 'numpy' does not compute cell 'tanh'\n"
    )
    assert not (tmp_path / "out").exists()
