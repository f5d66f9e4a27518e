"""Two builds of bptt against each other: what a change of the kernels gains or costs.

    python -m bench builds HEAD~1 HEAD
    python -m bench builds HEAD . --cell tanh,lstm --threads 1,2

OLD and NEW are each a git revision, a folder with the sources (`.` has what is not committed), or
a folder with an installed package (`pip install --target FOLDER .`). Sources are built by pip into
a temporary folder. Each build runs with its own Python code. One call is `forward` and
`Tape.backward` into the arrays of the call before; the outputs of both builds are compared first.
In each round they take turns, old, new, new, old, each turn in a process of its own; the fastest
call of either counts, which other processes disturbed least.

The ratio is NEW's time over OLD's: below 1, NEW is faster. Shown are its median over the rounds,
[quartiles], and the interval in which the true median lies with 95 % confidence: where it holds
1, no difference is seen; of twenty rows without one, one is called faster or slower by chance. Half
the interval's width, in the last line, is the noise: some 1 %, less on an idle machine. Ten shapes,
one cell, 9 rounds: three minutes, and half a minute for each revision to build.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bptt
import numpy as np

from . import session
from .cases import Case, titles
from .options import add_cases, choose, make_parser, parse
from .problem import Outputs, Problem, disagreement, make_problem, tolerance
from .records import Record, Row
from .table import count
from .threads import default_threads, numbers
from .timing import Sample, Task

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, compare, time, print; the exit status is `session.run`'s."""
    full, quick = {"rounds": 9, "min_time": 0.05}, {"rounds": 2, "min_time": 0.002}
    parser = make_parser("builds", __doc__, full, quick)
    parser.add_argument("old", metavar="OLD", help="revision or folder")
    parser.add_argument("new", metavar="NEW", help="revision or folder")
    add_cases(parser, ("tanh",))
    cpus, text = (default_threads(),), "numbers of threads, as 1,2 (as many as CPUs)"
    parser.add_argument("--threads", type=numbers, default=cpus, metavar="LIST", help=text)
    options = parse(parser, arguments)
    cells = choose(parser, "--cell", options.cell, bptt.CELLS)
    plan = list(itertools.product(cells, options.dtype, options.threads, options.case))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            old = _installed(options.old, Path(scratch) / "old")
            same = options.old == options.new
            new = old if same else _installed(options.new, Path(scratch) / "new")
        except ValueError as error:
            parser.error(str(error))
        builds = {"old": old, "new": new}
        return session.run(
            options,
            _tasks(builds, plan, options),
            titles=titles(options.case),
            versions={name: _version(getattr(options, name), builds[name]) for name in builds},
            count=len(plan),
        )


def _tasks(
    builds: Mapping[str, Path], plan: Iterable[tuple[str, str, int, Case]], options: Namespace
) -> Iterator[Task]:
    for cell, dtype, threads, case in plan:
        records = {"old": Record(), "new": Record()}
        work = f"{cell} {dtype} {count(threads, 'thread')}"
        row = Row(case.family, work, case.name, records, baseline="old")
        problem = make_problem(case, cell, dtype)
        request = {name: getattr(problem, name) for name in ("cell", "x", "state", "dy")}
        params = {name: a for name, a in problem.params.arrays().items() if a is not None}
        request.update(params=params, threads=threads, min_time=options.min_time)
        rounds = (_take_round(builds, row, problem, request) for _ in range(options.rounds))
        yield Task(row, rounds, with_interval=True)


def _take_round(
    builds: Mapping[str, Path], row: Row, problem: Problem, request: Mapping[str, Any]
) -> dict[str, Sample]:
    """A new process for each turn: where its memory happens to lie is a part of the noise."""
    turns = [(name, _ask(builds[name], request)) for name in ("old", "new", "new", "old")]
    outputs = [answer["outputs"] for _, answer in turns]
    _compare(row, problem, *outputs[:2])
    seconds = {name: [a["seconds"] for who, a in turns if who == name] for name in builds}
    return {name: Sample(min(found)) for name, found in seconds.items()}


def _compare(row: Row, problem: Problem, old: Outputs, new: Outputs) -> None:
    errors = disagreement(new, old)
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= tolerance(problem):
        place = f"{row.work} {row.name}"
        raise SystemExit(f"{place}: {worst} of the two builds differ by {errors[worst]:.1e}")
    if not all(np.array_equal(new[name], old[name]) for name in old):
        row.records["new"].note = "bits differ"


def _ask(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the build in `folder`, from a process of its own (`build_worker`)."""
    command = [sys.executable, str(Path(__file__).with_name("build_worker.py")), str(folder)]
    done = subprocess.run(command, input=pickle.dumps(request), stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{folder}: its process ended with status {done.returncode}")
    answer: dict[str, Any] = pickle.loads(done.stdout)
    return answer


def _version(name: str, folder: Path) -> str:
    """What a build is, for the record: of a folder its own name, of a revision its commit too."""
    found = _ask(folder, {})
    commit = "" if Path(name).exists() else f" ({_git('rev-parse', name).decode()[:12]})"
    return f"{Path(name).name or '.'}{commit}, bptt {found['version']}, {found['isa']}"


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
    try:
        archive = _git("archive", f"{revision}^{{commit}}")
    except subprocess.CalledProcessError:
        raise ValueError(
            f"{revision}: expected a git revision, a folder with bptt's sources or one with "
            "an installed bptt"
        ) from None
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout
