"""The benchmark tells the truth: equal work is checked, nothing is dropped in silence."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # `bench` lies beside the package, and is not installed with it

from bench import builds, kernels, limits, overhead, report, run, timing  # noqa: E402
from bench.cases import Case, load_families, select  # noqa: E402
from bench.chart import _plain_log_axis  # noqa: E402
from bench.peers import OwnBackend, Workload  # noqa: E402
from bench.problem import make_problem, tolerance  # noqa: E402
from bench.records import Quartiles, Record, Results, Row, confidence  # noqa: E402
from bench.run import main  # noqa: E402
from bench.summary import conclusions  # noqa: E402
from bench.table import format_table  # noqa: E402

SMALL = Case("quick", batch=2, steps=5, input_size=3, hidden_size=4)
OPTIONS = argparse.Namespace(threads=1, rounds=3, min_time=1e-4, max_call=10.0)
OUTPUTS = ("y", "x", "state", "w_ih", "w_hh", "b_ih", "b_hh")
OWN = [name for name, status in bptt.backends().items() if status.available]


@pytest.fixture(autouse=True)
def _quick_turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pauses between turns, and the number of threads as it was before."""
    monkeypatch.setattr(timing, "_PAUSE", 0.0)
    threads = bptt.get_num_threads()
    yield
    bptt.set_num_threads(threads)


class Impostor(OwnBackend):
    """The NumPy backend, with `spoil` applied to its outputs."""

    def __init__(self, spoil, name="impostor"):
        super().__init__("numpy")
        self._spoil = spoil
        self._peer = OwnBackend("numpy")
        self.name = name

    def missing(self):
        return None

    def refuses(self, cell, dtype):
        return None

    def version(self):
        return "0"

    def prepare(self, problem, threads):
        workload = self._peer.prepare(problem, threads)
        return Workload(workload.call, lambda result: self._spoil(dict(workload.outputs(result))))


def run_bench(tmp_path, *arguments):
    """Run the bench in this process on the smallest quick shape; return (status, document)."""
    out = tmp_path / "run.json"
    command = ["--quick", "--rounds", "2", "--min-time", "1e-4", "--threads", "1"]
    status = main([*command, *arguments, "--out", str(out)])
    return status, Results.read(out)


def test_run_writes_quartiles_a_table_and_a_chart(tmp_path, capsys):
    status, found = run_bench(tmp_path, "--peers", ",".join(OWN))

    assert status == 0
    head = found.head
    assert not head["interrupted"]
    assert head["begun"] <= head["ended"]
    assert head["threads"] == 1
    assert set(head["machine"]) >= {"cpu", "cpus", "isa"}
    assert set(head["software"]) >= {"bptt", "commit", "dirty", "compiler", "python", "numpy"}
    assert set(head["versions"]) == set(OWN)
    assert head["command"].startswith("python -m bench --quick --rounds 2")
    assert len(found.rows) == 3 * len(bptt.CELLS)  # three quick shapes
    for row in found.rows:
        assert set(row.records) == set(OWN)
        assert (row.peak or 0) > (1e8 if "native" in OWN else -1)
        cell, dtype = row.work.split()
        for name, record in row.records.items():
            if not REGISTRY[name].supports(bptt.CELLS[cell], np.dtype(dtype)):
                assert record.status == "refused"
                continue
            assert record.status == "ok"
            assert 0 < record.value.low <= record.value.median <= record.value.high
            assert record.cores > 0
            assert record.error <= row.tolerance
            assert (record.ratio is None) == (
                name == row.baseline or row.baseline not in row.timed()
            )
    assert (tmp_path / "run-quick.png").stat().st_size > 1000
    assert "Ratio: time of the peer over time of" in capsys.readouterr().out


