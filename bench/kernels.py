"""The leaf kernels alone, on one thread in float32, and how near they come to their limit.

- the product of 6, 16 and 64 rows by packed weights, with sums over K = 64 to 1024: 1 MiB of
  weights, which a large second-level cache holds, and 8 MiB from beyond it, fetched ahead
- the outer product, dW of 256 rows at H = 128, 256 and 512

The limit is the peak with loads: multiply-adds in the same register tile, whose operands come from
the first-level cache. It is measured in every round, like a kernel: the best of six runs. The goal
is 95 % of it for products of K >= 128 from the second-level cache. Half a minute; nothing but this
package is needed.
"""

import itertools
import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial

from bptt import compiled

from . import session
from .records import Row
from .timing import Peak, Sample, Task, judged

_ROWS, _SUMS, _HIDDEN = (6, 16, 64), (64, 128, 256, 1024), (128, 256, 512)
_LEAST_SUM = 128  # with a goal
_GOAL = 1.053  # times what it would take at the peak with loads: 95 %
_OUTER_ROWS = 256


def _tasks(options: Namespace) -> Iterator[Task]:
    for mib, far in ((1, False), (8, True)):
        for k, rows in itertools.product(_SUMS, _ROWS):
            columns = (mib << 18) // k
            work = f"product, weights of {mib} MiB"
            row = Row("kernels", work, f"K{k} rows{rows}", unit="us", flops=2 * rows * k * columns)
            kernel = partial(compiled.core.product_seconds, "float32", rows, k, columns, far)
            goal = None if far or k < _LEAST_SUM else _GOAL
            yield _against_the_peak(row, "product", kernel, options, goal)
    for n in _HIDDEN:
        work = f"outer product, {_OUTER_ROWS} rows"
        row = Row("kernels", work, f"H{n}", unit="us", flops=2 * _OUTER_ROWS * n * n)
        kernel = partial(compiled.core.outer_seconds, "float32", _OUTER_ROWS, n, n)
        yield _against_the_peak(row, "outer", kernel, options, goal=None)


_TITLE = "one thread, % of the peak with loads"
main = session.command("kernels", __doc__, _TITLE, _tasks, rounds=(15, 2), min_time=(0.001, 0))


def _against_the_peak(
    row: Row, name: str, kernel: Callable[[int], float], options: Namespace, goal: float | None
) -> Task:
    """Seconds of a call of `kernel`, and those that it would take at the peak with loads."""
    flops, peak = row.flops or 0, Peak("float32", 1)
    calls = max(math.ceil(options.min_time / kernel(1)), 1)

    def limit() -> Sample:
        return Sample(flops / peak.with_loads[-1])

    def turn() -> Sample:
        seconds = kernel(calls)
        return Sample(seconds, share=limit().value / seconds)

    turns = {name: turn, "peak with loads": limit}
    return judged(row, goal, turns, options.rounds, peak)
