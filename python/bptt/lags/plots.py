"""How lags are drawn, from arrays and records alone. Importing this module imports matplotlib.

The ``draw_`` functions draw into axes that they are given, so that figures can be made of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..checks import Array
from ..ticks import label_logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

    from .record import LagRecord

__all__ = [
    "draw_curve",
    "draw_error_in_training",
    "draw_horizon",
    "draw_signal",
    "horizon_in_training",
    "lag_curves",
]

# What a curve is called on its axis, and whether that is logarithmic.
_CURVES = {
    "norm": ("norm of the term", True),
    "error": ("error if cut beyond the lag", True),
    "cosine": ("cosine if cut beyond the lag", False),
    "share": ("share up to the lag", False),
}
_FEWEST = 1e-8  # below that part of the largest, all is drawn in the darkest colour


def draw_curve(
    axes: Axes,
    curve: str,
    lags: Array,
    values: Array,
    horizon: int | None,
    style: Mapping[str, Any],
) -> None:
    """A curve over the lag; on those of error and share the horizon is a ring."""
    name, logarithmic = _CURVES[curve]
    if curve == "share":
        values = np.cumsum(values)
    (line,) = axes.plot(lags, values, **style)
    axes.set(xlabel="lag (steps)", ylabel=name)
    if logarithmic and (values > 0).any():
        axes.set_yscale("log", nonpositive="mask")
        label_logarithmic(axes.yaxis)
    if curve not in ("error", "share") or horizon is None:
        return
    at = int(np.searchsorted(lags, horizon))
    axes.axvline(horizon, color=line.get_color(), linestyle=":", linewidth=1.2)
    # An error of zero has no place on a logarithmic axis.
    if values[at] > 0 or not logarithmic:
        axes.plot(horizon, values[at], "o", color=line.get_color(), markersize=7, mfc="none")


def draw_signal(axes: Axes, lags: Array, signal: Array, style: Mapping[str, Any]) -> QuadMesh:
    """||delta|| over the step t of the loss and the lag; white where step t - lag is none."""
    if not lags.size:
        raise ValueError("signal: there is nothing to draw, as no lag is finite")
    steps = signal.shape[1]
    k = np.arange(steps)[None, :] - lags[:, None]  # the step that delta is at
    shown = np.take_along_axis(signal, np.maximum(k, 0), axis=1)
    columns, rows = np.arange(steps + 1) - 0.5, _edges(lags, -0.5, steps - 0.5)
    mesh = _heat_map(axes, columns, rows, np.where(k >= 0, shown, 0), style)
    axes.set(xlabel="step t of the loss", ylabel="lag (steps)")
    return mesh


def draw_horizon(
    axes: Axes, history: Sequence[LagRecord], steps: int, style: Mapping[str, Any]
) -> None:
    """The horizon over the steps of training, with gaps where no lag was far enough.

    The axis is as long as the training, so that it shows where the last measurement was.
    """
    horizons = [np.nan if r.horizon is None else r.horizon for r in history]
    axes.plot([r.step for r in history], horizons, **style)
    axes.set(xlabel="training step", ylabel="horizon (steps)")
    axes.set_xlim(0, max(axes.dataLim.x1, steps, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def draw_error_in_training(
    axes: Axes, history: Sequence[LagRecord], steps: int, style: Mapping[str, Any]
) -> QuadMesh | None:
    """The error by lag over the steps of training; None if the lags were not always the same.

    What was measured fills all steps to which no other measurement is nearer.
    """
    if len({r.lags.tobytes() for r in history}) != 1:
        return None
    error = np.array([r.error for r in history]).T
    at = np.array([r.step for r in history])
    columns = np.concatenate([[0], (at[1:] + at[:-1]) / 2, [steps]])
    mesh = _heat_map(axes, columns, _edges(history[0].lags, -0.5, np.inf), error, style)
    axes.set(xlabel="training step", ylabel="lag (steps)")
    return mesh


def lag_curves(
    cell: str, of: str, lags: Array, curves: Mapping[str, Array], horizon: int | None
) -> Figure:
    """Norm, error and share of the gradient of `of` over the lag, with the horizon of 5 %."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = dict(zip(("norm", "error", "share"), figure.subplots(1, 3), strict=True))
    for curve, axes in panels.items():
        draw_curve(axes, curve, lags, curves[curve], horizon, {})
    panels["error"].axhline(0.05, color="gray", linewidth=0.8)
    panels["error"].annotate(
        "5 %", (0, 0.05), (3, 2), xycoords=("axes fraction", "data"), textcoords="offset points"
    )
    reach = "beyond all lags" if horizon is None else f"{horizon} steps"
    figure.suptitle(f"{cell}: gradient of {of}, horizon (error of at most 5 %): {reach}")
    return figure


def horizon_in_training(history: Sequence[LagRecord], steps: int, tolerance: float) -> Figure:
    """The horizon over the steps of training, on the error that it is read from."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    mesh = draw_error_in_training(axes, history, steps, {"norm": LogNorm(1e-4, 1)})
    draw_horizon(axes, history, steps, {"color": "black", "marker": ".", "label": "horizon"})
    if mesh is not None:
        figure.colorbar(mesh, label="error if cut beyond the lag", extend="both")
    axes.set_title(f"horizon (error of at most {tolerance:.0%}) in training")
    return figure


def _heat_map(
    axes: Axes, columns: Array, rows: Array, values: Array, style: Mapping[str, Any]
) -> QuadMesh:
    """values (rows, columns), between these edges, in colours of a logarithmic scale.

    What is not positive is left white.
    """
    seen = np.ma.masked_where(~(np.isfinite(values) & (values > 0)), values)
    largest = float(seen.max()) if seen.count() else 1.0
    smallest = max(float(seen.min()) if seen.count() else 1.0, largest * _FEWEST)
    given: dict[str, Any] = {"norm": LogNorm(smallest, max(largest, smallest * 1.001)), **style}
    return axes.pcolormesh(columns, rows, seen, rasterized=True, **given)


def _edges(centres: Array, low: float, high: float) -> Array:
    """The borders half way between `centres`, which rise.

    The outer two are as far outside, but not beyond `low` and `high`.
    """
    half = np.diff(centres) / 2 if len(centres) > 1 else np.array([0.5])
    first, last = centres[:1] - half[:1], centres[-1:] + half[-1:]
    between = centres[:-1] + half[: len(centres) - 1]
    return np.concatenate([np.maximum(first, low), between, np.minimum(last, high)])
