"""The figures of ``bptt lags``, each drawn from `Results` alone.

What a curve shows is drawn by `bptt.LagGradients.draw` and its like; here panels are put together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import panels
from .lags_measured import Measured, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "TOLERANCE", "figures_of"]

TOLERANCE = 0.05  # of the horizon
_DARKEST = 1e-8  # part of the largest in a heat map; what is below it looks the same
_LEAST_ERROR = 1e-4  # that is shown
_ROUTES: dict[str, Any] = {"direct": {"ls": "--", "lw": 1.6}, "recurrent": {"ls": ":", "lw": 1.6}}


def heat(results: Results) -> Figure:
    """||delta|| over the step of the loss and the lag, one panel for each cell, in one scale."""
    from matplotlib.colors import LogNorm

    found = results.shown
    figure, axes = panels.grid(1, len(found), height=3.5, sharey="all")
    norms = np.concatenate([network.every_step.signal.ravel() for network in found])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    largest, smallest = norms.max(initial=0) or 1.0, norms.min(initial=1)
    scale = LogNorm(max(smallest, largest * _DARKEST), largest)
    for axis, network in zip(axes[0], found, strict=True):
        mesh = network.every_step.draw_signal(axis, norm=scale)
        axis.set_title(network.cell)
        axis.grid(visible=False)
        axis.label_outer()
    figure.colorbar(mesh, ax=axes[0].tolist(), extend="min", label=r"$\|\delta\|$")
    return figure


def error(results: Results) -> Figure:
    """The error of the gradient if it is cut, and its share, by lag; horizons are dots."""
    figure, axes = panels.grid(1, 2, height=3.9, sharey="none")
    for axis, curve in zip(axes[0], ("error", "share"), strict=True):
        for network in results.shown:
            colour = panels.cell_colour(network.cell)
            network.lags.draw(axis, curve, tolerance=TOLERANCE, color=colour)
    cut, share = axes[0]
    panels.reference_line(cut, TOLERANCE, "5 %", end="left")
    panels.reference_line(share, 1)
    cut.set(title="relative error of the gradient", ylabel="")
    cut.set_ylim(bottom=max(cut.get_ylim()[0], _LEAST_ERROR))
    share.set(title="share of the gradient up to a lag", ylabel="")
    panels.cell_legend(figure, _parameters(results.shown))
    return figure


def routes(results: Results) -> Figure:
    """||delta|| by lag of the whole and of each route, one panel for each gated cell."""
    figure, axes = panels.grid(1, len(results.gated), height=3.7, sharey="all")
    for axis, network in zip(axes[0], results.gated, strict=True):
        colour = panels.cell_colour(network.cell)
        network.lags.draw(axis, "norm", "state", color=colour, label="whole")
        for route, found in network.routes.items():
            found.draw(axis, "norm", "state", color=colour, label=route, **_ROUTES[route])
        axis.set(title=network.cell, ylabel=r"$\|\delta\|$")
        axis.label_outer()
        axis.legend()
    return figure


def lyapunov(results: Results) -> Figure:
    """The Lyapunov exponents of each cell from the largest on."""
    figure, axes = panels.grid(1, 1, height=3.7, sharey="none")
    axis, known = axes[0, 0], _with_exponents(results)
    for network in known:
        found = network.lyapunov
        assert found is not None
        order = np.arange(1, len(found.exponents) + 1) / found.size
        finite = np.isfinite(found.exponents)
        axis.errorbar(
            order[finite],
            found.exponents[finite],
            found.standard_error[finite],
            color=panels.cell_colour(network.cell),
            fmt=".-",
            ms=3,
            lw=1.2,
        )
    panels.reference_line(axis, 0)
    axis.set(xlabel="rank of the exponent / their number", ylabel="exponent (nats per step)")
    panels.cell_legend(figure, _parameters(known))
    return figure


def training(results: Results) -> Figure:
    """The horizon in the course of training."""
    figure, axes = panels.grid(1, 1, height=3.3, sharey="none")
    for network in results.trained:
        assert network.training is not None
        colour = panels.cell_colour(network.cell)
        mark = panels.cell_marker(network.cell)
        network.training.draw(axes[0, 0], color=colour, lw=1.4, **mark)
    axes[0, 0].set_ylim(bottom=0)
    panels.cell_legend(figure, _parameters(results.trained))
    return figure


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "figures/heat.png": heat,
    "figures/error.png": error,
    "figures/routes.png": routes,
    "figures/lyapunov.png": lyapunov,
    "figures/training.png": training,
}


def figures_of(results: Results) -> dict[str, Callable[[Results], Figure]]:
    """Those that there is something to show in."""
    shown = {
        "figures/heat.png": results.shown,
        "figures/error.png": results.shown,
        "figures/routes.png": results.gated,
        "figures/lyapunov.png": _with_exponents(results),
        "figures/training.png": results.trained,
    }
    return {name: draw for name, draw in FIGURES.items() if shown[name]}


def _with_exponents(results: Results) -> list[Measured]:
    return [
        network
        for network in results.networks
        if network.lyapunov is not None and np.isfinite(network.lyapunov.exponents).any()
    ]


def _parameters(networks: list[Measured]) -> dict[str, int]:
    """Of each cell."""
    return {network.cell: network.parameters for network in networks}
