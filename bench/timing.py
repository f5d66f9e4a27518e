"""Check that peers do equal work, then time them in alternation.

One row is one problem. Each peer is first run once, and its outputs are compared with the float64
reference: who disagrees is not timed. Then come the rounds. In each round every peer has one
turn, and the order is rotated from round to round, so that nobody always follows the same
moment of the machine. A turn is

    a pause    in which the threads of the peer before fall asleep,
    a call     that is not timed and brings caches and the peer's own threads back, and
    calls      that are timed together: as many as last for `min_time`, at least one.

The FMA peak of the machine is measured at the start of each round.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .peers import Peer, Workload
from .problem import Outputs, Problem, disagreement, tolerance
from .records import Result
from .threads import waiting_time

__all__ = ["Contestant", "Settings", "check", "measure"]

# Workers of OpenBLAS spin for 26 ms after a call, those of PyTorch for some, and would take a core.
_PAUSE = 0.04
# A call as long as this brings back its own caches; one more that is not timed would double the
# time of the run for less than a percent.
_WARMS_ITSELF = 0.5


@dataclass(frozen=True)
class Settings:
    """How long and how often to measure.

    Attributes
    ----------
    threads, rounds : int
    min_time : float
        Seconds that the timed calls of one turn last at least.
    max_call : float
        Seconds of one call above which a peer is left out of a row.
    """

    threads: int
    rounds: int
    min_time: float
    max_call: float


@dataclass
class Contestant:
    """A peer that has passed the check, ready to be timed."""

    workload: Workload
    result: Result
    warms_itself: bool

    def take_turn(self) -> None:
        """Take one sample."""
        time.sleep(_PAUSE)
        if not self.warms_itself:
            self.workload.call()
        calls, waited = self.result.calls, waiting_time()
        wall, cpu = _seconds(self.workload, calls)
        self.result.seconds.append(wall)
        self.result.cores.append(cpu / wall)
        if waited is not None:
            self.result.waits.append(((waiting_time() or 0.0) - waited) / (wall * calls))


def check(
    problem: Problem, peers: Iterable[Peer], settings: Settings
) -> tuple[dict[str, Result], list[Contestant]]:
    """Run every peer on the problem; return what came of it, and who may be timed."""
    want = problem.reference()
    results: dict[str, Result] = {}
    contestants = []
    for peer in peers:
        reason = peer.missing()
        if reason is not None:
            results[peer.name] = Result("missing", reason)
            continue
        reason = peer.refuses(problem.cell, problem.dtype)
        if reason is not None:
            results[peer.name] = Result("refused", reason)
            continue
        try:
            workload = peer.prepare(problem, settings.threads)
            result = _verified(workload, problem, want)
            if result.is_timed:
                contestants += _calibrated(workload, result, settings)
        except Exception as error:  # a peer's failure is a result, not the end of the run
            result = Result("failed", f"{type(error).__name__}: {error}")
        results[peer.name] = result
    return results, contestants


def measure(
    contestants: Sequence[Contestant],
    settings: Settings,
    peak: Callable[[], float] | None,
    after_round: Callable[[], object] = lambda: None,
) -> list[float]:
    """Let `contestants` take their turns, and return the peak of each round."""
    peaks = []
    for round_ in range(settings.rounds):
        if peak is not None:
            time.sleep(_PAUSE)
            peaks.append(peak())
        first = round_ % max(len(contestants), 1)
        for contestant in (*contestants[first:], *contestants[:first]):
            with _no_collection():
                contestant.take_turn()
        after_round()
    return peaks


def _verified(workload: Workload, problem: Problem, want: Outputs) -> Result:
    """Compare the outputs of one call with the reference."""
    errors = disagreement(workload.outputs(workload.call()), want)
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] <= tolerance(problem):
        return Result("ok", errors=errors)
    reason = f"{worst} is off by {errors[worst]:.1e}, allowed is {tolerance(problem):.1e}"
    return Result("wrong", reason, errors=errors)


def _calibrated(workload: Workload, result: Result, settings: Settings) -> list[Contestant]:
    """Choose the number of calls of a turn, or skip the peer; called once it is compiled."""
    calls = 1
    seconds, _ = _seconds(workload, calls)
    # The first calls after the check may still be slow: believe what lasts long enough.
    while seconds * calls < settings.min_time / 4:
        calls *= 4
        seconds, _ = _seconds(workload, calls)
    if seconds > settings.max_call:
        result.status, result.reason = "skipped", f"{seconds:.3g} s a call"
        return []
    result.calls = math.ceil(settings.min_time / seconds)
    return [Contestant(workload, result, seconds >= _WARMS_ITSELF)]


def _seconds(workload: Workload, calls: int) -> tuple[float, float]:
    """Wall time and CPU time (of all threads) of one call, as the mean of so many."""
    call = workload.call
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / calls, cpu / calls


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the samples, as `timeit` does."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
