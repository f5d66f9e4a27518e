"""`bptt.jax.layer` against ``lax.scan`` of the same equations, each figure with a goal.

- gradients: a layer's output y, and the gradients of its weights by jax.value_and_grad, under jit
- ragged: the same of sequences whose lengths rise evenly from 1 to T; the scan computes all steps
  and keeps the state beyond the end of a sequence, as recurrent layers of JAX do
- calls: one call at T = B = 1 under jit, over a compiled function that returns its arguments; the
  goal is the microseconds that it takes more

As in training, x is data, whose gradient nobody asks for. Gradients are compared first. A minute;
needs JAX, and handlers for it in this build.
"""

import itertools
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from . import session
from .cases import Case
from .options import choose, make_parser, names, parse
from .peers import all_peers, versions
from .problem import make_problem, tolerance, worst_output
from .records import Record, Row
from .timing import Sample, Task, Timed, alternate, judged

_CELLS = ("lstm", "gru", "tanh")
_SHAPES = ((32, 128, 128, 128), (64, 256, 64, 64))  # B, T, I, H
_SMALLER, _TINY = (4, 40, 17, 33), (1, 1, 8, 8)  # the first with --quick
_DENSE_GOAL, _RAGGED_GOAL = 1 / 1.5, 1 / 3
_CALL_GOAL = 10e-6  # seconds
_TURNS = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = make_parser("jax", __doc__, rounds=(7, 1), min_time=(0.03, 0))
    parser.add_argument("--part", type=names, default=(), metavar="LIST", help=", ".join(_PARTS))
    parser.add_argument("--cell", type=names, default=(), metavar="LIST", help=", ".join(_CELLS))
    options = parse(parser, arguments)
    parts = choose(parser, "--part", options.part, _PARTS)
    options.cell = tuple(choose(parser, "--cell", options.cell, dict.fromkeys(_CELLS)))
    if reason := all_peers()["jax"].missing() or _missing():
        parser.error(reason)
    tasks = itertools.chain.from_iterable(part(options) for part in parts.values())
    return session.run(options, tasks, titles={"jax": "JAX"}, versions=versions("native", "jax"))


def _missing() -> str | None:
    """Why there is nothing to be timed."""
    import bptt.jax.handlers

    try:
        bptt.jax.handlers.expect_handlers()
    except RuntimeError as error:
        return str(error)
    return None


def _gradients(options: Namespace, *, ragged: bool = False) -> Iterator[Task]:
    shapes = [_SMALLER] if options.quick else _SHAPES
    goal = _RAGGED_GOAL if ragged else _DENSE_GOAL
    for shape, cell in itertools.product(shapes, options.cell):
        yield _contest(cell, Case("jax", *shape), goal, options, ragged=ragged)


def _calls(options: Namespace) -> Iterator[Task]:
    import bptt.jax
    import jax

    for cell in options.cell:
        case = Case("jax", *_TINY)
        problem = make_problem(case, cell, "float32")
        params, x = _arrays(problem)
        state = tuple(map(jax.numpy.asarray, problem.state))
        arguments = params, x, state if len(state) > 1 else state[0]
        identity = jax.jit(lambda params, x, state: (x, state))
        both = [
            partial(_ready, f, *arguments)
            for f in (jax.jit(partial(bptt.jax.layer, cell)), identity)
        ]
        row = Row("jax", "a call under jit, beyond an identity", f"{cell} {case.name}", unit="us")
        row.records["bptt.jax"] = Record(goal=_CALL_GOAL)
        yield Task(row, alternate({"bptt.jax": partial(_beyond, *both)}, options.rounds))


_PARTS: dict[str, Callable[[Namespace], Iterator[Task]]] = {
    "gradients": _gradients,
    "ragged": partial(_gradients, ragged=True),
    "calls": _calls,
}