def test_results_name_no_path_and_the_table_can_be_made_again_from_them(tmp_path):
    run_bench(tmp_path, "--peers", "numpy", "--cell", "tanh")
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    for private in (ROOT, tmp_path, Path.home(), Path(sys.prefix)):
        assert f"{private}/" not in text
    table, chart = tmp_path / "run.txt", tmp_path / "run-quick.png"
    before = table.read_text(encoding="utf-8")
    table.unlink()
    chart.unlink()
    assert report.main([str(tmp_path / "run.json")]) == 0
    assert table.read_text(encoding="utf-8") == before
    assert chart.exists()


def test_flops_are_a_hand_count_of_the_products():
    case = Case("", batch=3, steps=2, input_size=4, hidden_size=5)
    inputs = 2 * (2 * 3) * 5 * 4  # x_t W_x^T: a multiply and an add for 6 rows, 5 units, 4 inputs
    recurrent = 2 * (2 * 3) * 5 * 5  # S_{t-1} W_s^T
    forward = inputs + recurrent
    to_inputs_and_states = inputs + recurrent  # da_t W_x and da_t W_s
    to_weights = inputs + recurrent  # da_t^T x_t and da_t^T S_{t-1}
    assert case.flops(gates=1) == forward + to_inputs_and_states + to_weights == 1620
    assert case.flops(gates=4) == 4 * 1620


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda a: a * 1.001, id="scaled"),
        pytest.param(lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, 0, a), id="hole"),
        pytest.param(lambda a: a * math.nan, id="nan"),
        pytest.param(lambda a: a[..., :-1], id="misshapen"),
        pytest.param(lambda a: None, id="absent"),
    ],
)
@pytest.mark.parametrize("cell", ["tanh", "linear"])
def test_peer_with_one_wrong_output_is_not_timed(cell, name, wrong):
    problem = make_problem(SMALL, cell, "float32")
    peer = Impostor(lambda outputs: {**outputs, name: wrong(outputs[name])})
    records = timing.contest(problem, [peer, OwnBackend("numpy")], OPTIONS).measure().records
    assert records["impostor"].status == "wrong"
    assert records["impostor"].reason.startswith(name)
    assert records["impostor"].value is None
    assert records["numpy"].status == "ok"
    assert records["numpy"].value.median > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", bptt.CELLS)
def test_tolerance_leaves_room_for_rounding_but_not_for_a_missing_step(cell, dtype):
    problem = make_problem(Case("", 7, 129, 33, 31), cell, dtype)
    able = [n for n in OWN if REGISTRY[n].supports(bptt.CELLS[cell], np.dtype(dtype))]
    row = timing.contest(problem, [OwnBackend(name) for name in able], OPTIONS).row
    assert {record.status for record in row.records.values()} == {"ok"}
    want = problem.reference()["w_hh"]
    last_step = np.outer(problem.dy[-1, 0], problem.x[-1, 0]).max()
    assert tolerance(problem) * np.linalg.norm(want) < abs(last_step)


def test_wrong_peer_is_announced_and_fails_the_run(tmp_path, capsys, monkeypatch):
    peers = {
        "numpy": OwnBackend("numpy"),
        "impostor": Impostor(lambda outputs: {**outputs, "x": 2 * outputs["x"]}),
    }
    monkeypatch.setattr(run, "all_peers", lambda: peers)
    monkeypatch.setattr(run, "versions", lambda *names: {})
    status, found = run_bench(tmp_path, "--cell", "tanh", "--case", "B1-*")
    out, err = capsys.readouterr()
    assert status == 1
    assert found.rows[0].records["impostor"].value is None
    assert "impostor wrong (x is off by" in err
    assert "WRONG: x is off by" in out


def test_failing_peer_is_a_result_not_the_end():
    def fail(outputs):
        raise RuntimeError("no such kernel")

    problem = make_problem(SMALL, "tanh", "float32")
    row = timing.contest(problem, [Impostor(fail), OwnBackend("numpy")], OPTIONS).row
    assert row.records["impostor"] == Record("failed", "RuntimeError: no such kernel")
    assert row.records["numpy"].status == "ok"


