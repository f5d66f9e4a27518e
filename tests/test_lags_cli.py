"""``bptt lags`` writes what `bptt.lag_gradients` measures, loses nothing, and fails in one line."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.cli import main
from reports import figures_of, images_in, require_extra, results_of, stated_accuracy, undrawn

STEPS, BATCH = 9, 4


@pytest.fixture(autouse=True)
def _extra() -> None:
    require_extra()


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    undrawn(monkeypatch)


@pytest.fixture(scope="module")
def of_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run on the digits."""
    folder = tmp_path_factory.mktemp("lags") / "out"
    argv = ["lags", "--quick", "--cells", "tanh,lstm", "--sample", "40", "--out", str(folder)]
    assert main(argv) == 0
    return folder


def saved(folder: Path, cell: str = "gru", **replaced: Any) -> list[str]:
    """The options that name a network and data in `folder`, which are written."""
    rng = np.random.default_rng(2)
    params = bptt.init_params(cell, input_size=2, hidden_size=3, output_size=3, rng=rng)
    params.save(folder / "net.npz")
    arrays = {
        "x": rng.standard_normal((STEPS, BATCH, 2), dtype=np.float32),
        "target": rng.integers(0, 3, (STEPS, BATCH)),
        **replaced,
    }
    np.savez(folder / "data.npz", **{name: a for name, a in arrays.items() if a is not None})
    files = ["--params", str(folder / "net.npz"), "--data", str(folder / "data.npz")]
    return [*files, "--cell", cell]


def expected(folder: Path, cell: str, **options: Any) -> dict[str, Any]:
    params = bptt.Params.load(folder / "net.npz").astype("float64")
    with np.load(folder / "data.npz") as data:
        x, target = data["x"].astype("float64"), data["target"]
    return bptt.lag_gradients(cell, params, x, target, **options).to_dict()


# --- what it writes


def test_task_writes_numbers_figures_and_report(of_task: Path) -> None:
    assert figures_of(of_task) == {"heat", "error", "routes", "lyapunov", "training"}
    found = results_of(of_task)
    assert found["status"] == "complete"
    assert [network["cell"] for network in found["networks"]] == ["tanh", "lstm"]
    routes = {"direct", "recurrent"}
    tanh, lstm = (routes & set(network) for network in found["networks"])
    assert (tanh, lstm) == (set(), routes)


def test_norms_of_the_routes_are_those_of_parts_of_the_whole(of_task: Path) -> None:
    lstm = results_of(of_task)["networks"][1]
    direct, recurrent = (lstm[route]["norm"]["state"] for route in ("direct", "recurrent"))
    whole = lstm["lags"]["norm"]["state"]
    assert direct[0] == pytest.approx(whole[0], rel=1e-6)
    assert recurrent[0] == 0
    for lag in range(len(whole)):
        assert abs(direct[lag] - recurrent[lag]) <= whole[lag] * (1 + 1e-6)


def test_report_needs_no_other_file_and_shows_all_figures(of_task: Path) -> None:
    assert images_in(of_task) == 5
    assert "interrupted" not in (of_task / "report.html").read_text()


def test_report_states_what_following_the_training_took(of_task: Path) -> None:
    for network in results_of(of_task)["networks"]:
        training = network["monitor"]
        assert training["steps"] == 88
        assert training["history"][0]["step"] == 0
        assert f"{training['overhead']:.1%}" in (of_task / "report.html").read_text()


def test_report_states_how_far_the_summed_terms_are_from_the_gradient(of_task: Path) -> None:
    checks = []
    for n in results_of(of_task)["networks"]:
        checks += [
            part["check"] for part in n.values() if isinstance(part, dict) and "check" in part
        ]
    assert 1e-17 < max(checks) < 1e-12
    assert stated_accuracy(of_task) == pytest.approx(max(checks), rel=0.05, abs=0)


def test_untrained_networks_have_no_course_of_training(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--task", "adding", "--untrained", "--cells", "tanh", "--max-lag", "5"]
    assert main(["lags", *options, "--sample", "8", "--out", str(out)]) == 0
    assert figures_of(out) == {"heat", "error", "lyapunov"}
    (network,) = results_of(out)["networks"]
    assert "monitor" not in network
    assert network["lags"]["lags"] == list(range(6))


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ([], {"at": "all"}),
        (["--max-lag", "3"], {"at": "all", "max_lag": 3}),
        (["--lags", "0,2,7", "--backend", "numpy"], {"at": "all", "lags": (0, 2, 7)}),
    ],
)
@pytest.mark.parametrize("cell", ["tanh", "gru"])
@pytest.mark.usefixtures("_undrawn")
def test_saved_network_gives_what_lag_gradients_does(
    cell: str, options: list[str], same: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["lags", *saved(tmp_path, cell), *options, "--out", str(out)]) == 0
    (network,) = results_of(out)["networks"]
    wanted = expected(tmp_path, cell, loss="cross_entropy", **same)
    for curve in ("norm", "error", "share", "cosine"):
        for key, values in wanted[curve].items():
            np.testing.assert_allclose(network["lags"][curve][key], values, rtol=1e-6, atol=1e-13)
    assert network["lags"]["lags"] == wanted["lags"]
    np.testing.assert_allclose(network["every_step"]["signal"], wanted["signal"], rtol=1e-6)


