"""Figures of norms of Jacobians and of Lyapunov exponents, from arrays alone.

Importing this module imports matplotlib.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..checks import Array
from ..ticks import label_logarithmic

__all__ = ["norms_by_distance", "spectrum"]

_LINES = 8  # of exponents, at most about, so that each can be told from the others


def norms_by_distance(cell: str, distances: Array, norm: Array) -> Figure:
    """The norm (D, B) over the distance: the median of all sequences, and their range."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    low, middle, high = np.quantile(norm, [0, 0.5, 1], axis=1)
    (line,) = axes.semilogy(distances, middle, label="median of the sequences")
    of_range: dict[str, Any] = {"color": line.get_color(), "alpha": 0.25, "linewidth": 0}
    if norm.shape[1] > 1:
        axes.fill_between(distances, low, high, label="their range", **of_range)
        axes.legend()
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set(title=f"{cell}: norm of dS_t/dS_(t-distance)", xlabel="distance (steps)")
    label_logarithmic(axes.yaxis)
    return figure


def spectrum(
    cell: str,
    size: int,
    exponents: Array,
    standard_error: Array,
    steps: Array,
    running: Array,
) -> Figure:
    """The first exponents of `size`, by their order, and over the steps that were counted."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    by_order, by_step = figure.subplots(1, 2)
    count = int(np.count_nonzero(np.isfinite(exponents)))
    rank = np.arange(1, count + 1)
    by_order.errorbar(rank, exponents[:count], standard_error[:count], fmt=".-")
    lost = len(exponents) - count
    by_order.set(
        title=f"{cell}: Lyapunov spectrum",
        xlabel=f"rank of the exponent, of {size}" + (f"; {lost} are -inf" if lost else ""),
        ylabel="nats per step",
    )
    for i in np.unique(np.linspace(0, count - 1, min(count, _LINES)).astype(int)):
        by_step.plot(steps, running[:, i], label=f"{i + 1}")
    by_step.set(title="mean up to a step", xlabel="step")
    if count:
        by_step.legend(title="rank", loc="center left", bbox_to_anchor=(1, 0.5))
    for axes in (by_order, by_step):
        axes.axhline(0, color="gray", linewidth=0.8)
    return figure
