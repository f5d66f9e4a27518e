"""What is kept of a measurement: the same for every command, and plain data for JSON.

`Results` are a head, which says what ran where, and rows. A `Row` is one task; for each contestant
it has a `Record`. Samples are not kept: their quartiles are.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bptt import files

SCHEMA = 2


class Quartiles(NamedTuple):
    """First quartile, median and third quartile."""

    low: float
    median: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles | None:
    """By linear interpolation between the samples; None without any (NaN is none)."""
    known = [value for value in values if not math.isnan(value)]
    return Quartiles(*np.quantile(known, (0.25, 0.5, 0.75)).tolist()) if known else None


def confidence(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """An interval that holds the true median with at least this probability, if there are enough.

    By order statistics, of whatever distribution: the number of samples below the median is
    binomial (Conover, Practical Nonparametric Statistics, 3.2). Fewer than six never suffice.
    """
    n, ordered = len(values), sorted(values)
    outside = 2 * np.cumsum([math.comb(n, below) / 2**n for below in range(n // 2)])
    cut = max(int(np.sum(outside <= 1 - level)) - 1, 0)
    return ordered[cut], ordered[n - 1 - cut]


@dataclass
class Record:
    """What one contestant did. One that is "ok" has a value or a ratio, mostly both."""

    # "wrong": its outputs disagree with the reference, so it was not timed; "failed": it raised;
    # "skipped": a call takes too long; "refused", "missing": it cannot do this; else "ok".
    status: str = "ok"
    reason: str = ""  # why it is not ok
    value: Quartiles | None = None  # seconds of a call, or bytes
    ratio: Quartiles | None = None  # its value over that of the row's baseline in the same round
    interval: tuple[float, float] | None = None  # of the ratio's true median, 95 % confidence
    share: Quartiles | None = None  # its rate as a fraction of the FMA peak of the same round
    goal: float | None = None  # the most that the ratio, or the value without one, may be
    cores: float | None = None  # CPU time over wall time: how many cores were busy
    waits: float | None = None  # time that threads were ready but had no CPU, over wall time
    predicted: float | None = None  # seconds of a call, by `bptt.plan`
    error: float | None = None  # the largest ||got - reference|| / ||reference|| of all outputs
    note: str = ""  # what is to be said beside the figures

    @property
    def is_timed(self) -> bool:
        """Whether there are figures to compare."""
        return self.status == "ok" and (self.value or self.ratio) is not None

    @property
    def meets_goal(self) -> bool:
        """True also where there is no goal. The third quartile has to meet it."""
        found = self.ratio or self.value
        return self.goal is None or (found is not None and found.high <= self.goal)


@dataclass
class Row:
    """One task, with the records of all contestants in the order in which they are shown."""

    family: str  # what it belongs to; the head has its title
    work: str  # what is done, as "tanh float32"
    name: str  # at which shape
    records: dict[str, Record] = field(default_factory=dict)
    unit: str = "ms"  # in which values are shown: ms, us or MB
    baseline: str | None = None  # whom the ratios refer to
    flops: int | None = None  # of one call, the same for every contestant
    tolerance: float | None = None  # the largest error that a contestant may have
    peak: float | None = None  # FMA peak in flop/s, the median of all rounds
    peak_loads: float | None = None  # the same with operands from the first-level cache
    waits: float | None = None  # time without a CPU over wall time, the mean of all turns
    load: float | None = None  # load average of the last minute before the row began

    def timed(self) -> dict[str, Record]:
        """The records that have figures."""
        return {name: record for name, record in self.records.items() if record.is_timed}


@dataclass
class Results:
    """A results file. `machine.describe` makes the head."""

    head: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def records(self) -> list[Record]:
        """Those of all rows."""
        return [record for row in self.rows for record in row.records.values()]

    def write(self, path: Path) -> None:
        """Write JSON, one line a row."""
        head = json.dumps(_plain(self.head), indent=1, allow_nan=False)
        rows = ",\n".join(json.dumps(_plain(asdict(row)), allow_nan=False) for row in self.rows)
        files.write(path, f'{{\n"schema": {SCHEMA},\n"head": {head},\n"rows": [\n{rows}\n]\n}}\n')

    @classmethod
    def read(cls, path: Path) -> "Results":
        """The inverse of `write`; ValueError if the file is something else."""
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("schema") != SCHEMA:
            raise ValueError(f"{path.name}: expected schema {SCHEMA}, got {found.get('schema')!r}")
        return cls(found["head"], [_row(**row) for row in found["rows"]])


def _row(records: dict[str, Any], **found: Any) -> Row:
    return Row(**found, records={name: _record(**record) for name, record in records.items()})


def _record(**found: Any) -> Record:
    triples = {"value", "ratio", "share"} & {*found}
    return Record(**{**found, **{name: Quartiles(*found[name]) for name in triples}})


_DEFAULTS = {f.name: f.default for f in (*fields(Record), *fields(Row))}


def _plain(value: Any) -> Any:
    """Without what is at its default; floats with six digits, those that are not finite gone."""
    if isinstance(value, dict):
        items = {key: _plain(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item != _DEFAULTS.get(key, ...)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