@pytest.mark.usefixtures("_undrawn")
def test_loss_at_one_step_is_read_at_every_step_for_the_heat_map(tmp_path: Path) -> None:
    target = np.array([0, 1, 2, 1])
    out = tmp_path / "out"
    options = [*saved(tmp_path, target=target), "--at", "last", "--out", str(out)]
    assert main(["lags", *options]) == 0
    (network,) = results_of(out)["networks"]
    assert network["lags"]["loss"] == pytest.approx(
        expected(tmp_path, "gru", loss="cross_entropy", at="last")["loss"], rel=1e-6
    )
    signal_at_last = np.array(network["lags"]["signal"])
    everywhere = np.array(network["every_step"]["signal"])
    for lag in range(STEPS):
        k = STEPS - 1 - lag
        # The mean over T steps divides each step's own loss by T.
        assert everywhere[lag, k] * STEPS == pytest.approx(signal_at_last[lag, k], rel=1e-5)


@pytest.mark.usefixtures("_undrawn")
def test_a_gradient_that_is_not_finite_leaves_a_report_that_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = saved(tmp_path, "tanh")
    params = bptt.Params.load(tmp_path / "net.npz")
    params.w_ih[:] = np.nan
    params.save(tmp_path / "net.npz")
    assert main(["lags", *options, "--out", str(out)]) == 0
    assert "overflows at lag 0" in (out / "report.html").read_text()
    assert not any((out / "figures").iterdir())


