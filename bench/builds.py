"""Two builds of bptt against each other: what a change of the kernels gains or costs.

OLD and NEW are each a git revision, a folder with the sources (`.` has what is not committed), or
a folder with an installed package (`pip install --target FOLDER .`). Sources are built by pip into
a temporary folder, in half a minute. One call is `forward` and `Tape.backward` into the arrays of
the call before, by the build's own Python code; outputs are compared. In each round the builds take
turns, old, new, new, old, each in a process of its own; the fastest call of either counts.

The ratio is NEW's time over OLD's: below 1, NEW is faster. Where the interval, which has its true
median with 95 % confidence, holds 1, no difference is seen; of twenty rows without one, one is
called faster or slower by chance. The noise is half its width. Ten shapes, one cell: three minutes.
"""

import itertools
import os
import pickle
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bptt
import numpy as np

from . import session
from .cases import Case
from .machine import git
from .options import add_cases, choose, make_parser, numbers, parse
from .problem import Outputs, Problem, make_problem, tolerance, worst_output
from .records import Record, Row
from .table import count
from .timing import Sample, Task

Builds = Mapping[str, Path]  # by "old" and "new": the folder of each
_PACKAGE = Path("bptt", "__init__.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, compare, time, print; the exit status is `session.run`'s."""
    parser = make_parser("builds", __doc__, rounds=(9, 2), min_time=(0.05, 0.002), threads=numbers)
    parser.add_argument("old", metavar="OLD", help="revision or folder")
    parser.add_argument("new", metavar="NEW", help="revision or folder")
    add_cases(parser, ("tanh",))
    options = parse(parser, arguments)
    cells = choose(parser, "--cell", options.cell, bptt.CELLS)
    plan = [*itertools.product(cells, options.dtype, options.threads, options.case)]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            names = {"old": options.old, "new": options.new}
            sources = {name: _sources(name, Path(scratch)) for name in names.values()}
            found = {name: _installed(name, at, Path(scratch)) for name, at in sources.items()}
        except ValueError as error:
            parser.error(str(error))
        builds = {who: found[name] for who, name in names.items()}
        tasks = (_task(builds, *work, options) for work in plan)
        versions = {who: _version(name) for who, name in names.items()}
        more = {"titles": options.titles, "versions": versions}
        return session.run(options, tasks, count=len(plan), **more)


def _task(
    builds: Builds, cell: str, dtype: str, threads: int, case: Case, options: Namespace
) -> Task:
    problem, work = make_problem(case, cell, dtype), f"{cell} {dtype} {count(threads, 'thread')}"
    row = Row(case.family, work, case.name, {name: Record() for name in builds}, baseline="old")
    params = {name: array for name, array in problem.params.arrays().items() if array is not None}
    request = {name: getattr(problem, name) for name in ("cell", "x", "state", "dy")}
    request.update(params=params, threads=threads, min_time=options.min_time)
    rounds = _rounds(builds, row, problem, request, options.rounds)
    return Task(row, rounds, with_interval=True)


def _rounds(
    builds: Builds, row: Row, problem: Problem, request: Mapping[str, Any], rounds: int
) -> Iterator[dict[str, Sample]]:
    """A new process for each turn: where its memory happens to lie is a part of the noise."""
    for _ in range(rounds):
        turns = [(who, *_ask(builds[who], request)) for who in ("old", "new", "new", "old")]
        _compare(row, problem, *(outputs for _, outputs, _ in turns[:2]))
        seconds = {who: [s for name, _, s in turns if name == who] for who in builds}
        yield {who: Sample(min(found)) for who, found in seconds.items()}


def _compare(row: Row, problem: Problem, old: Outputs, new: Outputs) -> None:
    worst, error = worst_output(new, old)
    if not error <= tolerance(problem):
        place = f"{row.work} {row.name}"
        raise SystemExit(f"{place}: {worst} of the two builds differ by {error:.1e}")
    if not all(np.array_equal(new[name], old[name]) for name in old):
        row.records["new"].note = "bits differ"


def _ask(folder: Path, request: Mapping[str, Any]) -> Any:
    """The answer of the build in `folder`, from a process of its own (`build_worker`)."""
    command = [sys.executable, str(Path(__file__).with_name("build_worker.py")), str(folder)]
    done = subprocess.run(command, input=pickle.dumps(request), stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{folder}: its process ended with status {done.returncode}")
    return pickle.loads(done.stdout)


def _version(name: str) -> str:
    """What a build is, for the record: of a folder its own name, of a revision its commit too."""
    revision = None if Path(name).exists() else git("rev-parse", name)
    return f"{name} ({revision.decode()[:12]})" if revision else Path(name).name or "."


def _sources(name: str, scratch: Path) -> Path:
    """The folder that `name` is; or of a revision, one in `scratch`. All are read before any is
    built, which takes a minute."""
    if any((Path(name) / file).is_file() for file in ("pyproject.toml", _PACKAGE)):
        return Path(name).resolve()
    if (archive := git("archive", f"{name}^{{commit}}")) is None:
        raise ValueError(
            f"{name}: expected a git revision, a folder with bptt's sources or one with "
            "an installed bptt"
        )
    sources = Path(tempfile.mkdtemp(dir=scratch))
    subprocess.run(["tar", "-x", "-C", sources], input=archive, check=True)
    return sources


def _installed(name: str, sources: Path, scratch: Path) -> Path:
    """The folder with the package of `sources`: themselves, or built in `scratch`."""
    if (sources / _PACKAGE).is_file():
        return sources
    scratch = Path(tempfile.mkdtemp(dir=scratch))
    target = scratch / "installed"
    print(f"building {name}", file=sys.stderr)
    isolated = any(find_spec(module) is None for module in ("scikit_build_core", "pybind11"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target),
            *([] if isolated else ["--no-build-isolation"]),
            *("--config-settings", f"build-dir={scratch / 'build'}", sources),
        ],
        env={**os.environ, "BPTT_REQUIRE_NATIVE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"{name} could not be built:\n{done.stderr}")
    return target