def test_slow_peer_is_left_out_with_its_time(tmp_path, capsys):
    status, found = run_bench(tmp_path, "--peers", "numpy", "--cell", "tanh", "--max-call", "1e-9")
    assert status == 0
    assert {row.records["numpy"].status for row in found.rows} == {"skipped"}
    assert "skipped: " in (table := capsys.readouterr().out)
    assert " s a call" in table


def test_interrupted_run_keeps_the_rows_that_are_finished(tmp_path, capsys, monkeypatch):
    calls = []

    def interrupt_the_second_row(outputs):
        calls.append(outputs)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return outputs

    peers = {"x": Impostor(interrupt_the_second_row, "x")}
    monkeypatch.setattr(run, "all_peers", lambda: peers)
    monkeypatch.setattr(run, "versions", lambda *names: {})
    status, found = run_bench(tmp_path, "--cell", "tanh")
    assert status == 130
    assert found.head["interrupted"]
    assert [row.name for row in found.rows] == ["B1-T64-I8-H16"]
    assert found.rows[0].records["x"].value.median > 0
    assert "INTERRUPTED" in capsys.readouterr().out


def test_everybody_has_one_turn_a_round_and_the_order_rotates():
    order = []

    def turn(name):
        return lambda: order.append(name) or timing.Sample(1.0)

    class Limit(timing.Peak):
        def take_turn(self):
            order.append("peak")

    rounds = timing.alternate({name: turn(name) for name in "abc"}, 3, [Limit("float32", 1)])
    assert [set(samples) for samples in rounds] == 3 * [{"a", "b", "c"}]
    assert order == ["peak", *"abc", "peak", *"bca", "peak", *"cab"]


def row_of(**seconds):
    """A row of which these are the samples, one a round, compared with those of native."""
    rounds = zip(*seconds.values(), strict=True)
    samples = [dict(zip(seconds, map(timing.Sample, values), strict=True)) for values in rounds]
    return timing.Task(
        Row("quick", "tanh float32", SMALL.name, baseline="native"), samples
    ).measure()


def test_ratio_is_taken_within_rounds_so_a_slow_moment_cancels():
    row = row_of(native=[1.0, 10.0, 1.0], torch=[2.0, 20.0, 2.0])
    assert row.records["torch"].ratio == (2.0, 2.0, 2.0)
    assert row.records["native"].ratio is None


def test_summary_compares_with_the_fastest_of_all_peers():
    rows = [
        row_of(native=[1.0], numpy=[0.5], torch=[2.0], jax=[8.0], **{"jax-bptt": [3.0]}),
        row_of(native=[1.0], numpy=[2.0], torch=[16.0], jax=[8.5], **{"jax-bptt": [8.0]}),
    ]
    head = {"own": ["numpy"], "others": ["torch", "jax", "jax-bptt"]}
    assert list(conclusions(Results(head, rows))) == [
        "Geometric mean of the ratios to native (number of rows):",
        "  tanh float32, quick: fastest of torch, jax, jax-bptt 4.00 (2); torch 5.66 (2); "
        "jax 8.25 (2); jax-bptt 4.90 (2); numpy 1.00 (2)",
        "",
        "native is faster than each of torch, jax, jax-bptt in all of 2 rows.",
        "native is faster than numpy in 1 of 2 rows. Not in:",
        f"  tanh float32 quick {SMALL.name}: numpy 0.50 [0.50 - 0.50]",
    ]


def test_a_mean_has_a_goal_of_its_own_block():
    def row(work, ratio):
        return Row("a", work, "B1", {"ours": Record(ratio=Quartiles(*3 * [ratio]))})

    rows = [row("step", 0.5), row("step", 2.0), row("step", 0.125), row("call", 9.0)]
    head = {"quick": False, "rounds": 3, "means": {"step": 0.4}}
    said = "Geometric mean of step: 0.500, at most 0.400: MISSED"
    assert list(conclusions(Results(head, rows))) == [said]
    assert list(conclusions(Results({**head, "quick": True}, rows))) == []


