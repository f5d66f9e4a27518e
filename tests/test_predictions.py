"""A plan's cost model against stored measurements, of CPUs that need not be this one."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import bptt
import pytest
from bptt.compiled import core as _core

pytestmark = pytest.mark.skipif(
    not bptt.backends()["native"].available, reason="native is not available"
)

RESULTS = Path(__file__).parents[1] / "bench" / "results"
_SHAPE = re.compile(r"B(\d+)-T(\d+)-I(\d+)-H(\d+)")
# What forward and backward cost from Python, which a prediction does not count: `bench overhead`.
_CALLS = 25e-6


@dataclass(frozen=True)
class Run:
    """A file of results whose kernels are near today's. One with `kernels` has called them alone,
    the build that is named so."""

    kind: str
    file: str
    vector_bytes: int = 64
    kernels: str = ""

    def __str__(self) -> str:
        return self.file

    def ratios(self) -> dict[str, float]:
        """Predicted over measured time of each row, by what was measured."""
        found = {}
        results = json.loads((RESULTS / f"{self.file}.json").read_text("utf-8"))
        for row in results["rows"]:
            _, measured, _ = row["records"][self.kernels or "native"]["value"]
            cell, dtype = row["work"].split()[:2]
            shape = _SHAPE.fullmatch(row["name"])
            assert shape
            batch, steps, inputs, hidden = map(int, shape.groups())
            predicted = _core.predict(
                *(self.kind, self.vector_bytes, cell, steps, batch, inputs, hidden),
                *(8 if dtype == "float64" else 4, results["head"]["threads"]),
            )
            called = predicted + (0 if self.kernels else _CALLS)
            found[f"{cell} {dtype} {row['name']}"] = called / measured
        return found


RUNS = (
    Run("Zen 4", "zen4-avx512-native"),
    Run("Zen 4", "zen4-avx512-native-1thread"),
    Run("Zen 5", "zen5-avx512"),
    Run("Zen 5", "zen5-avx512-gated"),
    Run("Zen 5", "zen5-avx512-1thread"),
    Run("Zen 5", "zen5-avx512-float64"),
    Run("Zen 5", "zen5-avx2", vector_bytes=32),
    Run("Intel server", "emeraldrapids-avx512"),
    Run("Intel server", "emeraldrapids-builds", kernels="new"),
)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_nine_of_ten_rows_are_within_a_quarter_and_their_mean_within_a_tenth(run: Run) -> None:
    ratios = run.ratios()
    assert len(ratios) >= 20
    out = {name: round(ratio, 2) for name, ratio in ratios.items() if abs(ratio - 1) > 0.25}
    assert len(out) <= 0.1 * len(ratios), out
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    assert 0.9 <= mean <= 1.1


def test_an_instruction_set_of_half_the_vectors_halves_the_rate_where_those_are_whole() -> None:
    large = ("tanh", 50, 64, 1024, 1024, 4, 1)
    whole, half = (_core.predict("Zen 5", width, *large) for width in (64, 32))
    assert half == pytest.approx(2 * whole, rel=0.1)
    in_halves, as_they_are = (_core.predict("Zen 4", width, *large) for width in (64, 32))
    assert as_they_are == in_halves


def test_an_unknown_kind_is_an_error_that_lists_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="expected one of Zen 5, Zen 4, Intel server, got 'Zen 1'"):
        _core.predict("Zen 1", 64, "tanh", 1, 1, 1, 1, 4, 1)