def _beyond(call: Callable[[], object], other: Callable[[], object]) -> Sample:
    """The seconds that a call takes more than another one, by the medians of calls in turns."""
    found: list[list[float]] = [[], []]
    for _ in range(_TURNS):
        for f, seconds in zip((call, other), found, strict=True):
            began = time.perf_counter()
            f()
            seconds.append(time.perf_counter() - began)
    return Sample(median(found[0]) - median(found[1]))


def _ready(call: Callable[..., Any], *arguments: Any) -> Any:
    import jax

    return jax.block_until_ready(call(*arguments))


def _arrays(problem: Any) -> tuple[dict[str, Any], Any]:
    """The weights by name, and x."""
    import jax.numpy as jnp

    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    weights = dict(zip(names, map(jnp.asarray, problem.weights), strict=True))
    return weights, jnp.asarray(problem.x)


def _contest(cell: str, case: Case, goal: float, options: Namespace, *, ragged: bool) -> Task:
    """The layer over the scan, if it does equal work."""
    import jax.numpy as jnp

    problem = make_problem(case, cell, "float32")
    params, x = _arrays(problem)
    dy, lengths = jnp.asarray(problem.dy), None
    if ragged:
        steps = np.linspace(1, case.steps, case.batch).round()
        lengths = jnp.asarray(steps, jnp.int32)
    calls = {
        name: partial(_gradient(layer, cell), params, x, dy, lengths)
        for name, layer in (("bptt.jax", _ours), ("lax.scan", _scan))
    }
    work = "gradients of the weights over lax.scan's"
    row = Row("jax", f"{work}{', ragged' if ragged else ''}", f"{cell} {case.name}")
    found = [
        {name: np.asarray(g, np.float64) for name, g in call()[1].items()}
        for call in calls.values()
    ]
    worst, error = worst_output(*found)
    allowed = 2 * tolerance(problem)  # each of the two errs by as much at most
    if not error <= allowed:
        reason = f"{worst} is off by {error:.1e}, allowed is {allowed:.1e}"
        row.records["bptt.jax"] = Record("wrong", reason)
        return Task(row, alternate({}, 0))
    turns = {name: Timed(partial(_ready, call), options.min_time) for name, call in calls.items()}
    return judged(row, goal, turns, options.rounds)


def _gradient(layer: Callable[..., Any], cell: str) -> Callable[..., Any]:
    """(params, x, dy, lengths) -> the loss sum(y * dy) and its gradients by the params."""
    import jax

    def loss(params: Any, x: Any, dy: Any, lengths: Any) -> Any:
        return (layer(cell, params, x, lengths) * dy).sum()

    compiled: Callable[..., Any] = jax.jit(jax.value_and_grad(loss))
    return compiled


def _ours(cell: str, params: Any, x: Any, lengths: Any) -> Any:
    import bptt.jax

    return bptt.jax.layer(cell, params, x, lengths=lengths)[0]


def _scan(cell: str, params: Any, x: Any, lengths: Any) -> Any:
    import jax.numpy as jnp
    from jax import lax

    from .peers import jax_passes

    gru = cell == "gru"  # takes both affine maps apart
    sums = x @ params["w_ih"].T + params["b_ih"] + (0 if gru else params["b_hh"])
    b_hh = params["b_hh"] if gru else 0
    hidden = params["w_hh"].shape[1]
    initial = (jnp.zeros((x.shape[1], hidden), x.dtype),) * (2 if cell == "lstm" else 1)
    step = jax_passes.STEPS[cell]

    def advance(state: Any, at_step: Any) -> Any:
        g_t, t = at_step
        after = step(g_t, state[0] @ params["w_hh"].T + b_hh, state)
        if lengths is None:
            return after, after[0]
        there = (t < lengths)[:, None]
        kept = tuple(jnp.where(there, n, old) for n, old in zip(after, state, strict=True))
        return kept, jnp.where(there, after[0], 0)

    return lax.scan(advance, initial, (sums, jnp.arange(len(x))))[1]
