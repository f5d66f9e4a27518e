"""bench/device.sh without a GPU: its stages keep what they have found, and what they would run
there runs on the launcher that stands in for one (host_launcher.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bptt
import pytest
from bptt.backends.cuda import CHIPS, passes_for, tiles_for
from host_launcher import host_gpu

from bench import on_gpu, stages

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "bench" / "device.sh"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


# --- a stage and its file ------------------------------------------------------------------------


def run(path: Path, limit: float, script: str) -> int:
    return stages.main([str(path), str(limit), "bash", "-c", script])


def test_a_stage_has_figures_a_log_and_its_status(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "facts.json"
    script = """echo '{"a": 1}'; echo words; echo '{no JSON'; echo '{"b": [2]}' >&2; exit 3"""
    assert run(path, 60, script) == 3
    found = read(path)
    assert found["figures"] == [{"a": 1}, {"b": [2]}]
    assert found["log"] == ["words", "{no JSON"]
    assert (found["stage"], found["returncode"]) == ("facts", 3)
    assert found["ended"]
    assert not found["timed_out"]


def test_a_stage_that_takes_too_long_is_stopped_with_its_children(tmp_path: Path) -> None:
    path = tmp_path / "tests.json"
    begun = time.monotonic()
    assert run(path, 0.7, """echo '{"a": 1}'; sleep 60 & echo $!; wait""") == stages.TIMED_OUT
    assert time.monotonic() - begun < 30
    found = read(path)
    assert (found["figures"], found["timed_out"], found["ended"]) == ([{"a": 1}], True, True)
    assert gone(int(found["log"][0]))


def test_a_command_without_output_is_stopped_too(tmp_path: Path) -> None:
    path, begun = tmp_path / "tests.json", time.monotonic()
    assert run(path, 0.7, "exec >&- 2>&-; sleep 30") == stages.TIMED_OUT
    assert time.monotonic() - begun < 20
    assert read(path)["timed_out"]
    assert run(path, 30, "exec >&- 2>&-; sleep 0.3; exit 3") == 3


def test_a_child_that_holds_the_output_is_no_lack_of_time(tmp_path: Path) -> None:
    path, begun = tmp_path / "tests.json", time.monotonic()
    assert run(path, 30, """sleep 60 & echo $!; echo '{"a": 1}'""") == 0
    assert time.monotonic() - begun < 20
    found = read(path)
    assert (found["figures"], found["returncode"]) == ([{"a": 1}], 0)
    assert not found["timed_out"]
    assert gone(int(found["log"][0]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_who_stops_a_stage_stops_its_command(number: int, tmp_path: Path) -> None:
    path = tmp_path / "tests.json"
    command = [sys.executable, ROOT / "bench" / "stages.py", path, "60", "bash", "-c"]
    with subprocess.Popen([*command, "echo $$; sleep 60 & echo $!; wait"]) as process:
        while not (path.exists() and len(read(path)["log"]) == 2):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    found = read(path)
    assert all(gone(int(pid)) for pid in found["log"])
    assert not found["ended"]


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_run_that_is_cut_has_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    script = """echo '{"a": 1}'; sleep 1; echo '{"b": 2}'; sleep 3"""
    command = [sys.executable, ROOT / "bench" / "stages.py", path, "60", "bash", "-c", script]
    with subprocess.Popen(command) as process:
        while not (path.exists() and len(read(path)["figures"]) == 2):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    found = read(path)
    assert found["figures"] == [{"a": 1}, {"b": 2}]
    assert not found["ended"]


def test_a_command_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "facts.json"
    assert stages.main([str(path), "60", "no-such-command"]) == 127
    assert "no-such-command" in read(path)["log"][0]
    assert "facts: 0 figures in 0.0 s, failed with 127: " in capsys.readouterr().out
    assert stages.main([]) == 2


# --- the script ----------------------------------------------------------------------------------


def device(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    # Without nvcc, which would compile the program, and without a GPU's tools.
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "PYTHON": sys.executable, **more}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_script_says_how_it_is_used(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    told = device()
    assert told.returncode == 2
    for words in ("device.sh first FOLDER", "device.sh second FOLDER", "compute-sanitizer"):
        assert words in told.stdout
    assert "set -uo" not in told.stdout
    unknown = device("run", tmp_path / "never-written", "facts", "oops")
    assert unknown.returncode == 2
    assert "no stage oops; there are " in unknown.stderr
    assert not (tmp_path / "never-written").exists()


def test_without_a_gpu_each_stage_says_so_in_a_file_of_its_own(tmp_path: Path) -> None:
    if bptt.backends()["cuda"].available:
        pytest.skip("there is a GPU")
    ran = device("run", tmp_path, "barriers", "backend", "sanitizer")
    assert ran.returncode == 1
    assert len(ran.stdout.splitlines()) == 3
    for name in ("barriers", "backend", "sanitizer"):
        found = read(tmp_path / f"{name}.json")
        assert found["ended"]
        assert found["returncode"]
    assert "not available: " in read(tmp_path / "backend.json")["log"][0]
    late = device("run", tmp_path / "late", "barriers", BPTT_DEVICE_SECONDS="0")
    assert late.returncode == 1
    assert "barriers: no time is left" in late.stderr


# --- what it runs on a GPU -----------------------------------------------------------------------


class Worked:
    """What passes for a clock of the device: work is done, and takes a millisecond."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, torch: Any, work: Callable[[], object]) -> float:
        work()
        self.count += 1
        return 1.0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Worked:
    """The stages on few steps of a small layer, on fibres."""
    pytest.importorskip("torch")
    from bptt.torch import gpu_passes

    worked = Worked()
    monkeypatch.setattr(gpu_passes, "on_host", lambda x: False)
    monkeypatch.setattr(on_gpu, "DEVICE", "cpu")
    monkeypatch.setattr(on_gpu, "STEPS", 2)
    for name, value in (("HIDDEN", (7,)), ("BATCHES", (16,)), ("CELLS", ("lstm",))):
        monkeypatch.setattr(on_gpu, name, value)
    monkeypatch.setattr(on_gpu, "compile_ahead", lambda chip, sources: {"compiled": len(sources)})
    monkeypatch.setattr(on_gpu, "least_ms", worked)
    return worked


