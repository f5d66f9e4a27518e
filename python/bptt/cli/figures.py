"""The demo's figures, each drawn from `Results` alone.

But where cells are compared, colour is the spectral radius rho that a network's W_s started from; a
formula's line is dashed, a measured one solid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from . import panels
from .digits import CLASSES
from .results import Measured, NetworkResult, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw"]

# Draws one network, as it was measured, into a panel.
_DrawMeasured = Callable[["Axes", NetworkResult, Measured], None]

# Line widths where both cells share a panel.
_CELL_WIDTH = {"linear": 3.2, "tanh": 1.6}


def draw(name: str, results: Results) -> bytes:
    """The figure called `name`, one of `FIGURES`, as the bytes of a PNG file."""
    return panels.to_png(partial(FIGURES[name], results))


def learning(results: Results) -> Figure:
    """Training loss, held-out accuracy and the reach of the gradient, epoch by epoch."""
    figure, axes = panels.grid(3, len(results.cells), height=7.6, sharey="row")
    per_epoch = results.data["train_images"] // results.settings.batch_size
    for (loss, accuracy, reach), cell in zip(axes.T, results.cells, strict=True):
        for result in results.of_cell(cell):
            history, colour = result.history, panels.colour(result.network.radius)
            losses = panels.running_mean(np.array(history.loss), per_epoch)
            loss.semilogy(np.arange(1, len(losses) + 1) / per_epoch, losses, color=colour)
            epochs = np.array(history.evaluated) / per_epoch
            accuracy.plot(epochs, np.multiply(100, history.accuracy), color=colour)
            reach.semilogy(epochs, history.far_over_near, color=colour)
        loss.set_title(f"{cell} cell")
        panels.reference_line(loss, np.log(CLASSES), "guessing: ln 10")
        panels.reference_line(accuracy, 100 / CLASSES, "guessing: 10 %")
        panels.reference_line(reach, 1)
        accuracy.set_ylim(0, 102)
        reach.set_xlabel("epoch (pass over the training images)")
        reach.set_xlim(0, results.settings.epochs)
        reach.locator_params(axis="x", integer=True)
    axes[0, 0].set_ylabel("training loss\n(nats)")
    axes[1, 0].set_ylabel("held-out accuracy\n(%)")
    ratio = r"$\|\partial L/\partial S_1\|$ / $\|\partial L/\partial S_t\|$"
    axes[2, 0].set_ylabel(f"{ratio}\n(dotted: equal)")
    panels.legend(figure, results.radii)
    return figure


def distance(results: Results) -> Figure:
    """||dL/dS_k|| by distance t - k, before and after training."""

    def panel(axes: Axes, result: NetworkResult, measured: Measured) -> None:
        state, radius = measured.gradient.state, result.network.radius
        axes.semilogy(state, color=panels.colour(radius))
        if result.network.cell == "linear" and measured is result.before:
            panels.formula_line(axes, state[0] * radius ** np.arange(len(state)))

    figure, axes = _before_and_after(results, panel, sharey="all")
    for axis in axes[:, 0]:
        axis.set_ylabel("$\\|\\partial L/\\partial S_k\\|$\n(nats per unit of state)")
    panels.legend(figure, results.radii, formula=r"$\rho^{\,t-k}$")
    return figure


def share(results: Results) -> Figure:
    """The share of each distance in dL/dW_s: the norm of its term over the sum of all norms."""

    def panel(axes: Axes, result: NetworkResult, measured: Measured) -> None:
        terms, colour = measured.gradient.w_hh, panels.colour(result.network.radius)
        shares = 100 * terms / terms.sum()
        axes.plot(shares, color=colour)

    figure, axes = _before_and_after(results, panel, sharey="row")
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        panels.reference_line(axis, 100 / (results.data["steps"] - 1))
    for axis in axes[:, 0]:
        axis.set_ylabel("share in $\\partial L/\\partial W_s$\n(%)")
    panels.legend(figure, results.radii, dotted="all distances equal")
    return figure


def cut(results: Results) -> Figure:
    """The error of dL/dW_s if the terms beyond a distance are left out."""

    def panel(axes: Axes, result: NetworkResult, measured: Measured) -> None:
        colour = panels.colour(result.network.radius)
        axes.plot(100 * measured.gradient.w_hh_error, color=colour)

    figure, axes = _before_and_after(results, panel, sharey="all")
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        panels.reference_line(axis, 5, "5 %", end="left")
    for axis in axes[-1]:
        axis.set_xlabel("largest distance $t-k$ that is kept  (steps)")
    for axis in axes[:, 0]:
        axis.set_ylabel("error of $\\partial L/\\partial W_s$\n(% of its norm)")
    panels.legend(figure, results.radii)
    return figure


def horizon(results: Results) -> Figure:
    """How far back the gradient has to be followed, in the course of training."""
    shown = {f"{cell} cell": results.of_cell(cell) for cell in results.cells}
    if any(result.network.gated for result in results.networks):
        shown["equal size"] = results.compared
    figure, axes = panels.grid(1, len(shown), height=3.9, sharey="all")
    for axis, (title, networks) in zip(axes[0], shown.items(), strict=True):
        for result in networks:
            network = result.network
            compared = title == "equal size"
            colour = panels.cell_colour(network.cell) if compared else panels.colour(network.radius)
            mark = (
                panels.cell_marker(network.cell)
                if compared
                else panels.radius_marker(network.radius)
            )
            result.monitor.draw(axis, color=colour, label=network.cell, lw=1.2, **mark)
        axis.set_title(title)
        axis.label_outer()
    axes[0, 0].set_ylim(0, 1.05 * results.data["steps"])
    if "equal size" in shown:
        axes[0, -1].legend(loc="lower right")
    panels.legend(figure, results.radii)
    return figure


def regimes(results: Results) -> Figure:
    """Vanishing, steady, exploding: ||dL/dS_k|| / ||dL/dS_t|| before training, cell by cell."""
    radii = results.radii
    figure, axes = panels.grid(1, len(radii), height=3.7, sharey="all")
    for axis, radius in zip(axes[0], radii, strict=True):
        for result in results.elman:
            if result.network.radius == radius:
                relative = result.before.gradient.relative
                width = _CELL_WIDTH[result.network.cell]
                axis.semilogy(relative, color=panels.colour(radius), lw=width)
                if result.network.cell == "linear":
                    panels.formula_line(axis, radius ** np.arange(len(relative)))
        word = "vanishing" if radius < 1 else "steady" if radius == 1 else "exploding"
        axis.set_title(f"{word}: $\\rho$ = {radius}")
        panels.distance_axis(axis, results.data["steps"])
    axes[0, 0].set_ylabel(r"$\|\partial L/\partial S_k\|$ / $\|\partial L/\partial S_t\|$")
    widths = {f"{cell} cell": _CELL_WIDTH[cell] for cell in results.cells}
    panels.line_legend(figure, widths, formula=r"$\rho^{\,t-k}$")
    return figure


def readout(results: Results) -> Figure:
    """The oldest term of dL_t/dW_s beside dL_t/dW_o, as the loss moves along the sequence."""
    cells = results.cells
    figure, axes = panels.grid(len(cells), 2, height=6, sharey="row")
    for (oldest, w_ho), cell in zip(axes, cells, strict=True):
        for result in results.of_cell(cell):
            moved, colour = result.by_loss_step, panels.colour(result.network.radius)
            oldest.semilogy(moved.step, moved.oldest, color=colour, marker="o")
            w_ho.semilogy(moved.step, moved.w_ho, color=colour, marker="o")
            w_ho.semilogy(moved.step, moved.state, color=colour, lw=1.2, ls=":")
            oldest.set_xticks(moved.step)
        oldest.set_title(f"{cell} cell, oldest term of $\\partial L_t/\\partial W_s$")
        w_ho.set_title(f"{cell} cell, $\\partial L_t/\\partial W_o$ (dotted: $\\|S_t\\|$)")
        oldest.set_ylabel("gradient norm\n(nats per unit of weight)")
    for axis in axes[-1]:
        axis.set_xlabel("step $t$ of the loss")
    panels.legend(figure, results.radii)
    return figure


def gated(results: Results) -> Figure:
    """The cells of equal size: accuracy, time, and how the gradient depends on the distance."""
    figure, axes = panels.grid(1, 3, height=3.9, sharey="none", sharex=False)
    accuracy, seconds, reach = axes[0]
    per_epoch = results.data["train_images"] // results.settings.batch_size
    for row, result in enumerate(results.compared):
        history, colour = result.history, panels.cell_colour(result.network.cell)
        epochs = np.array(history.evaluated) / per_epoch
        accuracy.plot(epochs, np.multiply(100, history.accuracy), color=colour)
        seconds.barh(row, 1000 * history.median_epoch_seconds, color=colour)
        reach.semilogy(result.before.gradient.relative, color=colour, **panels.BEFORE)
        reach.semilogy(result.after.gradient.relative, color=colour)
    panels.reference_line(accuracy, 100 / CLASSES, "guessing: 10 %")
    accuracy.set(title="held-out accuracy (%)", xlabel="epoch", ylim=(0, 102))
    accuracy.set_xlim(0, results.settings.epochs)
    seconds.set(title="milliseconds per epoch", xlabel=f"{per_epoch} steps (median)")
    seconds.set_yticks(range(len(results.compared)), [r.network.cell for r in results.compared])
    seconds.invert_yaxis()
    reach.set_title(r"$\|\partial L/\partial S_k\|$ / $\|\partial L/\partial S_t\|$")
    panels.distance_axis(reach, results.data["steps"], every=16)
    reach.set_xlabel("distance $t-k$  (steps)")
    parameters = {r.network.cell: r.parameters for r in results.compared}
    panels.cell_legend(figure, parameters, before_and_after=True)
    return figure


def _before_and_after(
    results: Results, panel: _DrawMeasured, *, sharey: panels.Share
) -> tuple[Figure, panels.AxesGrid]:
    """One panel for each cell (columns), early and late in training (rows)."""
    cells = results.cells
    figure, axes = panels.grid(2, len(cells), height=5.8, sharey=sharey)
    for column, cell in enumerate(cells):
        for result in results.of_cell(cell):
            panel(axes[0, column], result, result.before)
            panel(axes[1, column], result, result.after)
        axes[0, column].set_title(f"{cell} cell, before training")
        axes[1, column].set_title(f"{cell} cell, after training")
        panels.distance_axis(axes[1, column], results.data["steps"])
    return figure, axes


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "figures/learning.png": learning,
    "figures/regimes.png": regimes,
    "figures/distance.png": distance,
    "figures/share.png": share,
    "figures/cut.png": cut,
    "figures/horizon.png": horizon,
    "figures/readout.png": readout,
    "figures/gated.png": gated,
}
