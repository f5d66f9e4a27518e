"""The ``bptt`` command does what it says, loses nothing, and fails in one line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends.native import NativeBackend
from bptt.cli import main
from bptt.cli.measure import far_over_near, measure_loss_steps, measure_moment, memory_gate
from bptt.cli.network import Network
from bptt.cli.options import CommandError, open_folder
from bptt.cli.tasks.digits import Digits, load_digits
from bptt.cli.training import Adam, global_norm, optimise
from reports import figures_of, images_in, require_extra, results_of, stated_accuracy

NETWORKS = [
    f"{cell}-radius-{radius}" for cell in ("linear", "tanh") for radius in ("0.8", "1.0", "1.2")
]
NETWORKS += ["gru-radius-0.8", "lstm-radius-0.8"]
FIGURES = ("learning", "regimes", "distance", "share", "cut", "horizon", "readout", "gated")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished ``bptt demo --quick``."""
    require_extra()
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "--quick", "--out", str(folder)]) == 0
    return folder


# --- bptt info


def test_info_prints_what_info_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out == f"{bptt.info()}\n"


def test_info_as_json_is_its_dict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    expected = json.loads(json.dumps(bptt.info().to_dict()))
    assert json.loads(capsys.readouterr().out) == expected


def test_module_runs_as_a_command_without_the_demo_extra() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['bptt', 'info']\n"
        "try: runpy.run_module('bptt', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "loaded = {'matplotlib', 'sklearn', 'threadpoolctl', 'tqdm'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


WRONG_CALLS = [
    [],
    ["nonsense"],
    ["demo", "--seed", "-1"],
    ["lags", "--seed", "-1"],
    ["info", "extra"],
    ["demo", "--out", ""],
    ["lags", "--nosuch"],
    ["--nosuch", "lags"],
]


@pytest.mark.parametrize("argv", WRONG_CALLS)
def test_wrong_call_exits_with_two(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    command = argv[0] if argv and argv[0] in ("demo", "info", "lags") else "[-h]"
    assert f"usage: bptt {command}" in capsys.readouterr().err


def test_info_says_how_to_get_the_handlers_for_jax_that_are_missing() -> None:
    assert "BPTT_JAX=1" in str(dataclasses.replace(bptt.info(), jax=None))
    assert "BPTT_JAX=1" not in str(dataclasses.replace(bptt.info(), jax="0.1"))


# --- what the demo writes


def test_demo_writes_parameters_numbers_figures_and_report(demo: Path) -> None:
    written = {str(path.relative_to(demo)) for path in demo.rglob("*") if path.is_file()}
    assert written == {
        "results.json",
        "report.html",
        *(f"figures/{name}.png" for name in FIGURES),
        *(f"params/{name}.npz" for name in NETWORKS),
    }
    assert figures_of(demo) == set(FIGURES)


def test_demo_json_holds_settings_and_every_network(demo: Path) -> None:
    results = results_of(demo)
    assert results["status"] == "complete"
    assert results["settings"]["seed"] == 0
    assert results["bptt"]["version"] == bptt.__version__
    assert results["backend"] in bptt.backends()
    assert [network["name"] for network in results["networks"]] == NETWORKS
    assert results["networks"][0]["params_file"] == f"params/{NETWORKS[0]}.npz"
    assert str(demo) not in (demo / "results.json").read_text()


def test_a_quick_demo_says_that_it_trained_less(demo: Path) -> None:
    report = (demo / "report.html").read_text()
    assert "This was a quick run" in report
    assert "each network was trained for 88 steps" in report


def test_training_leaves_the_processors_to_its_steps(keep_num_threads: None) -> None:
    require_extra()
    from bptt.cli.training import one_blas_thread
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for library in threadpool_info():
            found.setdefault(library["user_api"], []).append(library["num_threads"])
        return found

    bptt.set_num_threads(2)
    with threadpool_limits(2):
        before = threads()
        with one_blas_thread():
            assert set(threads().get("blas", [1])) == {1}  # macOS's own is not known
            assert bptt.get_num_threads() == 2
        assert threads() == before


def test_demo_networks_learn(demo: Path) -> None:
    for network in results_of(demo)["networks"]:
        course = network["course"]
        assert course["held_out"]["accuracy"][-1] > 0.4, network["name"]
        assert course["loss"][-1] < course["loss"][0]


def test_demo_parameters_reproduce_the_accuracy_that_was_written(demo: Path) -> None:
    results = results_of(demo)
    data = load_digits(results["data"]["held_out_images"], results["settings"]["seed"])
    for network in results["networks"]:
        params = bptt.Params.load(demo / f"params/{network['name']}.npz")
        cell = bptt.Params.saved_cell(demo / f"params/{network['name']}.npz")
        assert cell == network["cell"]
        logits, _ = bptt.predict(cell, params, data.x_test, at="last")
        found = np.mean(logits.argmax(axis=1) == data.y_test)
        assert found == pytest.approx(network["course"]["held_out"]["accuracy"][-1], abs=1e-6)


def test_untrained_linear_gradient_is_a_power_of_the_radius(demo: Path) -> None:
    """W_s is the radius times an orthogonal matrix, rounded to float32, taken 63 times."""
    for network in results_of(demo)["networks"]:
        if network["cell"] == "linear":
            relative = np.array(network["before"]["relative"])
            formula = network["radius"] ** np.arange(64)
            np.testing.assert_allclose(relative, formula, rtol=63 * 64 * np.finfo("f4").eps)


def test_terms_that_were_measured_sum_to_the_whole_gradient(demo: Path) -> None:
    for network in results_of(demo)["networks"]:
        for when in ("before", "after"):
            gradient = network[when]
            assert gradient["check"] < 1e-12, network["name"]
            assert gradient["w_hh_error"][-1] == pytest.approx(0, abs=1e-12)
            assert gradient["w_hh"][-1] == 0  # it multiplies S_0


def test_report_states_how_far_the_summed_terms_are_from_the_gradient(demo: Path) -> None:
    """In float64, where a relative difference below an eps would be no difference at all."""
    networks = results_of(demo)["networks"]
    checks = [n[when]["check"] for n in networks for when in ("before", "after")]
    assert 1e-17 < max(checks) < 1e-12
    assert stated_accuracy(demo) == pytest.approx(max(checks), rel=0.05, abs=0)


def test_horizon_is_followed_in_the_training_of_every_network(demo: Path) -> None:
    for network in results_of(demo)["networks"]:
        monitor = network["monitor"]
        assert monitor["steps"] == len(network["course"]["loss"])
        assert monitor["history"][0]["step"] == 0
        assert 0 < monitor["history"][0]["horizon"] < 64


def test_gradient_of_readout_does_not_fade_with_distance(demo: Path) -> None:
    network = results_of(demo)["networks"][NETWORKS.index("linear-radius-0.8")]
    moved = network["by_loss_step"]
    assert moved["oldest"][-1] < 1e-4 * moved["oldest"][0]
    assert moved["w_ho"][-1] > 0.5 * moved["w_ho"][0]


def test_compared_networks_have_nearly_as_many_parameters(demo: Path) -> None:
    counts = {}
    for network in results_of(demo)["networks"]:
        arrays = bptt.Params.load(demo / f"params/{network['name']}.npz").arrays()
        assert network["parameters"] == sum(array.size for array in arrays.values())
        counts[network["name"]] = network["parameters"]
    compared = [counts[f"{cell}-radius-0.8"] for cell in ("tanh", "gru", "lstm")]
    assert max(compared) < 1.05 * min(compared)


def test_untrained_gates_hold_the_gradient_that_tanh_loses(demo: Path) -> None:
    far = {
        network["name"]: network["before"]["relative"][-1]
        for network in results_of(demo)["networks"]
    }
    assert far["tanh-radius-0.8"] < 1e-5
    assert min(far["gru-radius-0.8"], far["lstm-radius-0.8"]) > 1e-2


def test_report_needs_no_other_file(demo: Path) -> None:
    assert images_in(demo) == len(FIGURES)
    assert "interrupted" not in (demo / "report.html").read_text()


def test_demo_is_reproducible_by_its_seed(tmp_path: Path) -> None:
    require_extra()
    losses = []
    for seed in (3, 3, 4):
        task = Digits.make(seed=seed, backend="auto", quick=True)
        network = task.networks()[0]
        task.prepare(network)
        steps = optimise(network, task)
        losses.append([next(steps)[0] for _ in range(3)])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


# --- where it writes


def test_demo_refuses_a_folder_that_holds_something(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (demo / "results.json").read_bytes()
    assert main(["demo", "--quick", "--out", str(demo)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bptt demo: --out: ")
    assert "--force" in error
    assert error.count("\n") == 1
    assert (demo / "results.json").read_bytes() == before


def test_forced_folder_keeps_files_that_are_not_the_demos(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    names = ["report.html", "figures/a.png"]
    assert open_folder(str(tmp_path), force=True, names=names, default="") == tmp_path
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "figures").is_dir()


def test_forced_folder_keeps_links(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    link, target = tmp_path / "out" / "report.html", tmp_path / "elsewhere.html"
    target.write_text("old")
    link.symlink_to(target)
    open_folder(str(tmp_path / "out"), force=True, names=["report.html"], default="")
    assert link.is_symlink()
    assert not target.exists()


def test_default_folder_is_numbered_so_that_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("bptt-demo", "bptt-demo-2", "bptt-demo-3"):
        folder = open_folder(None, force=False, names=["results.json"], default="bptt-demo")
        assert folder == Path(expected)
        (folder / "results.json").write_text("{}")
    assert open_folder(None, force=True, names=["results.json"], default="bptt-demo") == Path(
        "bptt-demo"
    )


@pytest.mark.parametrize("below", ["a_file", "a_file/deeper/still"])
def test_folder_that_cannot_be_created_is_refused_before_training(
    tmp_path: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    require_extra()
    (tmp_path / "a_file").write_text("no folder")
    assert main(["demo", "--quick", "--out", str(tmp_path / below)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("bptt demo: --out: cannot write to ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        try:
            (tmp_path / "probe").touch()
        except OSError:
            with pytest.raises(CommandError, match="cannot write to"):
                open_folder(str(tmp_path), force=False, names=[], default="")
        else:
            pytest.skip("this user may write to read-only folders")
    finally:
        tmp_path.chmod(0o700)


# --- what it needs


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("matplotlib", "matplotlib"),
        ("sklearn", "scikit-learn"),
        ("threadpoolctl", "threadpoolctl"),
        ("tqdm", "tqdm"),
    ],
)
def test_missing_extra_is_named_with_the_command_that_installs_it(
    module: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require_extra()
    for loaded in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--quick", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"pip install {package}\n" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_backend_that_is_not_available_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "built without a C++ compiler"
    monkeypatch.setattr(NativeBackend, "missing", lambda self: reason)
    assert main(["demo", "--backend", "native", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error == f"bptt demo: --backend native: backend 'native' is not available: {reason}\n"
    assert not (tmp_path / "out").exists()


# --- where the output goes


def _closed_pipe() -> int:
    """A pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _run(argv: list[str], stdout: int, *, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bptt", *argv]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, env=env
    )


def _lags_of_a_file(folder: Path) -> list[str]:
    """A command that measures something, and takes little time."""
    params = bptt.init_params("tanh", input_size=1, hidden_size=2, output_size=2, rng=0)
    params.save(folder / "net", cell="tanh")
    np.savez(folder / "data", x=np.ones((3, 1, 1), "f4"), target=np.zeros((3, 1), int))
    files = ["--params", str(folder / "net.npz"), "--data", str(folder / "data.npz")]
    return ["lags", *files, "--out", str(folder / "out")]


@pytest.mark.parametrize("argv", [["info"], ["info", "--json"], ["--version"], ["lags", "--help"]])
def test_closed_pipe_ends_a_command_without_a_word(argv: list[str]) -> None:
    pipe = _closed_pipe()
    done = _run(argv, pipe)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, "")


def test_closed_pipe_is_found_as_well_by_output_that_is_not_buffered() -> None:
    pipe = _closed_pipe()
    done = _run(["info"], pipe, unbuffered="1")
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, "")


def test_closed_pipe_ends_the_measurement_after_what_is_saved(tmp_path: Path) -> None:
    require_extra()
    pipe = _closed_pipe()
    done = _run(_lags_of_a_file(tmp_path), pipe)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, "")
    assert len(results_of(tmp_path / "out")["networks"]) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is full")
@pytest.mark.parametrize("argv", [["info"], ["--version"], ["lags"]])
def test_output_that_cannot_be_written_is_told_in_one_line(argv: list[str], tmp_path: Path) -> None:
    if argv == ["lags"]:
        require_extra()
        argv = _lags_of_a_file(tmp_path)
    with open("/dev/full", "wb") as full:
        done = _run(argv, full.fileno())
    name = "bptt" if argv == ["--version"] else f"bptt {argv[0]}"
    expected = f"{name}: stopped: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_command_without_output_at_all_runs() -> None:
    command = f"exec {shlex.quote(sys.executable)} -m bptt info >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "out/report.html"), "out/report.html: No space "),
        (OSError("strange"), "strange"),
        (MemoryError(), "out of memory"),
        (MemoryError("the terms of 9 lags needs 5 GiB"), "the terms of 9 lags needs 5 GiB"),
    ],
)
def test_what_any_command_may_meet_is_one_line(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing() -> Any:
        raise error

    monkeypatch.setattr("bptt.info", failing)
    assert main(["info"]) == 1
    found = capsys.readouterr().err
    assert found.startswith(f"bptt info: stopped: {line}")
    assert found.count("\n") == 1


# --- Ctrl-C


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    require_extra()
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "bptt", "demo", "--quick", "--out", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # the first network is done
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert first.startswith("linear, radius 0.8")
    assert "Traceback" not in error
    assert "Interrupted" in out
    results = results_of(folder)
    assert results["status"] == "interrupted"
    assert results["networks"][0]["finished"]
    assert 1 <= len(results["networks"]) < len(NETWORKS)
    for network in results["networks"]:
        bptt.Params.load(folder / f"params/{network['name']}.npz")
    assert "This run was interrupted" in (folder / "report.html").read_text()


def test_ctrl_c_before_the_first_network_leaves_an_honest_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_extra()

    def interrupted_while_reading(test_images: int, seed: int) -> Any:
        signal.raise_signal(signal.SIGINT)
        return load_digits(test_images, seed)

    monkeypatch.setattr("bptt.cli.tasks.digits.load_digits", interrupted_while_reading)
    assert main(["demo", "--quick", "--out", str(tmp_path / "out")]) == 130
    assert results_of(tmp_path / "out")["networks"] == []
    assert "0 of 8 networks" in (tmp_path / "out" / "report.html").read_text()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_extra()

    def interrupted_twice(test_images: int, seed: int) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("bptt.cli.tasks.digits.load_digits", interrupted_twice)
    assert main(["demo", "--quick", "--out", str(tmp_path / "out")]) == 130
    assert "interrupted" in capsys.readouterr().err


# --- the measurement and the training behind it


def _small_problem() -> tuple[bptt.Params, Any, Any]:
    rng = np.random.default_rng(5)
    params = bptt.init_params(
        "tanh",
        input_size=2,
        hidden_size=3,
        output_size=4,
        spectral_radius=0.9,
        rng=rng,
        dtype="float64",
    )
    return params, rng.standard_normal((6, 5, 2)), rng.integers(0, 4, 5)


def _network(cell: str, params: bptt.Params, x: Any, target: Any, loss: str) -> Network:
    network = Network("", "", cell, params.hidden_size, len(x), loss)
    network.params, network.x, network.target = params, x, target
    return network


def test_measured_terms_are_those_of_the_text() -> None:
    """The product of Jacobians dS_j/dS_{j-1} = diag(1 - S_j^2) W_s, written out for each image."""
    params, x, target = _small_problem()
    found = measure_moment(_network("tanh", params, x, target, "cross_entropy"))
    y = bptt.forward("tanh", params, x).y
    steps, batch, hidden = y.shape
    assert params.w_ho is not None
    terms, norms = np.zeros((steps, hidden, hidden)), np.zeros((steps, batch))
    for image in range(batch):
        o = params.w_ho @ y[-1, image] + params.b_o
        softmax = np.exp(o) / np.exp(o).sum()
        do = softmax - np.eye(4)[target[image]]
        for distance in range(steps):
            k = steps - 1 - distance
            product = np.eye(hidden)
            for j in range(k + 1, steps):
                product = np.diag(1 - y[j, image] ** 2) @ params.w_hh @ product
            ds = do @ params.w_ho @ product
            norms[distance, image] = np.linalg.norm(ds)
            if k > 0:
                terms[distance] += np.outer(ds * (1 - y[k, image] ** 2), y[k - 1, image]) / batch
    np.testing.assert_allclose(found.state, np.median(norms, axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.relative, np.median(norms / norms[0], axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.w_hh, np.linalg.norm(terms, axis=(1, 2)), rtol=1e-10)
    rest = np.linalg.norm(np.cumsum(terms, axis=0) - terms.sum(axis=0), axis=(1, 2))
    expected = rest / np.linalg.norm(terms.sum(axis=0))
    np.testing.assert_allclose(found.w_hh_error, expected, rtol=1e-10, atol=1e-14)


def test_three_measurements_agree_where_they_meet() -> None:
    params, x, target = _small_problem()
    network = _network("tanh", params, x, target, "cross_entropy")
    whole, moved = measure_moment(network), measure_loss_steps(network, (2, 6))
    assert moved["oldest"][-1] == pytest.approx(whole.oldest)
    assert moved["w_ho"][-1] == pytest.approx(whole.w_ho)
    assert far_over_near(network) == pytest.approx(whole.far)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_terms_of_a_gated_cell_are_those_of_its_full_jacobian(cell: str) -> None:
    """dL/dS_k of the whole state by central differences of the loss of the steps that follow."""
    rng = np.random.default_rng(2)
    params = bptt.init_params(
        cell, input_size=2, hidden_size=3, output_size=1, rng=rng, dtype="float64"
    )
    x, target = rng.standard_normal((5, 1, 2)), rng.standard_normal((1, 1))
    found = measure_moment(_network(cell, params, x, target, "squared_error"))
    assert found.check < 1e-13
    tape = bptt.forward(cell, params, x)
    parts = [tape.y, tape.c] if cell == "lstm" else [tape.y]

    def loss_after(k: int, state: np.ndarray[Any, Any]) -> float:
        rows = list(np.split(state, len(parts), axis=1))
        last = bptt.forward(cell, params, x[k + 1 :], tuple(rows) if cell == "lstm" else rows[0])
        value, _ = bptt.value_and_grad(
            "linear",
            bptt.Params(np.zeros((3, 1)), np.eye(3), w_ho=params.w_ho, b_o=params.b_o),
            np.zeros((1, 1, 1)),
            target,
            loss="squared_error",
            at="last",
            state=last.state[0] if cell == "lstm" else last.state,
        )
        return value

    for k in range(5):
        state = np.hstack([part[k] for part in parts])
        step = 1e-6 * np.eye(state.shape[1])
        ds = [loss_after(k, state + s) - loss_after(k, state - s) for s in step[:, None]]
        assert found.state[4 - k] == pytest.approx(np.linalg.norm(ds) / 2e-6, rel=1e-6)


def test_memory_gate_is_the_direct_route_of_the_lstm() -> None:
    """c_t = f_t * c_{t-1} + i_t * g_t: with i_t shut, f_t is c_t / c_{t-1}."""
    rng = np.random.default_rng(3)
    params = bptt.init_params("lstm", input_size=2, hidden_size=4, rng=rng, dtype="float64")
    assert params.b_ih is not None
    params.b_ih[:4] = -1e3
    x, c = rng.standard_normal((1, 3, 2)), rng.standard_normal((3, 4))
    after = bptt.forward("lstm", params, x, (np.zeros((3, 4)), c)).c[0]
    np.testing.assert_allclose(after / c, memory_gate("lstm", params, x)[0])


def test_memory_gate_is_the_direct_route_of_the_gru() -> None:
    """S_t = (1 - z_t) * n_t + z_t * S_{t-1}: with n_t = 1, z_t is (1 - S_t) / (1 - S_{t-1})."""
    rng = np.random.default_rng(3)
    params = bptt.init_params("gru", input_size=2, hidden_size=4, rng=rng, dtype="float64")
    assert params.b_ih is not None
    params.b_ih[8:] = 1e3
    x = rng.standard_normal((6, 3, 2))
    y = bptt.forward("gru", params, x).y
    before = np.concatenate((np.zeros_like(y[:1]), y[:-1]))
    found = memory_gate("gru", params, x)
    np.testing.assert_allclose((1 - y) / (1 - before), found, rtol=1e-8)


@pytest.mark.parametrize("cell", sorted(bptt.CELLS))
def test_width_of_a_cell_comes_nearest_to_the_parameters_wanted(cell: str) -> None:
    params = bptt.init_params(cell, input_size=1, hidden_size=7, output_size=10)
    task = Digits(hidden_size=40)
    assert task.parameters(cell, 7) == sum(array.size for array in params.arrays().values())
    wanted, size = task.parameters("tanh", 40), task.width(cell)
    off = [abs(task.parameters(cell, near) - wanted) for near in (size - 1, size, size + 1)]
    assert off[1] == min(off)


def test_adam_makes_its_first_step_of_the_size_of_the_rate() -> None:
    params = bptt.Params(np.ones((2, 1)), np.eye(2))
    grads = {"w_ih": np.array([[3.0], [-1e-3]]), "w_hh": np.full((2, 2), -7.0)}
    Adam(params).update(grads, rate=0.1)
    np.testing.assert_allclose(params.w_ih, [[0.9], [1.1]], rtol=1e-4)
    np.testing.assert_allclose(params.w_hh, np.eye(2) + 0.1)


def test_global_norm_of_exploding_float32_gradients_is_finite() -> None:
    assert global_norm({"w": np.full(2, 1e30, "float32")}) == pytest.approx(math.sqrt(2) * 1e30)


def test_gradient_that_is_not_finite_is_reported_but_not_applied() -> None:
    require_extra()
    task = Digits.make(seed=0, backend="numpy", quick=True)
    network = task.networks()[0]
    task.prepare(network)
    task.images.x_train[:] = np.inf
    before = network.params.w_ih.copy()
    with np.errstate(all="ignore"):
        _, norm = next(optimise(network, task))
    assert not math.isfinite(norm)
    np.testing.assert_array_equal(network.params.w_ih, before)
