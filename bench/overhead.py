"""What a call costs beside its arithmetic, each figure with a goal.

- `forward` and `Tape.backward` from Python at T = 1, B = 1, I = H = 8: microseconds
- `import bptt` against `import numpy`, each in fresh interpreters
- gradients that fade: `value_and_grad` at T = 500, B = 12 of a loss at the last step over one at
  every step, with weights so small that the gradient of the last step soon becomes subnormal (below
  the smallest normal number of its dtype) and then zero. The loss at the last step is less work, so
  a ratio above 1 is what the CPU takes for subnormal numbers.

A minute; nothing but this package is needed.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import bptt
import numpy as np

from .cases import Case
from .figure import Figure, ratio, run_figures
from .options import add_out, add_rounds, sub_parser
from .problem import Array, make_problem, run_bptt
from .records import quartiles

__all__ = ["main"]

_CALL_GOAL = 25.0  # microseconds
_IMPORT_GOAL = 1.3  # times NumPy's
_FADING_GOAL = 1.1
_RADIUS = {"float32": 0.5, "float64": 0.2}  # of w_hh, so that both fade to zero in 500 steps

# Printed by the interpreter itself: its own start, the same for both, would blur the ratio.
_TIME_AN_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 if every goal is met."""
    parser = sub_parser("overhead", __doc__)
    add_rounds(parser, 15)
    add_out(parser)
    options = parser.parse_args(arguments)
    calls = 100 if options.quick else 2000
    rounds = options.rounds = options.rounds or (2 if options.quick else 15)

    def figures() -> Iterator[Figure]:
        yield from call_figures(rounds, calls)
        yield import_figure(rounds)
        yield from fading_figures(rounds)

    return run_figures(options, figures())


def call_figures(rounds: int, calls: int = 2000) -> list[Figure]:
    """Forward and backward of the smallest useful network, by the backend that "auto" takes."""
    figures = []
    for cell in bptt.CELLS:
        problem = make_problem(Case("overhead", 1, 1, 8, 8), cell, "float32")
        arrays = (cell, problem.params, problem.x, problem.given_state, problem.dy)
        samples = []
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            for _ in range(calls):
                run_bptt(*arrays, backend="auto")
            samples.append((time.perf_counter() - begun) / calls * 1e6)
        # The first round brings everything into the caches.
        name = f"{cell}: forward + backward at T=1, B=1, I=H=8"
        figures.append(Figure(name, "us", *quartiles(samples[1:]), goal=_CALL_GOAL))
    return figures


def fading_figures(rounds: int) -> Iterator[Figure]:
    """A loss at the last step, whose gradient fades to zero, over a loss at every step."""
    for dtype in _RADIUS:
        for cell in bptt.CELLS:
            name = f"{cell} {dtype} T=500: fading gradient / loss at every step"
            yield ratio(name, _FADING_GOAL, rounds, *fading_calls(cell, dtype))


def fading_calls(cell: str, dtype: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """The loss at the last step, and the loss at every step."""
    params, x, ids = fading_problem(cell, dtype)
    everywhere = np.tile(ids, (len(x), 1))
    run = partial(bptt.value_and_grad, cell, params, x, loss="cross_entropy")
    return partial(run, target=ids, at="last"), partial(run, target=everywhere, at="all")


def fading_problem(cell: str, dtype: str) -> tuple[bptt.Params, Array, Array]:
    """Parameters, x (500, 12, 16) and class ids (12,); the gradient at lag 500 is zero."""
    rng = np.random.default_rng(0)
    params = bptt.init_params(
        cell,
        input_size=16,
        hidden_size=64,
        output_size=10,
        spectral_radius=_RADIUS[dtype],
        rng=rng,
        dtype=dtype,
    )
    if bptt.CELLS[cell].gates > 1 and params.b_hh is not None:
        # The second gate, the LSTM's f and the GRU's z, would carry the state on.
        params.b_hh[64:128] = -4
    x = rng.standard_normal((500, 12, 16)).astype(dtype)
    return params, x, rng.integers(10, size=12)


def import_figure(rounds: int) -> Figure:
    """Wall time of ``import bptt`` over that of ``import numpy``."""
    # As pip does when it installs: from a source tree Python may not be allowed to keep bytecode.
    compileall.compile_dir(Path(bptt.__file__).parent, quiet=2)
    ratios = []
    for round_ in range(rounds + 1):
        order = ("bptt", "numpy") if round_ % 2 else ("numpy", "bptt")
        seconds = {module: _import_seconds(module) for module in order}
        ratios.append(seconds["bptt"] / seconds["numpy"])
    # The first round reads the files from the disk.
    name = "import bptt over import numpy"
    return Figure(name, "x ", *quartiles(ratios[1:]), goal=_IMPORT_GOAL)


def _import_seconds(module: str) -> float:
    # The child must find the bptt that runs here, however that was found.
    paths = [str(Path(bptt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", _TIME_AN_IMPORT.format(module)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)
