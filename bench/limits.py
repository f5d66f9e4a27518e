"""What float64, little memory and a single row cost, each figure with a goal.

- float64: the time of forward and backward over that in float32. It is as many operations, in
  vectors of half as many values: the goal is 0.45 of the rate
- `save="minimal"`, which computes the gates of an LSTM or GRU again, over `save="gates"`
- a step of an LSTM with B = 1, H = 64, forward and backward, on one thread and on --threads: its
  goal is that of a Zen 5

At the shapes of the family `design`. Every call writes into the arrays of the one before, so that
no page is new; the two of a pair take turns, and what they computed is compared first. Some three
minutes; nothing but this package is needed.
"""

import itertools
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import bptt

from . import session
from .cases import Case
from .options import add_cases, choose, make_parser, parse
from .peers import versions
from .problem import Outputs, Problem, make_problem, run_bptt, tolerance, worst_output
from .table import count
from .timing import Sample, Task, Timed, judged

_FLOAT64_GOAL = 1 / 0.45  # times the time in float32
_MINIMAL_GOAL = 1.35
_STEP_GOAL = 1e-6  # seconds
_SMALL = 64  # hidden units at most, of the row alone whose step is timed

_Call = Callable[[], Outputs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print; the exit status is `session.run`'s."""
    parser = make_parser("limits", __doc__, rounds=(7, 1), min_time=(0.03, 0))
    add_cases(parser, ("tanh", "lstm", "gru"), dtypes=False)
    options = parse(parser, arguments)
    options.cell = [*choose(parser, "--cell", options.cell, bptt.CELLS)]
    bptt.set_num_threads(options.threads)
    head = {"titles": options.titles, "versions": versions("native")}
    return session.run(options, _tasks(options), **head)


def _tasks(options: Namespace) -> Iterator[Task]:
    for cell, case in itertools.product(options.cell, options.case):
        yield double(cell, case, options)
    for cell, case in itertools.product(options.cell, options.case):
        if bptt.CELLS[cell].gates > 1:
            yield minimal(cell, case, options)
    for case in options.case:
        if "lstm" in options.cell and case.batch == 1 and case.hidden_size <= _SMALL:
            for threads in sorted({1, options.threads}):
                yield step(case, threads, options)


def _again(problem: Problem, save: str = "gates") -> _Call:
    """Forward and backward, into the arrays of a first call."""
    tape = bptt.forward(problem.cell, problem.params, problem.x, problem.given_state, save=save)
    return partial(run_bptt, problem, "auto", tape, tape.backward(problem.dy), save=save)


def _pair(
    problem: Problem, goal: float, work: str, calls: dict[str, _Call], how: Namespace
) -> Task:
    """The first of two calls, whose time has a goal as a ratio to that of the second."""
    ours, theirs = (call() for call in calls.values())
    worst, error = worst_output(ours, theirs)
    if error > tolerance(problem):
        raise RuntimeError(f"{worst} of {' and '.join(calls)} differ by {error:.1e}")
    turns = {name: Timed(call, how.min_time) for name, call in calls.items()}
    return judged(problem.row(work), goal, turns, how.rounds)


def double(cell: str, case: Case, options: Namespace) -> Task:
    """Forward and backward in float64, over float32."""
    single, double = (make_problem(case, cell, dtype) for dtype in ("float32", "float64"))
    calls = {"float64": _again(double), "float32": _again(single)}
    return _pair(single, _FLOAT64_GOAL, "float64 over float32", calls, options)


def minimal(cell: str, case: Case, options: Namespace) -> Task:
    """Forward and backward with gates that are computed again, over gates that are kept."""
    problem = make_problem(case, cell, "float32")
    calls = {save: _again(problem, save) for save in ("minimal", "gates")}
    return _pair(problem, _MINIMAL_GOAL, "save=minimal over save=gates", calls, options)


def step(case: Case, threads: int, options: Namespace) -> Task:
    """Microseconds of one of the steps, forward and backward, on so many threads."""
    problem = make_problem(case, "lstm", "float32")
    call, before = _again(problem), bptt.get_num_threads()

    def turn() -> Sample:
        bptt.set_num_threads(threads)
        try:
            sample = timed()
        finally:
            bptt.set_num_threads(before)
        return sample._replace(value=sample.value / case.steps)

    timed = Timed(call, options.min_time)
    row = problem.row(f"a step, forward and backward, {count(threads, 'thread')}", unit="us")
    return judged(row, _STEP_GOAL, {"bptt": turn}, options.rounds)
