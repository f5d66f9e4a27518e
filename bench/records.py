"""What is kept of a run: every sample of every peer, as plain data for JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from .cases import Case

__all__ = ["SCHEMA", "Quartiles", "Result", "Row", "quartiles", "rows_of"]

SCHEMA = 1


class Quartiles(NamedTuple):
    """First quartile, median and third quartile."""

    low: float
    median: float
    high: float

    def straddles(self, bar: float) -> bool:
        """Whether `bar` lies within the interquartile range: too close to call."""
        return self.low <= bar <= self.high


def quartiles(values: Sequence[float]) -> Quartiles:
    """Quartiles by linear interpolation between the samples."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass
class Result:
    """One peer at one row.

    Attributes
    ----------
    status : {"ok", "skipped", "refused", "missing", "wrong", "failed"}
        "wrong": its outputs disagree with the reference, so it was not timed. "failed": it
        raised. "skipped": a call takes too long. "refused", "missing": it cannot do this.
    reason : str
        Why it is not "ok".
    seconds : list of float
        Of one call, for each round: the mean over the `calls` of that round.
    cores : list of float
        CPU time over wall time, for each round: how many cores were busy.
    waits : list of float
        Time that threads were ready but had no CPU, over wall time, for each round: what other
        processes took away, or what the peer's own threads took from each other. Empty where the
        system does not tell.
    errors : dict
        ||got - reference|| / ||reference|| for each output.
    """

    status: str
    reason: str = ""
    calls: int = 0
    seconds: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def is_timed(self) -> bool:
        """Whether there are times to compare."""
        return self.status == "ok"


@dataclass
class Row:
    """One case of one cell and dtype, with every peer's result in the order they were asked.

    Attributes
    ----------
    flops : int
        Of one call, the same for every peer.
    tolerance : float
        The largest error that a peer may have.
    peak : list of float
        FMA peak in flop/s on the same threads, measured in each round; empty if it is not known.
    load : float
        Load average of the last minute before the row began.
    """

    case: Case
    cell: str
    dtype: str
    flops: int
    tolerance: float
    peak: list[float]
    load: float
    results: dict[str, Result]

    def timed(self) -> dict[str, Result]:
        """The results that have times."""
        return {name: result for name, result in self.results.items() if result.is_timed}

    def ratio(self, peer: str, baseline: str) -> Quartiles | None:
        """Time of `peer` over time of `baseline`, of each round; None if one was not timed.

        Both of a round ran within the same moments, so what slows the whole machine for a while
        cancels out.
        """
        timed = self.timed()
        if peer not in timed or baseline not in timed:
            return None
        pairs = zip(timed[peer].seconds, timed[baseline].seconds, strict=True)
        return quartiles([a / b for a, b in pairs])

    def peak_fraction(self, peer: str) -> Quartiles | None:
        """Rate of `peer` as a fraction of the FMA peak of the same round."""
        result = self.results[peer]
        if not result.is_timed or not self.peak:
            return None
        pairs = zip(result.seconds, self.peak, strict=True)
        return quartiles([self.flops / seconds / peak for seconds, peak in pairs])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "case": self.case.to_dict(),
            "cell": self.cell,
            "dtype": self.dtype,
            "flops": self.flops,
            "tolerance": self.tolerance,
            "peak": self.peak,
            "load": self.load,
            "results": {name: asdict(result) for name, result in self.results.items()},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        """The inverse of `to_dict`."""
        sizes = {name: value for name, value in data["case"].items() if name != "name"}
        results = {name: Result(**result) for name, result in data["results"].items()}
        return cls(**{**data, "case": Case(**sizes), "results": results})


def rows_of(document: dict[str, Any]) -> list[Row]:
    """The rows of a results document (`bench.document`), with their methods."""
    return [Row.from_dict(row) for row in document["rows"]]