def test_modules_that_do_other_work_are_not_timed():
    torch = pytest.importorskip("torch")
    from bench import torch as modules

    pair = modules.Pair.make("gru", (2, 5, 3, 4), bidirectional=True).packed()
    options = argparse.Namespace(rounds=1, min_time=0.0)

    def measured():
        return modules._contest(pair, "step", modules.Step, 1.0, options).measure().records

    assert all(record.value.median > 0 for record in measured().values())
    with torch.no_grad():
        pair.ours.weight_hh_l0_reverse[0, 0] += 0.01
    assert measured()["bptt.torch"].status == "wrong"
    assert measured()["bptt.torch"].value is None


def test_cases_span_the_families_that_the_design_names():
    families = load_families()
    assert set(families) == {"design", "deepbench", "benchdnn", "flashrnn", "sweep", "quick"}
    for name, family in families.items():
        names = [case.name for case in family.cases]
        assert len(set(names)) == len(names) > 0
        assert all(case.family == name for case in family.cases)
    sweep = families["sweep"].cases
    assert {c.hidden_size for c in sweep} == {2**n for n in range(4, 12)}
    assert {c.batch for c in sweep} == {2**n for n in range(9)}
    for case in sweep:  # the power of two that is nearest to 4 GFlop, from 16 to 512
        one_step = Case("", case.batch, 1, case.input_size, case.hidden_size).flops(gates=1)
        nearest = 2 ** round(math.log2(4e9 / one_step))
        assert case.steps == min(max(nearest, 16), 512)
    assert [c.name for c in select([families["design"]], ["B1-*-H64"])] == ["B1-T1000-I1-H64"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "design,nosuch"], "nosuch not in design"),
        (["--case", "B9-*"], "nothing in design matches B9-*"),
        (["--cell", "nosuch"], "nosuch not in linear"),
        (["--peers", "nosuch"], "nosuch not in native"),
        (["--threads", "0"], "at least 1"),
        (["--out", "results.txt"], ".json"),
    ],
)
def test_bad_command_line_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_nothing_loads_numpy_before_the_number_of_threads_is_in_the_environment():
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'numpy': print('OMP_NUM_THREADS', os.environ.get('OMP_NUM_THREADS'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import runpy; sys.argv = ['bench', '--list', '--threads', '7']\n"
        "runpy.run_module('bench', run_name='__main__')"
    )
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[0] == "OMP_NUM_THREADS 7"


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")]
COMMANDS = sorted(
    {
        command.split("  ")[0].strip().replace("...", "x.json").replace("NAME", "name")
        for page in PAGES
        for command in re.findall(r"python -m bench[^`#]*?(?=`|#|\n|$)", page.read_text("utf-8"))
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_in_the_documentation_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, _, _, *arguments = shlex.split(command)
    if len(arguments) == 1 and (ROOT / "bench" / f"{arguments[0]}.py").exists():
        return  # the sub-command is mentioned, no more
    name, *arguments = arguments if arguments and arguments[0][0] != "-" else ["run", *arguments]
    main = importlib.import_module(f"bench.{name}").main
    parse = argparse.ArgumentParser.parse_args

    class UnderstoodError(Exception):
        pass

    def parse_only(parser, given):
        parse(parser, given)
        raise UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(UnderstoodError):
        main(arguments)


def installation(folder, addition=""):
    """A folder with the bptt that runs here, and some code at the end of its __init__.py."""
    package = folder / "bptt"
    shutil.copytree(Path(bptt.__file__).parent, package)
    from bptt import compiled

    shutil.copy(compiled.core.__file__, package)
    with open(package / "__init__.py", "a", encoding="utf-8") as file:
        file.write(addition)
    return str(folder)


SLOW = """
import time
_fast = forward
def forward(*arguments, **options):
    time.sleep(0.02)
    return _fast(*arguments, **options)
"""
WRONG = """
_right = Tape.backward
def _backward(self, *arguments, **options):
    grads = _right(self, *arguments, **options)
    grads.w_hh *= 1.01
    return grads
Tape.backward = _backward
"""


@pytest.mark.skipif("native" not in OWN, reason="the native backend is not built")
def test_builds_tell_a_slower_one_and_one_that_is_wrong(tmp_path, capsys):
    plain = installation(tmp_path / "plain")
    arguments = ["--family", "quick", "--case", "B1-*", "--rounds", "6", "--min-time", "1e-3"]
    assert builds.main([plain, installation(tmp_path / "slow", SLOW), *arguments]) == 0
    out = capsys.readouterr().out
    assert "SLOWER" in out
    assert "bits differ" not in out
    assert "Noise: " in out
    with pytest.raises(SystemExit, match=r"w_hh of the two builds differ by 1\.0e-02"):
        builds.main([plain, installation(tmp_path / "wrong", WRONG), *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch", "."], "nosuch: expected a git revision, a folder"),
        ([".", "nosuch"], "nosuch: expected a git revision, a folder"),  # before "." is built
        ([".", ".", "--threads", "1,0"], "at least 1"),
        ([".", ".", "--case", "B9-*"], "nothing in design matches"),
        ([".", ".", "--cell", "nosuch"], "nosuch not in linear"),
        (["."], "required: NEW"),
    ],
)
def test_builds_that_make_no_sense_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        builds.main(arguments)
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_confidence_interval_is_that_of_the_sign_test():
    # Tables: 95 % takes the smallest and largest of 6 to 8, the second of 9 to 11, the sixth of 20.
    for n, rank in ((6, 1), (8, 1), (9, 2), (11, 2), (20, 6)):
        assert confidence(range(1, n + 1)) == (rank, n + 1 - rank)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["linear", "tanh", "relu", "lstm", "gru"])
def test_the_gradient_that_overhead_times_fades_through_subnormals_to_zero(cell, dtype):
    params, x, ids = overhead.fading_problem(cell, dtype)
    options = {"loss": "cross_entropy", "at": "last", "backend": "numpy"}
    dx = np.abs(bptt.value_and_grad(cell, params, x, ids, **options)[1].x)
    assert np.any((dx > 0) & (dx < np.finfo(dtype).tiny))
    assert not dx[0].any()


@pytest.mark.parametrize("limits", [(40, 70), (0.9, 1.2), (3, 80), (0.02, 100)])
def test_ticks_of_charts_are_plain_numbers(limits):
    from matplotlib.figure import Figure as Picture

    panel = Picture().subplots()
    panel.set_xlim(*limits)
    _plain_log_axis(panel)
    panel.figure.draw_without_rendering()
    low, high = limits
    shown = [
        label.get_text()
        for tick, label in zip(panel.get_xticks(), panel.get_xticklabels(), strict=True)
        if low <= tick <= high
    ]
    assert 2 <= len(shown) <= 10
    assert all(float(text) > 0 for text in shown)


def test_goal_is_met_only_if_the_third_quartile_meets_it():
    assert Record(value=Quartiles(1.0, 2.0, 3.0), goal=3.0).meets_goal
    assert not Record(value=Quartiles(1.0, 2.0, 3.0), goal=2.5).meets_goal
    slow, fast = Quartiles(7.0, 8.0, 9.0), Quartiles(1.0, 2.0, 3.0)
    assert Record(value=slow, ratio=fast, goal=3.0).meets_goal  # of the ratio, where there is one


def test_overhead_has_a_goal_for_the_call_and_for_the_import():
    for task in (overhead.smallest_call("tanh", 1, 1e-4), overhead.imports(1)):
        row = task.measure()
        (goal,) = [record for record in row.records.values() if record.goal is not None]
        assert goal.value.median > 0
        assert (goal.ratio is None) == (len(row.records) == 1)
        table = format_table(Results({**HEAD, "titles": {row.family: ""}}, [row]))
        assert "1 goals are met" in table


def test_limits_compare_float64_with_float32_and_minimal_with_gates(tmp_path):
    if "native" not in OWN:
        pytest.skip("the native backend is not built")
    out = tmp_path / "limits.json"
    assert limits.main(["--quick", "--threads", "2", "--out", str(out)]) == 0
    rows = Results.read(out).rows
    by_work = {}
    for row in rows:
        goal, *others = row.records.values()
        by_work.setdefault(row.work, []).append((row.name.split()[0], goal.goal))
        assert (goal.ratio is not None) == bool(others)
    cells = {name: {cell for cell, _ in found} for name, found in by_work.items()}
    assert cells == {
        "float64 over float32": {"tanh", "lstm", "gru"},
        "save=minimal over save=gates": {"lstm", "gru"},
        "a step, forward and backward, 1 thread": {"lstm"},
        "a step, forward and backward, 2 threads": {"lstm"},
    }
    goals = [{round(goal, 7) for _, goal in found} for found in by_work.values()]
    assert goals == [{2.2222200}, {1.35}, {1e-6}, {1e-6}]
    step = rows[-1].records["bptt"]
    assert step.value.median < 1e-3  # of one of 64 steps


def test_limits_do_not_time_what_differs(monkeypatch):
    options = argparse.Namespace(rounds=1, min_time=0.0, threads=1)

    run_bptt = limits.run_bptt

    def spoiled(problem, *arguments, save="gates"):
        outputs = run_bptt(problem, *arguments, save=save)
        if save == "minimal":
            outputs["w_hh"] = outputs["w_hh"] * 1.01
        return outputs

    monkeypatch.setattr(limits, "run_bptt", spoiled)
    with pytest.raises(RuntimeError, match="w_hh of minimal and gates differ by 1"):
        limits.minimal("gru", SMALL, options)


def test_kernels_are_judged_by_the_peak_with_loads(tmp_path, capsys):
    if "native" not in OWN:
        pytest.skip("the native backend is not built")
    out = tmp_path / "kernels.json"
    assert kernels.main(["--quick", "--rounds", "1", "--out", str(out)]) == 0
    rows = Results.read(out).rows
    for row in rows:
        kernel, limit = row.records.values()
        assert limit.value.median == pytest.approx(row.flops / row.peak_loads, rel=1e-4)
        assert kernel.share.median == pytest.approx(1 / kernel.ratio.median, rel=1e-4)
        assert kernel.share.median < 1.5  # a clock may change between the two
    judged = [row.name for row in rows if next(iter(row.records.values())).goal]
    assert len(judged) == 9
    assert not any(name.startswith("K64 ") for name in judged)
    assert "; with loads " in capsys.readouterr().out


HEAD = {
    **{"begun": None, "ended": None, "interrupted": False, "quick": False, "command": ""},
    **{"threads": 1, "rounds": 9, "min_time": 0.0, "versions": {}, "titles": {"quick": "Title"}},
    "machine": {"cpu": "CPU", "caches": {}, "isa": "avx2"},
    "software": {"bptt": "1", "commit": "c0ffee", "dirty": False},
}


def test_table_has_the_columns_that_there_are_figures_for():
    records = {
        "old": Record(value=Quartiles(0.001, 0.002, 0.004), cores=1.5),
        "new": Record(ratio=Quartiles(0.5, 0.6, 0.7), interval=(0.5, 0.8), note="bits differ"),
        "else": Record("skipped", "11 s a call"),
    }
    row = Row("quick", "tanh float32", "B1", records, baseline="old", load=0.25)
    lines = format_table(Results(HEAD, [row])).splitlines()
    start = lines.index("== tanh float32: Title ==") + 1
    assert lines[start : start + 4] == [
        "shape peer ms    IQR cores ratio [quartiles]       difference              note",
        "B1    old   2 150.0%  1.50",
        "      new                  0.600 < [0.500 - 0.700] FASTER (0.500 to 0.800) bits differ",
        "      else skipped: 11 s a call",
    ]
    assert "Noise: a difference below 15.0% is not seen at a typical row." in lines


def test_results_are_the_same_when_they_are_read_again(tmp_path):
    records = {
        "a": Record(value=Quartiles(1.0, 2.0, 3.0), share=Quartiles(0.1, 0.2, 0.3), error=math.inf),
        "b": Record("wrong", "x is off"),
    }
    row = Row("quick", "tanh float32", "B1", records, flops=12, load=math.nan)
    Results(HEAD, [row]).write(tmp_path / "a.json")
    again = Results.read(tmp_path / "a.json")
    records["a"].error = row.load = None  # what is not finite is not kept
    assert again.rows == [row]
    assert again.head == HEAD


RESULTS = sorted(path.name for path in (ROOT / "bench" / "results").iterdir())


def test_every_results_file_is_named_with_the_command_that_made_it():
    listed = (ROOT / "bench" / "README.md").read_text("utf-8")
    table = dict(
        re.findall(r"^\| `([\w-]+)` \|.*?`((?:BPTT_ISA|python -m bench)[^`]*)`", listed, re.M)
    )
    families = [f"-{name}" for name in load_families()]
    for name in RESULTS:
        stem, _, suffix = name.rpartition(".")
        if suffix == "png":
            stem = next(stem.removesuffix(f) for f in families if stem.endswith(f))
        assert stem in table, name
        if suffix == "json":
            assert Results.read(ROOT / "bench" / "results" / name).head["command"] == table[stem]


@pytest.mark.parametrize("name", [name for name in RESULTS if name.endswith(".json")])
def test_tables_in_the_tree_are_those_of_the_quartiles_beside_them(name):
    path = ROOT / "bench" / "results" / name
    table = path.with_suffix(".txt").read_text("utf-8")
    assert table == format_table(Results.read(path)) + "\n"
    assert path.stat().st_size < 200_000


def test_the_peer_that_reuses_its_arrays_does_the_same_work_and_is_no_baseline(tmp_path):
    if "native" not in OWN:
        pytest.skip("the native backend is not built")
    status, found = run_bench(tmp_path, "--peers", "native,native-reuse", "--cell", "tanh")
    assert status == 0
    assert list(found.head["versions"]) == ["native", "native-reuse"]
    assert all(row.records["native-reuse"].status == "ok" for row in found.rows)
    assert {row.baseline for row in found.rows} == {"native"}
    assert "native alone was timed: there is nothing to compare it with." in conclusions(found)
    problem = make_problem(SMALL, "tanh", "float32")
    workload = OwnBackend("native", reuses=True).prepare(problem, 1)
    first, second = (workload.outputs(workload.call()) for _ in range(2))
    assert all(first[name] is second[name] for name in OUTPUTS)


@pytest.mark.parametrize(("package", "peers"), [("torch", ["torch"]), ("jax", ["jax", "jax-bptt"])])
def test_frameworks_do_the_same_work(tmp_path, package, peers):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    # In a process of their own: their threads would disturb tests that fork.
    out = tmp_path / "run.json"
    command = ["-m", "bench", "--quick", "--case", "B4-*", "--rounds", "1", "--min-time", "0.001"]
    command += ["--dtype", "float32,float64"]
    subprocess.run(
        [sys.executable, *command, "--peers", ",".join(peers), "--out", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    rows = Results.read(out).rows
    found = {(row.work.split()[0], n): row.records[n].status for row in rows for n in peers}
    refused = {("linear", "torch"), ("lstm", "jax-bptt"), ("gru", "jax-bptt")}
    assert found == {key: "refused" if key in refused else "ok" for key in found}
