"""Figures of `JacobianNorms` and `LyapunovExponents`. Importing this module imports matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .result import JacobianNorms, LyapunovExponents

__all__ = ["norms_by_distance", "spectrum"]

_LINES = 12  # of exponents, at most about, so that each can be seen


def norms_by_distance(found: JacobianNorms) -> Figure:
    """The norm over the distance: the median of all sequences, and their range."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    low, middle, high = np.quantile(found.norm, [0, 0.5, 1], axis=1)
    (line,) = axes.semilogy(found.distances, middle)
    axes.fill_between(found.distances, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set(title=f"{found.cell}: norm of dS_t/dS_(t-distance)", xlabel="distance (steps)")
    return figure


def spectrum(found: LyapunovExponents) -> Figure:
    """The exponents by their order, and over the steps that were counted."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    by_order, by_step = figure.subplots(1, 2)
    count = len(found.exponents)
    by_order.errorbar(
        np.arange(1, count + 1) / found.size, found.exponents, found.standard_error, fmt=".-"
    )
    by_order.set(title=f"{found.cell}: Lyapunov spectrum", xlabel="i / N", ylabel="nats per step")
    shown = np.unique(np.linspace(0, count - 1, min(count, _LINES)).astype(int))
    by_step.plot(found.steps, found.running[:, shown])
    by_step.set(title="mean up to a step", xlabel="step")
    for axes in (by_order, by_step):
        axes.axhline(0, color="gray", linewidth=0.8)
    return figure