def test_sequences_of_one_step_have_one_lag(tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = {"x": np.ones((1, 2, 2), "float32"), "target": np.array([[0, 1]])}
    assert main(["lags", *saved(tmp_path, "lstm", **one), "--out", str(out)]) == 0
    (network,) = results_of(out)["networks"]
    assert network["lags"]["lags"] == [0]


# --- what the figures show


def measured(cell: str = "tanh") -> bptt.LagGradients:
    rng = np.random.default_rng(0)
    params = bptt.init_params(cell, input_size=2, hidden_size=4, rng=rng, spectral_radius=0.6)
    x, dy = (rng.standard_normal((STEPS, 2, n), dtype=np.float32) for n in (2, 4))
    return bptt.lag_gradients(cell, params, x, dy=dy)


def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_heat_map_has_the_step_of_the_loss_across_and_the_lag_up() -> None:
    found, panel = measured(), axes()
    shown = found.draw_signal(panel).get_array().reshape(STEPS, STEPS)
    for lag in range(STEPS):
        for t in range(STEPS):
            if t < lag:
                assert shown.mask[lag, t]
            else:
                assert shown[lag, t] == found.signal[lag, t - lag]


@pytest.mark.parametrize("curve", ["error", "share"])
def test_horizon_is_marked_on_error_and_share(curve: str) -> None:
    found, panel = measured(), axes()
    horizon = found.horizon(0.2)
    assert horizon not in (None, 0, STEPS - 1)
    found.draw(panel, curve, tolerance=0.2)
    assert [line.get_xdata()[0] for line in panel.lines[1:]] == [horizon, horizon]


def test_shares_are_summed_up() -> None:
    found, panel = measured(), axes()
    found.draw(panel, "share", "w_hh")
    np.testing.assert_allclose(panel.lines[0].get_ydata(), np.cumsum(found.share["w_hh"]))


def test_wrong_curve_is_named() -> None:
    with pytest.raises(ValueError, match=r"^curve: "):
        measured().draw(axes(), "errors")


# --- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", "last"], "--at: has no meaning without --params"),
        (["--at", "0", "--untrained"], "--at: has no meaning without --params"),
        (["--max-lag", "64", "--untrained"], "max_lag: expected at most 63"),
        (["--sample", "1", "--untrained"], "sample: "),
        (["--lags", "3,2", "--untrained"], "lags: "),
        (["--params", "FILE", "--cell", "tanh"], "--data: expected it beside --params"),
        (["--params", "FILE", "--task", "digits"], "--task: has no meaning with --params"),
        (["--params", "no.npz", "--cell", "tanh", "--data", "d"], "--params: cannot read no.npz"),
    ],
)
def test_wrong_call_touches_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["lags", *options, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bptt lags: {message}")
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"target": None}, "--data: 'FILE' holds ['x'], expected the arrays x and target"),
        ({"x": np.ones((3, 2))}, "--data: 'FILE': x: expected floats of shape (T, B, I)"),
        ({"x": np.ones((STEPS, BATCH, 5))}, "x: "),
        ({"x": np.full((STEPS, BATCH, 2), np.nan)}, "--data: 'FILE': x: expected finite numbers"),
        ({"target": np.zeros((STEPS, BATCH + 1), int)}, "target: "),
    ],
)
def test_data_that_do_not_fit_are_named_before_anything_is_written(
    replaced: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main(["lags", *saved(tmp_path, **replaced), "--out", str(out)]) == 2
    message = message.replace("FILE", str(tmp_path / "data.npz"))
    assert capsys.readouterr().err.startswith(f"bptt lags: {message}")
    assert not out.exists()


@pytest.mark.parametrize(("option", "name"), [("--params", "net.npz"), ("--data", "data.npz")])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "is empty"),
        (lambda content: b"no data", "is not an .npz file"),
        (lambda content: content[:-30], "is damaged: its end is missing"),
        (lambda content: content.replace(b"NUMPY", b"MUMPY", 1), "is damaged: the checksum of "),
    ],
)
def test_damaged_file_is_named_with_what_is_wrong(
    option: str,
    name: str,
    damage: Callable[[bytes], bytes],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = saved(tmp_path)
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(damage(path.read_bytes()))
    assert main(["lags", *options, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bptt lags: {option}: '{path}' {words}")
    assert error.count("\n") == 1
    assert not out.exists()


def test_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = saved(tmp_path)
    (tmp_path / "data.npz").unlink()
    (tmp_path / "data.npz").mkdir()
    assert main(["lags", *options, "--out", str(tmp_path / "out")]) == 2
    expected = f"bptt lags: --data: cannot read {tmp_path}/data.npz: Is a directory\n"
    assert capsys.readouterr().err == expected


def test_parameters_of_wrong_shapes_are_named_by_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = saved(tmp_path)
    np.savez(tmp_path / "net.npz", w_ih=np.ones((3, 2)), w_hh=np.ones((4, 4)))
    assert main(["lags", *options, "--out", str(tmp_path / "out")]) == 2
    begin = f"bptt lags: --params: '{tmp_path}/net.npz' does not hold bptt.Params: w_ih: expected"
    assert capsys.readouterr().err.startswith(begin)


@pytest.mark.parametrize("option", ["--params", "--data", "--out"])
def test_empty_path_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["lags", *saved(tmp_path), option, ""])
    assert end.value.code == 2
    assert f"argument {option}: expected a path, got ''" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"net.npz", "data.npz"}


# --- the cell that parameters were saved with


@pytest.mark.usefixtures("_undrawn")
def test_cell_of_the_file_is_taken(tmp_path: Path) -> None:
    options = saved(tmp_path, "gru")[:-2]
    bptt.Params.load(tmp_path / "net").save(tmp_path / "net", cell="gru")
    for out in ("named", "taken"):
        more = ["--cell", "gru"] if out == "named" else []
        assert main(["lags", *options, *more, "--max-lag", "2", "--out", str(tmp_path / out)]) == 0
    assert results_of(tmp_path / "taken")["networks"][0]["cell"] == "gru"


@pytest.mark.parametrize(
    ("saved_with", "options", "message"),
    [
        (None, [], "--cell: expected it, since FILE was saved without a cell"),
        ("relu", ["--cell", "tanh"], "--cell: FILE was saved with cell 'relu', got 'tanh'"),
        ("mine", [], "--params: FILE is for cell 'mine', which is no cell of bptt's"),
    ],
)
def test_cell_that_is_not_that_of_the_file_is_refused(
    saved_with: str | None,
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files_of_tanh = saved(tmp_path, "tanh")[:-2]
    stored = bptt.Params.load(tmp_path / "net.npz").arrays()
    if saved_with is not None:
        stored["cell"] = np.array(saved_with)
    np.savez(tmp_path / "net.npz", **stored)
    assert main(["lags", *files_of_tanh, *options, "--out", str(tmp_path / "out")]) == 2
    message = message.replace("FILE", str(tmp_path / "net.npz"))
    assert capsys.readouterr().err == f"bptt lags: {message}\n"
    assert not (tmp_path / "out").exists()


def test_lengths_of_the_data_are_those_of_the_sequences(tmp_path: Path) -> None:
    lengths = np.arange(BATCH) % STEPS + 1
    x = np.random.default_rng(4).standard_normal((STEPS, BATCH, 2), dtype=np.float32)
    for b, length in enumerate(lengths):
        x[length:, b] = np.nan
    argv = saved(tmp_path, "gru", x=x, lengths=lengths)
    assert main(["lags", *argv, "--lengths", "--out", str(tmp_path / "out")]) == 0
    network = results_of(tmp_path / "out")["networks"][0]
    found = expected(tmp_path, "gru", loss="cross_entropy", lengths=lengths)
    for name, norm in found["norm"].items():
        np.testing.assert_allclose(network["lags"]["norm"][name], norm, rtol=1e-5)


def test_half_life_of_several_lengths_is_that_of_lags_which_all_have(tmp_path: Path) -> None:
    """Of larger ones it would tell how many sequences are long."""
    lengths = np.where(np.arange(BATCH) < BATCH - 1, STEPS // 2, STEPS)
    argv = saved(tmp_path, "gru", lengths=lengths)
    assert main(["lags", *argv, "--lengths", "--out", str(tmp_path / "out")]) == 0
    lags = bptt.LagGradients.load(_lags_alone(tmp_path))
    shown = f"{lags.half_life(max_lag=STEPS // 2 - 1):#.3g}"
    assert shown != f"{lags.half_life():#.3g}"
    report = (tmp_path / "out" / "report.html").read_text()
    assert f"<td>{shown}</td>" in report
    assert "end at the last lag that all have" in report


def _lags_alone(folder: Path) -> Path:
    """The lags that a report's results.json has of its first network, in a file of their own."""
    found = results_of(folder / "out")["networks"][0]["lags"]
    (folder / "lags.json").write_text(json.dumps(found))
    return folder / "lags.json"


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (None, "expected the arrays x, target and lengths"),
        (np.full(BATCH, STEPS + 1), "lengths: "),
        (np.ones(BATCH + 1, int), "lengths: "),
    ],
)
def test_lengths_that_the_data_cannot_have_are_refused(
    lengths: np.ndarray | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = saved(tmp_path, "gru", lengths=lengths)
    assert main(["lags", *argv, "--lengths", "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lengths_that_are_there_are_not_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = saved(tmp_path, "gru", lengths=np.full(BATCH, STEPS))
    assert main(["lags", *argv, "--out", str(tmp_path / "out")]) == 2
    assert "give --lengths" in capsys.readouterr().err


def test_folder_that_holds_something_is_refused(
    of_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (of_task / "results.json").read_bytes()
    assert main(["lags", "--untrained", "--out", str(of_task)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (of_task / "results.json").read_bytes() == before


# --- Ctrl-C


@pytest.mark.usefixtures("_undrawn")
def test_ctrl_c_keeps_the_networks_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure, calls = bptt.lag_gradients, []

    def interrupted(cell: str, *arguments: Any, **options: Any) -> Any:
        calls.append(cell)
        if cell == "gru":
            raise KeyboardInterrupt
        return measure(cell, *arguments, **options)

    monkeypatch.setattr("bptt.lag_gradients", interrupted)
    out = tmp_path / "out"
    options = ["--untrained", "--max-lag", "2", "--sample", "4", "--out", str(out)]
    assert main(["lags", *options]) == 130
    assert calls == ["tanh", "tanh", "gru"]
    assert "what was done is kept" in capsys.readouterr().out
    found = results_of(out)
    assert found["status"] == "interrupted"
    assert [network["cell"] for network in found["networks"]] == ["tanh"]
    assert "1 of 3 networks" in (out / "report.html").read_text()


@pytest.mark.usefixtures("_undrawn")
def test_ctrl_c_in_training_measures_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = bptt.LagMonitor.step

    def interrupting(self: bptt.LagMonitor, *arguments: Any, **options: Any) -> Any:
        if self.steps == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments, **options)

    monkeypatch.setattr(bptt.LagMonitor, "step", interrupting)
    out = tmp_path / "out"
    assert main(["lags", "--quick", "--sample", "4", "--max-lag", "2", "--out", str(out)]) == 130
    (network,) = results_of(out)["networks"]
    assert network["monitor"]["steps"] == 4
    assert not network["finished"]
    assert network["lags"]["complete"]
    assert "The tanh network shows what was done of it" in (out / "report.html").read_text()


@pytest.mark.usefixtures("_undrawn")
def test_ctrl_c_before_anything_is_done_leaves_an_honest_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("bptt.lag_gradients", interrupted)
    assert main(["lags", "--untrained", "--out", str(tmp_path / "out")]) == 130
    assert results_of(tmp_path / "out")["networks"] == []
    assert "0 of 3 networks" in (tmp_path / "out" / "report.html").read_text()
