"""One run: every case of every cell and dtype, written after each row."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any

import bptt

from . import document, machine
from .cases import Case
from .options import Options, choose
from .peers import all_peers
from .problem import make_problem, tolerance
from .records import Row
from .table import format_result, format_table
from .threads import limited
from .timing import Settings, check, measure

__all__ = ["Session"]


class Session:
    """Measures what `options` ask for."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._peers = choose("--peers", options.peers, all_peers())
        self._cells = choose("--cell", options.cells, bptt.CELLS)
        self._dtypes = choose("--dtype", options.dtypes, {"float32": 0, "float64": 0})
        for package in ("tqdm", "matplotlib"):
            if importlib.util.find_spec(package) is None:
                sys.exit(f"bench: {package} is not installed (pip install 'bptt[bench]')")
        self._settings = Settings(
            options.threads, options.rounds, options.min_time, options.max_call
        )
        self._rows: list[Row] = []
        self._document: dict[str, Any] = document.begin(
            options, [*self._cells], self._peers.values()
        )

    def run(self) -> int:
        """Measure every row; return the exit status."""
        self._options.out.parent.mkdir(parents=True, exist_ok=True)
        interrupted = False
        with limited(self._options.threads):
            try:
                self._measure_all()
            except KeyboardInterrupt:
                interrupted = True
        self._write(interrupted=interrupted)
        print(format_table(self._document))
        self._draw()
        if interrupted:
            return 130
        results = [result for row in self._rows for result in row.results.values()]
        return int(any(result.status in ("wrong", "failed") for result in results))

    def _plan(self) -> Iterator[tuple[str, str, Case]]:
        return itertools.product(self._dtypes, self._cells, self._options.cases)

    def _measure_all(self) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        plan = list(self._plan())
        total = len(plan) * self._settings.rounds
        with tqdm(total=total, unit="round", file=sys.stderr, disable=None) as bar:
            for dtype, cell, case in plan:
                bar.set_description(f"{cell} {dtype} {case.name}")
                row = self._measure(case, cell, dtype, bar)
                self._rows.append(row)
                tqdm.write(_one_line(row), file=sys.stderr)
                self._write(interrupted=True)  # so it stays if the process is killed

    def _measure(self, case: Case, cell: str, dtype: str, bar: Any) -> Row:
        load = machine.load_average()
        problem = make_problem(case, cell, dtype)
        results, contestants = check(problem, self._peers.values(), self._settings)
        for name, result in results.items():
            if result.status in ("wrong", "failed"):
                text = f"*** {name} is {result.status}: {cell} {dtype} {case.name}: {result.reason}"
                bar.write(text, file=sys.stderr)
        peak = machine.fma_peak(dtype, self._settings.threads)
        peaks = measure(contestants, self._settings, peak, after_round=bar.update)
        return Row(
            case=case,
            cell=cell,
            dtype=dtype,
            flops=case.flops(bptt.CELLS[cell].gates),
            tolerance=tolerance(problem),
            peak=peaks,
            load=load,
            results=results,
        )

    def _write(self, *, interrupted: bool) -> None:
        document.update(self._document, self._rows, interrupted=interrupted)
        document.write(self._document, self._options.out)

    def _draw(self) -> None:
        from .chart import draw

        if self._rows:
            for path in draw(self._document, self._options.out):
                print(f"wrote {os.path.relpath(path)}", file=sys.stderr)


def _one_line(row: Row) -> str:
    results = "   ".join(f"{name} {format_result(row, name)}" for name in row.results)
    return f"{row.cell} {row.dtype} {row.case.name}: {results}"
