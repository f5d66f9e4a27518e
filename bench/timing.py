"""Check that contestants do equal work, then time them in alternation.

In each round everybody has one turn, and the order is rotated from round to round, so that nobody
always follows the same moment of the machine. A turn is

    a pause    in which the threads of the one before fall asleep,
    a call     that is not timed and brings caches and the peer's own threads back, and
    calls      that are timed together: as many as last for `min_time`, at least one.
"""

import gc
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import NamedTuple

import bptt
from bptt import compiled

from . import machine
from .peers import Peer
from .problem import Outputs, Problem, tolerance, worst_output
from .records import Record, Row, confidence, quartiles

# Workers of OpenBLAS spin for 26 ms after a call, those of PyTorch for some, and would take a core.
_PAUSE = 0.04
# A call as long as this brings back its own caches; one more that is not timed would double the
# time of the run for less than a percent.
_WARMS_ITSELF = 0.5


class Sample(NamedTuple):
    """What one turn found: seconds of a call, or bytes; the others as in `Record`, NaN unknown."""

    value: float
    cores: float = math.nan
    waits: float = math.nan
    share: float = math.nan


Turns = Mapping[str, Callable[[], Sample]]
Rounds = Iterable[Mapping[str, Sample]]


@dataclass
class Peak:
    """The FMA peak of each round, in flop/s: in registers, and with loads."""

    dtype: str
    threads: int
    found: list[float] = field(default_factory=list)
    with_loads: list[float] = field(default_factory=list)

    def take_turn(self) -> None:
        time.sleep(_PAUSE)
        for loads, rates in ((False, self.found), (True, self.with_loads)):
            rates.append(compiled.core.fma_peak(self.dtype, self.threads, loads) * 1e9)


@dataclass
class Timed:
    """A call that is ready to be timed; calling this takes a turn."""

    call: Callable[[], object]
    min_time: float = 0.0
    flops: int = 0  # of a call
    peak: Peak | None = None

    def __post_init__(self) -> None:
        """Choose the number of calls of a turn. The first may still be slow: believe what lasts."""
        self.calls = 1
        self.seconds, _ = self._clock()
        while self.seconds * self.calls < self.min_time / 4:
            self.calls *= 4
            self.seconds, _ = self._clock()
        self.calls = max(math.ceil(self.min_time / self.seconds), 1)

    def __call__(self) -> Sample:
        time.sleep(_PAUSE)
        if self.seconds < _WARMS_ITSELF:
            self.call()
        waited = machine.waiting_time()
        wall, cpu = self._clock()
        waited = (machine.waiting_time() - waited) / self.calls
        share = self.flops / wall / self.peak.found[-1] if self.peak else math.nan
        return Sample(wall, cpu / wall, waited / wall, share)

    def _clock(self) -> tuple[float, float]:
        """Wall time and CPU time (of all threads) of one call, as the mean of `calls`."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(self.calls):
            self.call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall / self.calls, cpu / self.calls


@dataclass
class Task:
    """A row that is to be measured."""

    row: Row  # without figures, but with the records of those who are not timed
    rounds: Rounds  # a sample of each contestant in each round, measured while this is read
    peak: Peak | None = None
    with_interval: bool = False  # whether ratios get a confidence interval

    def measure(self) -> Row:
        """Take all samples and fill in the row."""
        row, rounds = self.row, list(self.rounds)
        for name in rounds[0] if rounds else ():
            record = row.records.setdefault(name, Record())
            value, cores, waits, share = map(
                quartiles, zip(*(round_[name] for round_ in rounds), strict=True)
            )
            record.value, record.share = value, share
            record.cores, record.waits = cores and cores.median, waits and waits.median
            baseline = row.baseline or name
            if baseline != name and baseline in rounds[0]:
                ratios = [round_[name].value / round_[baseline].value for round_ in rounds]
                record.ratio = quartiles(ratios)
                record.interval = confidence(ratios) if self.with_interval else None
        waited = [s.waits for found in rounds for s in found.values() if s.waits >= 0]
        row.waits = fmean(waited) if waited else None
        if self.peak and self.peak.found:
            row.peak, row.peak_loads = median(self.peak.found), median(self.peak.with_loads)
        return row


def alternate(turns: Turns, rounds: int, peaks: Iterable[Peak] = ()) -> Rounds:
    """Rounds in which everybody takes one turn, in an order that rotates; peaks come first."""
    names = list(turns)
    for round_ in range(rounds if names else 0):
        for peak in peaks:
            peak.take_turn()
        first = round_ % len(names)
        gc.disable()  # keep Python's garbage collector out of the samples, as `timeit` does
        try:
            samples = {name: turns[name]() for name in (*names[first:], *names[:first])}
        finally:
            gc.enable()
        yield samples


def judged(
    row: Row, goal: float | None, turns: Turns, rounds: int, peak: Peak | None = None
) -> Task:
    """The first of `turns` with a goal: of its ratio to the second, if there are two."""
    first, *baseline = turns
    row.baseline = baseline[0] if baseline else None
    row.records[first] = Record(goal=goal)
    return Task(row, alternate(turns, rounds, [peak] if peak else ()), peak)


def contest(
    problem: Problem, peers: Iterable[Peer], options: Namespace, baseline: str | None = None
) -> Task:
    """Run every peer on the problem; those that do equal work will take turns.

    `options` has ``threads``, ``rounds``, ``min_time`` and ``max_call``, the seconds of one call
    above which a peer is left out.
    """
    case, want, allowed = problem.case, problem.reference(), tolerance(problem)
    row = Row(case.family, f"{problem.cell} {problem.dtype}", case.name, baseline=baseline)
    row.flops, row.tolerance = case.flops(bptt.CELLS[problem.cell].gates), allowed
    turns: dict[str, Timed] = {}
    peaks: dict[int, Peak] = {}
    for peer in peers:
        record = row.records[peer.name] = Record()
        threads = peer.threads or options.threads
        if bptt.backends()["native"].available:
            peaks.setdefault(threads, Peak(problem.dtype, threads))
        try:
            if call := _checked(peer, problem, threads, want, record):
                record.predicted = peer.predicted(problem, threads)
                turn = Timed(call, options.min_time, row.flops, peaks.get(threads))
                if turn.seconds > options.max_call:
                    record.status, record.reason = "skipped", f"{turn.seconds:.3g} s a call"
                else:
                    turns[peer.name] = turn
        except Exception as error:  # a peer's failure is a result, not the end of the run
            record.status, record.reason = "failed", f"{type(error).__name__}: {error}"
    peak = peaks[max(peaks)] if peaks else None
    return Task(row, alternate(turns, options.rounds, list(peaks.values())), peak)


def _checked(
    peer: Peer, problem: Problem, threads: int, want: Outputs, record: Record
) -> Callable[[], object] | None:
    """The peer's call, when its outputs have been found right; else `record` says why not."""
    if reason := peer.missing():
        record.status, record.reason = "missing", reason
    elif reason := peer.refuses(problem.cell, problem.dtype):
        record.status, record.reason = "refused", reason
    else:
        workload, allowed = peer.prepare(problem, threads), tolerance(problem)
        worst, record.error = worst_output(workload.outputs(workload.call()), want)
        if record.error <= allowed:
            return workload.call
        record.status = "wrong"
        record.reason = f"{worst} is off by {record.error:.1e}, allowed is {allowed:.1e}"
    return None
