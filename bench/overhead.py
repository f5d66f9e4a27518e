"""What a call costs beside its arithmetic, each figure with a goal.

- `forward` and `Tape.backward` from Python at T = 1, B = 1, I = H = 8: microseconds
- `import bptt` against `import numpy`, each in fresh interpreters
- gradients that fade: `value_and_grad` at T = 500, B = 12 of a loss at the last step over one at
  every step, with weights so small that the gradient of the last step soon becomes subnormal (below
  the smallest normal number of its dtype) and then zero. The loss at the last step is less work, so
  a ratio above 1 is what the CPU takes for subnormal numbers.

A minute; nothing but this package is needed.
"""

import compileall
import itertools
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bptt
import numpy as np

from . import session
from .cases import Case
from .problem import Array, make_problem, run_bptt
from .records import Row
from .timing import Sample, Task, Timed, judged

_CALL_GOAL = 25e-6  # seconds
_IMPORT_GOAL = 1.3  # times NumPy's
_FADING_GOAL = 1.1
_RADIUS = {"float32": 0.5, "float64": 0.2}  # of w_hh, so that both fade to zero in 500 steps

# Printed by the interpreter itself: its own start, the same for both, would blur the ratio.
_TIME_AN_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def _tasks(options: Namespace) -> Iterator[Task]:
    for cell in bptt.CELLS:
        yield smallest_call(cell, options.rounds, options.min_time)
    yield imports(options.rounds)
    for dtype, cell in itertools.product(_RADIUS, bptt.CELLS):
        yield fading(cell, dtype, options.rounds)


_TITLE = "what a call costs beside its arithmetic"
main = session.command("overhead", __doc__, _TITLE, _tasks, rounds=(15, 2), min_time=(0.05, 0.002))


def smallest_call(cell: str, rounds: int, min_time: float) -> Task:
    """Forward and backward of the smallest useful network, by the backend that "auto" takes."""
    problem = make_problem(Case("overhead", 1, 1, 8, 8), cell, "float32")
    turn = Timed(lambda: run_bptt(problem, "auto"), min_time)
    return judged(problem.row("forward and backward", "us"), _CALL_GOAL, {"bptt": turn}, rounds)


def imports(rounds: int) -> Task:
    """Wall time of ``import bptt`` over that of ``import numpy``."""
    # As pip does when it installs: from a source tree Python may not be allowed to keep bytecode.
    compileall.compile_dir(Path(bptt.__file__).parent, quiet=2)
    turns = {f"import {module}": partial(_import, module) for module in ("bptt", "numpy")}
    for turn in turns.values():
        turn()  # reads the files from the disk
    return judged(Row("overhead", "import", ""), _IMPORT_GOAL, turns, rounds)


def _import(module: str) -> Sample:
    # The child must find the bptt that runs here, however that was found.
    paths = [str(Path(bptt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", _TIME_AN_IMPORT.format(module)]
    return Sample(float(subprocess.check_output(command, env=environment)))


def fading(cell: str, dtype: str, rounds: int) -> Task:
    """A loss at the last step, whose gradient fades to zero, over a loss at every step."""
    params, x, ids = fading_problem(cell, dtype)
    run = partial(bptt.value_and_grad, cell, params, x, loss="cross_entropy")
    turns = {
        "loss at the last step": Timed(partial(run, target=ids, at="last")),
        "loss at every step": Timed(partial(run, target=np.tile(ids, (len(x), 1)), at="all")),
    }
    row = Row("overhead", "gradient that fades, T=500", f"{cell} {dtype}")
    return judged(row, _FADING_GOAL, turns, rounds)


def fading_problem(cell: str, dtype: str) -> tuple[bptt.Params, Array, Array]:
    """Parameters, x (500, 12, 16) and class ids (12,); the gradient at lag 500 is zero."""
    rng, radius = np.random.default_rng(0), _RADIUS[dtype]
    sizes: dict[str, Any] = {"input_size": 16, "hidden_size": 64, "output_size": 10}
    params = bptt.init_params(cell, **sizes, spectral_radius=radius, rng=rng, dtype=dtype)
    if bptt.CELLS[cell].gates > 1 and params.b_hh is not None:
        # The second gate, the LSTM's f and the GRU's z, would carry the state on.
        params.b_hh[64:128] = -4
    x = rng.standard_normal((500, 12, 16)).astype(dtype)
    return params, x, rng.integers(10, size=12)
