"""The report of the demo on digits: its figures and facts.

But where cells are compared, colour is the spectral radius rho that a network's W_s started from; a
formula's line is dashed, a measured one solid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..network import Moment, Network, grouped
from ..results import Results
from ..tasks.digits import Digits
from . import panels
from .page import Report, number, only
from .panels import Panel, line

# Line widths where both cells share a panel.
_CELL_WIDTH = {"linear": 3.2, "tanh": 1.6}
_RELATIVE = r"$\|\partial L/\partial S_k\|$ / $\|\partial L/\partial S_t\|$"
_POWERS = [(r"formula $\rho^{\,t-k}$", panels.DASHED)]
_GUESSED = (100 / Digits.outputs, "guessing: 10 %")
_DISTANCES = panels.distances("distance $t-k$ from the loss  (steps)")


elman = only(lambda n: not n.gated)  # the networks of the text, which differ in cell and radius
compared = only(lambda n: n.compared)  # those of equal size, start and data


def best_tanh(networks: list[Network]) -> list[Network]:
    """The one that classifies best."""
    tanh = only(lambda n: n.cell == "tanh")(networks)
    return sorted(tanh, key=lambda n: -n.course.last["accuracy"])[:1]


def draw_learning(networks: list[Network], task: Digits) -> Figure:
    """Training loss, held-out accuracy and the reach of the gradient, epoch by epoch."""
    per_epoch = task.steps_per_evaluation
    loss = line(
        lambda n: n.course.recent_losses(per_epoch),
        x=lambda n: np.arange(1, n.course.steps + 1) / per_epoch,
    )
    reach = line(lambda n: n.course.held_out["far_over_near"], x=task.epochs_of)
    accuracy = line(task.accuracies, x=task.epochs_of, log=False)
    guessing = np.log(task.outputs), "guessing: ln 10"
    ratio = r"$\|\partial L/\partial S_1\|$ / $\|\partial L/\partial S_t\|$"
    epochs = {"xlabel": "epoch (pass over the training images)", "xlim": (0, task.epochs)}
    rows = [
        Panel("{} cell", [loss], {"ylabel": "training loss\n(nats)"}, guessing),
        Panel("", [accuracy], {"ylabel": "held-out accuracy\n(%)", "ylim": (0, 102)}, _GUESSED),
        Panel("", [reach], {"ylabel": f"{ratio}\n(dotted: equal)", **epochs}, (1,)),
    ]
    of_cell = grouped(networks, "cell")
    figure = panels.figure(of_cell, rows, 7.6, panels.radii(networks), sharey="row")
    for axis in figure.axes:
        axis.locator_params(axis="x", integer=True)
    return figure


def draw_regimes(networks: list[Network], task: Digits) -> Figure:
    """Vanishing, steady, exploding: ||dL/dS_k|| / ||dL/dS_t|| before training, cell by cell."""

    def width(network: Network) -> panels.Style:
        return {**panels.by_radius(network), "lw": _CELL_WIDTH[network.cell]}

    def regime(radius: float) -> str:
        word = "vanishing" if radius < 1 else "steady" if radius == 1 else "exploding"
        return f"{word}: $\\rho$ = {radius}"

    regimes = {regime(radius): those for radius, those in grouped(networks, "radius").items()}
    draws = [line(lambda n: n.before.relative, width), _formula(lambda n: 1), _DISTANCES]
    cells = grouped(networks, "cell")
    legend = [(f"{c} cell", {"color": panels.GREY, "lw": _CELL_WIDTH[c]}) for c in cells]
    return panels.figure(
        regimes, [Panel("{}", draws, {"ylabel": _RELATIVE})], 3.7, legend + _POWERS
    )


def draw_horizon(networks: list[Network], task: Digits) -> Figure:
    """How far back the gradient has to be followed, in the course of training."""
    shown = {f"{cell} cell": those for cell, those in grouped(elman(networks), "cell").items()}
    if len(elman(networks)) < len(networks):
        shown["equal size"] = compared(networks)
    figure = panels.figure(shown, [Panel("{}", [])], 3.9, panels.radii(elman(networks)))
    for axis, (title, those) in zip(figure.axes, shown.items(), strict=True):
        style = panels.by_cell if title == "equal size" else panels.by_radius
        for network in those:
            look = panels.marked(style(network))
            network.monitor.draw(axis, label=network.cell, lw=1.2, **look)
        axis.set_ylim(0, 1.05 * task.steps)
        axis.label_outer()
    if "equal size" in shown:
        figure.axes[-1].legend(loc="lower right")
    return figure


def draw_readout(networks: list[Network], task: Digits) -> Figure:
    """The oldest term of dL_t/dW_s beside dL_t/dW_o, as the loss moves along the sequence."""

    def moved(name: str, **style: Any) -> panels.Draw:
        return line(lambda n: n.by_loss_step[name], x=lambda n: n.by_loss_step["step"], **style)

    w_hh, w_ho = moved("oldest", marker="o"), moved("w_ho", marker="o")
    state = moved("state", lw=1.2, ls=":")
    x = {"xlabel": "step $t$ of the loss", "xticks": task.loss_steps}
    left = {"ylabel": "gradient norm\n(nats per unit of weight)", **x}
    columns = [
        Panel("{} cell, oldest term of $\\partial L_t/\\partial W_s$", [w_hh], left),
        Panel("{} cell, $\\partial L_t/\\partial W_o$ (dotted: $\\|S_t\\|$)", [w_ho, state], x),
    ]
    of_cell, legend = grouped(networks, "cell"), panels.radii(networks)
    return panels.figure(of_cell, columns, 6, legend, across=True, sharey="row")


def draw_gated(networks: list[Network], task: Digits) -> Figure:
    """The cells of equal size: accuracy, time, and how the gradient depends on the distance."""

    def seconds(axis: Axes, network: Network) -> None:
        milliseconds = 1000 * network.course.median_seconds
        axis.barh(networks.index(network), milliseconds, **panels.by_cell(network))

    accuracy = line(task.accuracies, panels.by_cell, x=task.epochs_of, log=False)
    epochs = {"xlabel": "epoch", "xlim": (0, task.epochs), "ylim": (0, 102)}
    bars = {"xlabel": f"{task.steps_per_evaluation} steps (median)", "yticks": range(len(networks))}
    bars["yticklabels"] = [network.cell for network in networks]
    reach = [*panels.RELATIVE, panels.distances("distance $t-k$  (steps)", parts=4)]
    columns = [
        Panel("held-out accuracy (%)", [accuracy], epochs, _GUESSED),
        Panel("milliseconds per epoch", [seconds], bars),
        Panel(_RELATIVE, reach),
    ]
    legend = [*panels.cells(networks), *panels.BEFORE_AND_AFTER]
    figure = panels.figure({"": networks}, columns, 3.9, legend, across=True, sharey="none")
    figure.axes[1].invert_yaxis()
    return figure


def _by_distance(
    ylabel: str,
    y: Callable[[Moment], Any],
    x: panels.Draw = _DISTANCES,
    *,
    early: Sequence[panels.Draw] = (),
    level: tuple[Any, ...] = (),
    legend: Sequence[panels.Entry] = (),
    sharey: Literal["all", "row"] = "all",
) -> Callable[[list[Network], Digits], Figure]:
    """Draws y, one panel for each cell (columns), early and late in training (rows).

    `early` is beside it in the first row. With a `level` the axis is linear, and begins at zero.
    """
    look = {"ylabel": ylabel, **({"ylim": (0, None)} if level else {})}
    before = [line(lambda n: y(n.before), log=not level), *early, x]
    after = [line(lambda n: y(n.after), log=not level), x]
    rows = [
        Panel("{} cell, before training", before, look, level),
        Panel("{} cell, after training", after, look, level),
    ]

    def draw(networks: list[Network], task: Digits) -> Figure:
        entries = [*panels.radii(networks), *legend]
        return panels.figure(grouped(networks, "cell"), rows, 5.8, entries, sharey=sharey)

    return draw


def _formula(scale: Callable[[Network], float]) -> panels.Draw:
    """Draws what the gradient of an untrained linear network has to be, over what it is."""

    def draw(axis: Axes, network: Network) -> None:
        if network.cell == "linear":
            axis.semilogy(scale(network) * _powers(network), **panels.DASHED)

    return draw


def _powers(network: Network) -> Any:
    """rho^(t-k)"""
    return np.power(float(network.radius or 0), np.arange(network.steps))


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
        "shares": ", ".join(
            f"{number(n.before.oldest_over_nearest)} in the {n.cell} cell"
            for n in compared(networks)
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
        "gate": {"lstm": "`f_t`", "gru": "`z_t`"}.get(network.cell, ""),
        "near": {name: values[0] for name, values in network.by_loss_step.items()},
        "far": {name: values[-1] for name, values in network.by_loss_step.items()},
    }


# ||dL/dS_k|| by distance t - k.
_distance = _by_distance(
    "$\\|\\partial L/\\partial S_k\\|$\n(nats per unit of state)",
    lambda moment: moment.state,
    early=[_formula(lambda n: n.before.state[0])],
    legend=_POWERS,
)
# The share of each distance in dL/dW_s: the norm of its term over the sum of all norms.
_share = _by_distance(
    "share in $\\partial L/\\partial W_s$\n(%)",
    lambda moment: 100 * moment.w_hh / moment.w_hh.sum(),
    level=(100 / (Digits.steps - 1),),
    legend=[("all distances equal", panels.DOTTED)],
    sharey="row",
)
# The error of dL/dW_s if the terms beyond a distance are left out.
_cut = _by_distance(
    "error of $\\partial L/\\partial W_s$\n(% of its norm)",
    lambda moment: 100 * moment.w_hh_error,
    panels.distances("largest distance $t-k$ that is kept  (steps)"),
    level=(5, "5 %", "left"),
)

DIGITS = Report(
    command="demo",
    title="How far back does learning reach?",
    text="digits.html",
    groups={
        "all": list,
        "elman": elman,
        "best_tanh": best_tanh,
        "gated": only(lambda n: n.gated),
        "compared": compared,
    },
    figures={
        "learning": ("elman", draw_learning),
        "regimes": ("elman", draw_regimes),
        "distance": ("elman", _distance),
        "share": ("elman", _share),
        "cut": ("elman", _cut),
        "horizon": ("all", draw_horizon),
        "readout": ("elman", draw_readout),
        "gated": ("compared", draw_gated),
    },
    facts=facts,
    row=row,
)
