"""Two builds of bptt against each other: what a change of the kernels gains or costs.

    python -m bench builds HEAD~1 HEAD
    python -m bench builds HEAD . --cell tanh,lstm --threads 1,2

OLD and NEW are each a git revision, a folder with the sources (`.` has what is not committed), or
a folder with an installed package (`pip install --target FOLDER .`). Sources are built by pip into
a temporary folder. Each build runs with its own Python code, in a process of its own. One call is
`forward` and `Tape.backward` into the arrays of the call before; the outputs of both builds are
compared first. In each round both start anew and take turns, old, new, new, old, at every shape;
the fastest call of either counts, which other processes disturbed least.

The ratio is NEW's time over OLD's: below 1, NEW is faster. Shown are its median over the rounds,
[quartiles], and the interval in which the true median lies with 95 % confidence: where it holds
1, no difference is seen; of twenty rows without one, one is called faster or slower by chance. Half
the interval's width, in the last line, is the noise: some 1 %, less on an idle machine. Ten shapes,
one cell, 9 rounds: two minutes, and half a minute for each revision to build.
"""

from __future__ import annotations

import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bptt
import numpy as np

from . import machine
from .cases import Case
from .options import add_cases, add_rounds, choose, numbers, read_cases, sub_parser
from .problem import Outputs, Problem, disagreement, make_problem, tolerance
from .records import quartiles

__all__ = ["confidence", "main"]

