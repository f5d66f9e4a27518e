"""The report of the demo on digits: its figures and facts.

But where cells are compared, colour is the spectral radius rho that a network's W_s started from; a
formula's line is dashed, a measured one solid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..network import Moment, Network, grouped, where
from ..results import Results
from ..tasks.digits import Digits
from . import panels
from .page import Report, number
from .panels import Row, curves, line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Line widths where both cells share a panel.
_CELL_WIDTH = {"linear": 3.2, "tanh": 1.6}
_RELATIVE = r"$\|\partial L/\partial S_k\|$ / $\|\partial L/\partial S_t\|$"
_POWERS: panels.Entries = [(r"formula $\rho^{\,t-k}$", panels.DASHED)]
_DISTANCE = "distance $t-k$ from the loss  (steps)"


def elman(networks: list[Network]) -> list[Network]:
    """The networks of the text, which differ in cell and radius."""
    return where(networks, gated=False)


def best_tanh(networks: list[Network]) -> list[Network]:
    """The one that classifies best."""
    tanh = where(networks, cell="tanh")
    return sorted(tanh, key=lambda n: -n.course.last["accuracy"])[:1]


def draw_learning(networks: list[Network], task: Digits) -> Figure:
    """Training loss, held-out accuracy and the reach of the gradient, epoch by epoch."""
    per_epoch = task.steps_per_evaluation

    def epochs(axis: Axes, members: list[Network]) -> None:
        axis.set_xlabel("epoch (pass over the training images)")
        axis.set_xlim(0, task.epochs)
        axis.locator_params(axis="x", integer=True)

    loss = line(
        lambda n: n.course.recent_losses(per_epoch),
        x=lambda n: np.arange(1, n.course.steps + 1) / per_epoch,
    )
    reach = line(lambda n: n.course.held_out["far_over_near"], x=task.epochs_of)
    accuracy = line(task.accuracies, x=task.epochs_of, log=False)
    ratio = r"$\|\partial L/\partial S_1\|$ / $\|\partial L/\partial S_t\|$"
    guessing = np.log(task.outputs), "guessing: ln 10"
    rows = [
        Row("{} cell", "training loss\n(nats)", [loss], guessing),
        Row("", "held-out accuracy\n(%)", [accuracy], _guessed(task), (0, 102)),
        Row("", f"{ratio}\n(dotted: equal)", [reach], (1,)),
    ]
    legend = panels.radii(networks)
    return curves(networks, "cell", rows, epochs, height=7.6, legend=legend, sharey="row")


def draw_regimes(networks: list[Network], task: Digits) -> Figure:
    """Vanishing, steady, exploding: ||dL/dS_k|| / ||dL/dS_t|| before training, cell by cell."""

    def width(network: Network) -> panels.Style:
        return {**panels.by_radius(network), "lw": _CELL_WIDTH[network.cell]}

    def distances(axis: Axes, members: list[Network]) -> None:
        radius = float(members[0].radius or 0)
        word = "vanishing" if radius < 1 else "steady" if radius == 1 else "exploding"
        axis.set_title(f"{word}: $\\rho$ = {radius}")
        panels.distance_axis(axis, task.steps, _DISTANCE)

    relative = line(lambda n: n.before.relative, width)
    seen = grouped(networks, "cell")
    legend = [(f"{c} cell", {"color": panels.GREY, "lw": _CELL_WIDTH[c]}) for c in seen] + _POWERS
    row = Row("", _RELATIVE, [relative, _formula(lambda network: 1)])
    return curves(networks, "radius", [row], distances, height=3.7, legend=legend)


def draw_distance(networks: list[Network], task: Digits) -> Figure:
    """||dL/dS_k|| by distance t - k, before and after training."""
    label = "$\\|\\partial L/\\partial S_k\\|$\n(nats per unit of state)"
    formula = _formula(lambda network: network.before.state[0])
    return _early_and_late(
        networks, task, lambda moment: moment.state, label, also_early=[formula], legend=_POWERS
    )


def draw_share(networks: list[Network], task: Digits) -> Figure:
    """The share of each distance in dL/dW_s: the norm of its term over the sum of all norms."""
    return _early_and_late(
        networks,
        task,
        lambda moment: 100 * moment.w_hh / moment.w_hh.sum(),
        "share in $\\partial L/\\partial W_s$\n(%)",
        level=(100 / (task.steps - 1),),
        legend=[("all distances equal", panels.DOTTED)],
        sharey="row",
    )


def draw_cut(networks: list[Network], task: Digits) -> Figure:
    """The error of dL/dW_s if the terms beyond a distance are left out."""
    return _early_and_late(
        networks,
        task,
        lambda moment: 100 * moment.w_hh_error,
        "error of $\\partial L/\\partial W_s$\n(% of its norm)",
        level=(5, "5 %", "left"),
        xlabel="largest distance $t-k$ that is kept  (steps)",
    )


def draw_horizon(networks: list[Network], task: Digits) -> Figure:
    """How far back the gradient has to be followed, in the course of training."""
    shown = {f"{cell} cell": those for cell, those in grouped(elman(networks), "cell").items()}
    if where(networks, gated=True):
        shown["equal size"] = where(networks, compared=True)
    figure, axes = panels.grid(1, len(shown), 3.9)
    for axis, (title, those) in zip(axes[0], shown.items(), strict=True):
        style = panels.by_cell if title == "equal size" else panels.by_radius
        for network in those:
            look = panels.marked(style(network))
            network.monitor.draw(axis, label=network.cell, lw=1.2, **look)
        axis.set_title(title)
        axis.label_outer()
    axes[0, 0].set_ylim(0, 1.05 * task.steps)
    if "equal size" in shown:
        axes[0, -1].legend(loc="lower right")
    panels.add_legend(figure, panels.radii(elman(networks)))
    return figure


def draw_readout(networks: list[Network], task: Digits) -> Figure:
    """The oldest term of dL_t/dW_s beside dL_t/dW_o, as the loss moves along the sequence."""
    of_cell = grouped(networks, "cell")
    figure, axes = panels.grid(len(of_cell), 2, 6, "row")
    for (oldest, w_ho), (cell, those) in zip(axes, of_cell.items(), strict=True):
        for network in those:
            moved, style = network.by_loss_step, panels.by_radius(network)
            oldest.semilogy(moved["step"], moved["oldest"], **style, marker="o")
            w_ho.semilogy(moved["step"], moved["w_ho"], **style, marker="o")
            w_ho.semilogy(moved["step"], moved["state"], **style, lw=1.2, ls=":")
            oldest.set_xticks(moved["step"])
        oldest.set_title(f"{cell} cell, oldest term of $\\partial L_t/\\partial W_s$")
        w_ho.set_title(f"{cell} cell, $\\partial L_t/\\partial W_o$ (dotted: $\\|S_t\\|$)")
        oldest.set_ylabel("gradient norm\n(nats per unit of weight)")
    for axis in axes[-1]:
        axis.set_xlabel("step $t$ of the loss")
    panels.add_legend(figure, panels.radii(networks))
    return figure


def draw_gated(networks: list[Network], task: Digits) -> Figure:
    """The cells of equal size: accuracy, time, and how the gradient depends on the distance."""
    figure, axes = panels.grid(1, 3, 3.9, "none", sharex=False)
    accuracy, seconds, reach = axes[0]
    for row, network in enumerate(networks):
        line(task.accuracies, panels.by_cell, x=task.epochs_of, log=False)(accuracy, network)
        seconds.barh(row, 1000 * network.course.median_seconds, **panels.by_cell(network))
        for draw in panels.RELATIVE:
            draw(reach, network)
    panels.reference_line(accuracy, *_guessed(task))
    accuracy.set(title="held-out accuracy (%)", xlabel="epoch", ylim=(0, 102))
    accuracy.set_xlim(0, task.epochs)
    per_epoch = f"{task.steps_per_evaluation} steps (median)"
    seconds.set(title="milliseconds per epoch", xlabel=per_epoch)
    seconds.set_yticks(range(len(networks)), [network.cell for network in networks])
    seconds.invert_yaxis()
    reach.set_title(_RELATIVE)
    panels.distance_axis(reach, task.steps, "distance $t-k$  (steps)", every=16)
    panels.add_legend(figure, panels.cells(networks) + panels.BEFORE_AND_AFTER)
    return figure


def _early_and_late(
    networks: list[Network],
    task: Digits,
    y: Callable[[Moment], Any],
    ylabel: str,
    *,
    xlabel: str = _DISTANCE,
    level: tuple[Any, ...] = (),
    also_early: Sequence[panels.Draw] = (),
    legend: Sequence[panels.Entry] = (),
    sharey: Literal["all", "row"] = "all",
) -> Figure:
    """One panel for each cell (columns), early and late in training (rows), by distance.

    With a `level` the axis is linear, from zero on.
    """
    log, limits = not level, (0, None) if level else None
    early = line(lambda network: y(network.before), log=log)
    late = line(lambda network: y(network.after), log=log)
    rows = [
        Row("{} cell, before training", ylabel, [early, *also_early], level, limits),
        Row("{} cell, after training", ylabel, [late], level, limits),
    ]
    return curves(
        networks,
        "cell",
        rows,
        lambda axis, members: panels.distance_axis(axis, task.steps, xlabel),
        height=5.8,
        legend=[*panels.radii(networks), *legend],
        sharey=sharey,
    )


def _formula(scale: Callable[[Network], float]) -> panels.Draw:
    """Draws what the gradient of an untrained linear network has to be, over what it is."""

    def draw(axis: Axes, network: Network) -> None:
        if network.cell == "linear":
            axis.semilogy(scale(network) * _powers(network), **panels.DASHED)

    return draw


def _powers(network: Network) -> Any:
    """rho^(t-k)"""
    return np.power(float(network.radius or 0), np.arange(network.steps))


def _guessed(task: Digits) -> tuple[float, str]:
    return 100 / task.outputs, "guessing: 10 %"


def facts(results: Results) -> dict[str, Any]:
    """What the text says of single networks."""
    task, networks = results.settings, results.networks
    overheads = [n.monitor.overhead for n in networks if math.isfinite(n.monitor.overhead)]
    example = [*task.networks()[:1], *networks][-1]
    return {
        "epochs": task.epochs,
        "far": task.steps - 1,
        "first_loss": task.loss_steps[0],
        "last_loss": task.loss_steps[-1],
        "overhead": f"{max(overheads):.1%}" if overheads else "",
        "example": example.name,
        "cell": example.cell,
        "first_over_last": "‖∂L/∂S<sub>1</sub>‖ / ‖∂L/∂S<sub>t</sub>‖",
        "shares": ", ".join(
            f"{number(n.before.oldest_over_nearest)} in the {n.cell} cell"
            for n in where(networks, compared=True)
        ),
    }


def row(network: Network, task: Digits) -> dict[str, Any]:
    """What tables show that is not simply an attribute."""
    norms, seconds = np.array(network.course.norm), network.course.median_seconds
    return {
        "label": f"{network.cell}, &rho; = {network.radius}",
        "clipped": f"{np.mean(norms > task.clip_norm):.0%}" if len(norms) else "&ndash;",
        "formula": number(_powers(network)[-1]) if network.cell == "linear" else "&ndash;",
        "time": "&ndash;" if math.isnan(seconds) else f"{1000 * seconds:.1f} ms",
        "gate": {"lstm": "f<sub>t</sub>", "gru": "z<sub>t</sub>"}.get(network.cell, ""),
        "near": {name: values[0] for name, values in network.by_loss_step.items()},
        "far": {name: values[-1] for name, values in network.by_loss_step.items()},
    }


DIGITS = Report(
    command="demo",
    title="How far back does learning reach?",
    text="digits.html",
    groups={
        "all": list,
        "elman": elman,
        "best_tanh": best_tanh,
        "gated": lambda networks: where(networks, gated=True),
        "compared": lambda networks: where(networks, compared=True),
    },
    figures={
        "learning": ("elman", draw_learning),
        "regimes": ("elman", draw_regimes),
        "distance": ("elman", draw_distance),
        "share": ("elman", draw_share),
        "cut": ("elman", draw_cut),
        "horizon": ("all", draw_horizon),
        "readout": ("elman", draw_readout),
        "gated": ("compared", draw_gated),
    },
    facts=facts,
    row=row,
)
