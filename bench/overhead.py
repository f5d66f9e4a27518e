"""``python -m bench overhead``: what a call costs before any work is done.

Figures with their goals: `forward` and `backward` at T = 1, B = 1, I = H = 8 from Python; the
import of `bptt` against the import of NumPy, each in fresh interpreters, in alternation; and what
subnormal gradients cost.
And, without a goal, what reused outputs save at larger shapes.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .figure import Figure, write_figures

__all__ = ["main"]

_CALL_GOAL = 25.0  # microseconds
_IMPORT_GOAL = 1.3  # times NumPy's
_DECAY_GOAL = 1.1

# Printed by the interpreter itself: its own start, the same for both, would blur the ratio.
_TIME_AN_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 if every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench overhead", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(arguments)
    from . import machine
    from .reuse import reuse_rows

    load = machine.load_average()
    figures = [*call_figures(options.rounds), import_figure(options.rounds)]
    figures.append(decay_figure(options.rounds))
    for figure in figures:
        print(figure)
    reuse = list(reuse_rows(options.rounds))
    for row in reuse:
        print(row)
    print(f"(medians of {options.rounds} rounds [quartiles]; load average {load:.2f} at the start)")
    if options.out is not None:
        more = {"reuse": [row.to_dict() for row in reuse]}
        write_figures(options.out, figures, load, options.rounds, more)
    return 0 if all(figure.is_met for figure in figures) else 1


def call_figures(rounds: int, calls: int = 2000) -> list[Figure]:
    """Forward and backward of the smallest useful network, by the backend that "auto" takes."""
    import bptt

    from .cases import Case
    from .problem import make_problem, run_bptt
    from .records import quartiles

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


def decay_figure(rounds: int) -> Figure:
    """Backward where gradients pass through subnormal numbers, over where they do not."""
    import bptt
    import numpy as np

    from .records import quartiles

    steps, batch = 400, 32
    x = np.random.default_rng(0).standard_normal((steps, batch, 64), dtype=np.float32)
    dy = np.zeros((steps, batch, 128), np.float32)
    dy[-1] = 1  # a loss at the last step
    tapes = {}
    for radius in (0.8, 1.0):
        params = bptt.init_params(
            "linear", input_size=64, hidden_size=128, spectral_radius=radius, rng=0
        )
        tapes[radius] = bptt.forward("linear", params, x)
    dx = tapes[0.8].backward(dy).x
    tiny = np.finfo(np.float32).tiny
    if not np.any((dx != 0) & (np.abs(dx) < tiny)):
        raise RuntimeError("no gradient is subnormal: there is nothing to time")
    ratios = []
    for _ in range(rounds + 1):
        seconds = {}
        for radius, tape in tapes.items():
            begun = time.perf_counter()
            tape.backward(dy)
            seconds[radius] = time.perf_counter() - begun
        ratios.append(seconds[0.8] / seconds[1.0])
    name = "backward with subnormal gradients over without"
    return Figure(name, "x ", *quartiles(ratios[1:]), goal=_DECAY_GOAL)


def import_figure(rounds: int) -> Figure:
    """Wall time of ``import bptt`` over that of ``import numpy``."""
    import bptt

    from .records import quartiles

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
    import bptt

    # The child must find the bptt that runs here, however that was found.
    paths = [str(Path(bptt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", _TIME_AN_IMPORT.format(module)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)