def test_modules_are_timed_beside_those_of_pytorch(
    small: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    case = {"T": 2, "layers": 1, "both": False, "packed": False, "cell": "lstm", "B": 2, "H": 7}
    cases = [case, {**case, "packed": True}]
    assert next(on_gpu.torch_cases()).keys() == case.keys()
    monkeypatch.setattr(on_gpu, "torch_cases", lambda: iter(cases))
    with host_gpu() as launcher:
        figures = list(on_gpu.cudnn(torch))
    assert figures[0] == {"compiled": 1}
    assert [f["tf32"] for f in figures[1:]] == [False, True] * 2
    for figure in figures[1:]:
        assert figure["who"].startswith("bptt cuda")
        assert figure["apart"] < 1e-6
        assert figure["ratio"] == figure["bptt.torch forward_ms"] == figure["torch.nn step_ms"] == 1
        json.dumps(figure)
    assert {name for name, _ in launcher.launched} == {"forward", "backward"}
    assert small.count == 4 * len(figures[1:])

    def too_large(*_: Any) -> Any:
        raise RuntimeError("too large")

    monkeypatch.setattr(on_gpu, "compared", too_large)
    with host_gpu():
        assert [f["error"] for f in list(on_gpu.cudnn(torch))[1:]] == ["too large"] * 4


def test_every_way_is_timed_and_compared(small: Worked, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    with host_gpu() as launcher:
        chip = launcher.chip(0)
        ways = list(on_gpu.swept(chip))
        assert ways[0][3] == passes_for(chip, bptt.CELLS["lstm"], 4, 16, 7)
        monkeypatch.setattr(on_gpu, "swept", lambda chip: iter(ways[:1] * 2))
        figures = list(on_gpu.sweep(torch))
        assert figures[0] == {"compiled": 1}
        for figure in figures[1:]:
            assert figure["exchange"] == "OneBlock"
            assert figure["apart"] == 0
            assert figure["forward_us_a_step"] == figure["backward_us_a_step"] == 500
            json.dumps(figure)
        assert {name for name, _ in launcher.launched} == {"forward", "backward"}


def test_sizes_that_are_refused_do_not_end_the_sweep(
    small: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    with host_gpu() as launcher:
        (first, *_), wide = on_gpu.swept(launcher.chip(0)), "gru"
        ways = [("lstm", *first[1:]), (wide, *first[1:]), ("lstm", *first[1:])]
        monkeypatch.setattr(on_gpu, "swept", lambda chip: iter(ways))
        forward = on_gpu.forward

        def refuse(layer: Any, **options: Any) -> Any:
            if layer.cell.name == wide:
                raise RuntimeError("cannot be launched")
            return forward(layer, **options)

        monkeypatch.setattr(on_gpu, "forward", refuse)
        _, *figures = on_gpu.sweep(torch)
    assert [figure.get("error") for figure in figures] == [None, "cannot be launched", None]
    assert figures[1] == {"cell": "gru", "H": 7, "B": 16, "error": "cannot be launched"}


@pytest.mark.parametrize("arch", CHIPS)
def test_all_ways_are_what_the_kernels_and_the_chip_take(arch: str) -> None:
    chip = replace(CHIPS[arch], most_cluster=min(8, CHIPS[arch].most_cluster))
    for name in ("lstm", "gru", "tanh"):
        for hidden in (7, 64, 256, 1024):
            ways = set(on_gpu.tiles_of(chip, name, hidden))
            assert set(tiles_for(chip, bptt.CELLS[name], 4, hidden)) <= ways, "the plan's own"
            for tile in ways:
                blocks = tile.blocks_for(hidden)
                assert tile.shared_bytes <= chip.shared_bytes
                assert tile.held_values * 4 <= 512
                assert tile.held_values * 256 == tile.gates * tile.units * tile.columns
                assert (
                    blocks
                    <= {"OneBlock": 1, "Cluster": 8, "Grid": chip.multiprocessors}[tile.exchange]
                )
            if hidden == 256 and chip.most_cluster > 1:
                assert {t.exchange for t in ways} == {"Cluster", "Grid"}
                assert len({t.units for t in ways}) > 1