_ROOT = Path(__file__).resolve().parents[1]
_ROUNDS, _FEWEST = 9, 6  # the fewest that give an interval of 95 % confidence
_PAUSE = 0.03  # seconds until the threads of the other build sleep


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, compare, time, print."""
    parser = sub_parser("builds", __doc__)
    parser.add_argument("old", metavar="OLD", help="revision or folder")
    parser.add_argument("new", metavar="NEW", help="revision or folder")
    add_cases(parser, ("tanh",))
    parser.add_argument(
        "--threads",
        type=numbers,
        default=(bptt.get_num_threads(),),
        metavar="LIST",
        help="numbers of threads, as 1,2 (as many as CPUs)",
    )
    parser.add_argument("--min-time", type=float, metavar="S", help="seconds of a turn (0.05)")
    add_rounds(parser, _ROUNDS)
    options = parser.parse_args(arguments)
    cases = read_cases(parser, options)
    cells = choose("--cell", options.cell, bptt.CELLS)
    dtypes = choose("--dtype", options.dtype, dict.fromkeys(("float32", "float64")))
    rounds, min_time = (2, 0.002) if options.quick else (_ROUNDS, 0.05)
    rounds, min_time = options.rounds or rounds, options.min_time or min_time
    with tempfile.TemporaryDirectory() as scratch:
        try:
            old = _installed(options.old, Path(scratch) / "old")
            same = options.old == options.new
            new = old if same else _installed(options.new, Path(scratch) / "new")
        except ValueError as error:
            parser.error(str(error))
        rows = [
            Row(cell, dtype, threads, case)
            for cell in cells
            for dtype in dtypes
            for threads in options.threads
            for case in cases
        ]
        try:
            for round_ in range(rounds):
                print(f"round {round_ + 1} of {rounds}", file=sys.stderr)
                _take_round((old, new), rows, min_time)
        except KeyboardInterrupt:
            print("INTERRUPTED: the rounds so far", file=sys.stderr)
    _report(rows, options.old, options.new)
    return 0


@dataclass
class Row:
    """One problem, with the seconds of a call of (old, new) in each round."""

    cell: str
    dtype: str
    threads: int
    case: Case
    isas: tuple[str, ...] = ()
    same_bits: bool = True
    seconds: list[tuple[float, float]] = field(default_factory=list)

    def ratios(self) -> list[float]:
        return [new / old for old, new in self.seconds]

    def __str__(self) -> str:
        old, new = (1e3 * statistics.median(times) for times in zip(*self.seconds, strict=True))
        low, ratio, high = quartiles(self.ratios())
        least, most = confidence(self.ratios())
        seen = "same" if least <= 1 <= most else "FASTER" if most < 1 else "SLOWER"
        if len(self.seconds) < _FEWEST:
            seen = "too few rounds"
        bits = "" if self.same_bits else ", bits differ"
        return (
            f"{self.cell:<7} {self.dtype} {self.threads:>2} {self.case.name:<22} {old:>9.4g} "
            f"{new:>9.4g}  {ratio:.3f} [{low:.3f} - {high:.3f}] "
            f"{seen} ({least:.3f} to {most:.3f}){bits}"
        )


def confidence(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """An interval that holds the true median with at least this probability, if there are enough.

    By order statistics, of whatever distribution: the number of samples below the median is
    binomial (Conover, Practical Nonparametric Statistics, 3.2). Fewer than six never suffice.
    """
    n, below, outside = len(values), 0, 0.0
    while below < n // 2:
        outside += 2 * math.comb(n, below) / 2**n
        if outside > 1 - level:
            break
        below += 1
    ordered = sorted(values)
    cut = max(below - 1, 0)
    return ordered[cut], ordered[n - 1 - cut]


def _report(rows: Sequence[Row], old: str, new: str) -> None:
    rows = [row for row in rows if row.seconds]
    if not rows:
        return
    isas = " and ".join(sorted(set(rows[0].isas)))
    print(f"{machine.cpu_name(machine.machine())}, {isas}; load {machine.load_average():.2f}")
    print(f"old {old}, new {new}: cell, dtype, threads, shape; ms of both; ratio new / old")
    for row in rows:
        print(row)
    logs = [math.log(statistics.median(row.ratios())) for row in rows]
    print(f"Geometric mean of the ratios: {math.exp(statistics.fmean(logs)):.3f}")
    if len(rows[0].seconds) < _FEWEST:
        print(f"Too few rounds to tell the noise: it takes {_FEWEST}.")
        return
    intervals = [confidence(row.ratios()) for row in rows]
    noise = statistics.median((most - least) / 2 for least, most in intervals)
    print(f"Noise: a difference below {noise:.1%} is not seen at a typical row.")


def _take_round(folders: Sequence[Path], rows: Sequence[Row], min_time: float) -> None:
    """A new process for each build: where its memory happens to lie is a part of the noise."""
    builds = [Build(folder) for folder in folders]
    try:
        for row in rows:
            row.isas = tuple(build.isa for build in builds)
            problem = make_problem(row.case, row.cell, row.dtype)
            _compare(row, problem, [build.prepare(problem, row.threads) for build in builds])
            old, new = builds
            turns = [build.seconds(min_time) for build in (old, new, new, old)]
            row.seconds.append((min(turns[0], turns[3]), min(turns[1], turns[2])))
    finally:
        for build in builds:
            build.stop()


def _compare(row: Row, problem: Problem, outputs: Sequence[Outputs]) -> None:
    old, new = outputs
    errors = disagreement(new, old)
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= tolerance(problem):
        place = f"{row.cell} {row.dtype} {row.case.name}"
        raise SystemExit(f"{place}: {worst} of the two builds differ by {errors[worst]:.1e}")
    row.same_bits &= all(np.array_equal(new[name], old[name]) for name in old)


class Build:
    """An installation in a process of its own (`build_worker`)."""

    def __init__(self, folder: Path) -> None:
        worker = Path(__file__).with_name("build_worker.py")
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, worker, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.isa: str = self._answer()

    def prepare(self, p: Problem, threads: int) -> Outputs:
        """Send a problem; return what the build makes of it."""
        params = {name: a for name, a in p.params.arrays().items() if a is not None}
        sizes = {"cell": p.cell, "threads": threads}
        outputs: Outputs = self._ask(
            {**sizes, "params": params, "x": p.x, "state": p.state, "dy": p.dy}
        )
        return outputs

    def seconds(self, min_time: float) -> float:
        """Of the fastest call in a turn."""
        time.sleep(_PAUSE)
        return float(self._ask(float(min_time)))

    def stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _ask(self, request: object) -> Any:
        assert self._process.stdin is not None
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            status, value = pickle.load(self._process.stdout)
        except EOFError:
            raise SystemExit(f"{self._folder}: its process ended") from None
        if status != "ok":
            raise SystemExit(f"{self._folder}: {value}")
        return value


def _installed(name: str, scratch: Path) -> Path:
    """The folder that holds the package `name` stands for, built in `scratch` if need be."""
    if (Path(name) / "bptt" / "__init__.py").is_file():
        return Path(name).resolve()
    sources = Path(name)
    if not (sources / "pyproject.toml").is_file():
        sources = scratch / "sources"
        sources.mkdir(parents=True)
        _check_out(name, sources)
    print(f"building {name}", file=sys.stderr)
    target = scratch / "installed"
    isolated = any(find_spec(module) is None for module in ("scikit_build_core", "pybind11"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target),
            *([] if isolated else ["--no-build-isolation"]),
            *("--config-settings", f"build-dir={scratch / 'build'}", sources.resolve()),
        ],
        env={**os.environ, "BPTT_REQUIRE_NATIVE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"{name} could not be built:\n{done.stderr}")
    return target


def _check_out(revision: str, folder: Path) -> None:
    git = ["git", "-C", str(_ROOT)]
    asked = [*git, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    if subprocess.run(asked, capture_output=True).returncode:
        raise ValueError(
            f"{revision}: expected a git revision, a folder with bptt's sources or one with "
            "an installed bptt"
        )
    archive = subprocess.run([*git, "archive", revision], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
