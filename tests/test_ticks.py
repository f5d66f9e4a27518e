"""Logarithmic axes are labelled with numbers that are read at a glance."""

from __future__ import annotations

import pytest

matplotlib = pytest.importorskip("matplotlib")

from bptt.ticks import label_logarithmic  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


def labels(low: float, high: float) -> list[str]:
    figure = Figure()
    axes = figure.subplots()
    axes.semilogy([low, high])
    axes.set_ylim(low, high)
    label_logarithmic(axes.yaxis)
    figure.draw_without_rendering()
    shown = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    inside = [t for t in shown if low <= t.get_loc() <= high]
    return [t.label1.get_text() for t in inside if t.label1.get_text()]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.015, 0.9, ["0.02", "0.05", "0.1", "0.2", "0.5"]),
        (0.7, 9.0, ["1", "2", "5"]),
        (30, 400, ["50", "100", "200"]),
    ],
)
def test_a_short_axis_has_plain_numbers(low: float, high: float, expected: list[str]) -> None:
    assert labels(low, high) == expected


def test_a_long_axis_has_powers_of_ten_alone() -> None:
    found = labels(1e-8, 10)
    assert len(found) >= 4
    assert all(text.startswith("$\\mathdefault{10^{") for text in found)
