"""How figures are made: panels, lines, colours, legends. Nothing here knows a report.

The colours are Okabe and Ito's, which stay apart for colour-blind readers. Figures are made with
matplotlib's object interface: no pyplot, no window system, no state that outlives a call. Their
style is ``figures.mplstyle``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bptt.ticks import label_logarithmic

from ..network import Network

Style = dict[str, Any]  # how a line looks
Entry = tuple[str, Style]  # of a legend
Entries = Sequence[Entry]
Draw = Callable[[Axes, Network], Any]  # a network into a panel

GREY = "#444444"
DASHED: Style = {"color": "black", "ls": (0, (3, 3)), "lw": 1.3}  # a formula
DOTTED: Style = {"color": GREY, "ls": ":", "lw": 1.2}  # a level
BEFORE: Style = {"ls": (0, (1, 1)), "lw": 1.6}  # an untrained network beside the trained one
BEFORE_AND_AFTER = [("before", {"color": GREY, **BEFORE}), ("after training", {"color": GREY})]
# No radius has black, orange or blue of the cells that are compared, and of what is shown together
# no marker hides another in the same place.
_CELLS = {"tanh": "#000000", "gru": "#E69F00", "lstm": "#56B4E9", "linear": "#009E73"}
_OTHER_CELL = "#CC79A7"
_VANISHING, _STEADY, _EXPLODING = "#0072B2", "#009E73", "#D55E00"
_MARKERS = {
    **dict.fromkeys((_CELLS["tanh"], _VANISHING), ("o", 5)),
    **dict.fromkeys((_CELLS["gru"], _STEADY), ("s", 6)),
    **dict.fromkeys((_CELLS["lstm"], _EXPLODING), ("^", 7)),
}


@dataclass(frozen=True)
class Panel:
    """What is drawn of each network of a group."""

    title: str  # {} is the name of the group
    draws: Sequence[Draw]
    look: Style = field(default_factory=dict)  # what `Axes.set` takes, when all is drawn
    level: tuple[Any, ...] = ()  # of a `reference_line`


def figure(
    groups: Mapping[Any, list[Network]],
    panels: Sequence[Panel],
    height: float,
    legend: Entries = (),
    *,
    across: bool = False,
    sharey: Literal["all", "row", "none"] = "all",
) -> Figure:
    """One column of panels for each group of networks, or, with `across`, one row.

    It is as wide as a report, and `height` inches high. What shares an axis has its labels once.
    """
    made = Figure(figsize=(9.0, height))  # the report shows it 900 pixels wide
    shape = (len(groups), len(panels)) if across else (len(panels), len(groups))
    axes = made.subplots(*shape, squeeze=False, sharex="col", sharey=sharey)
    places = list(zip((axes if across else axes.T).flat, product(groups, panels), strict=True))
    for axis, (group, panel) in places:
        for network, draw in product(groups[group], panel.draws):
            draw(axis, network)
    for axis, (group, panel) in places:  # when all is drawn, since they share axes
        axis.set(title=panel.title.format(group), **panel.look)
        if panel.level:
            reference_line(axis, *panel.level)
        if sharey != "none":
            axis.label_outer()
    if legend:
        handles = [Line2D([], [], label=label, **style) for label, style in legend]
        made.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return made


def to_png(draw: Callable[[], Figure]) -> bytes:
    """Draw a figure in the reports' style; the bytes of a PNG file."""
    png = io.BytesIO()
    with matplotlib.rc_context(fname=Path(__file__).with_name("figures.mplstyle")):
        figure = draw()
        for axes in figure.axes:
            if axes.get_yscale() == "log":
                label_logarithmic(axes.yaxis)
        figure.savefig(png, format="png", dpi=150, facecolor="white")
    return png.getvalue()


def by_cell(network: Network) -> Style:
    """The colour where cells are compared."""
    return {"color": _CELLS.get(network.cell, _OTHER_CELL)}


def by_radius(network: Network) -> Style:
    """Blue below a spectral radius of one, green at one, vermilion above."""
    radius = network.radius or 0
    return {"color": _VANISHING if radius < 1 else _STEADY if radius == 1 else _EXPLODING}


def marked(style: Style) -> Style:
    """The same, with hollow markers."""
    marker, size = _MARKERS.get(style["color"], ("v", 7))
    return {**style, "marker": marker, "ms": size, "mfc": "none", "mew": 1.2}


def line(
    y: Callable[[Network], Any],
    style: Callable[[Network], Style] = by_radius,
    *,
    x: Callable[[Network], Any] | None = None,
    log: bool = True,
    **more: Any,
) -> Draw:
    """Draws y over x, or over its index; `more` is of style."""

    def draw(axes: Axes, network: Network) -> None:
        values = y(network)
        places = np.arange(len(values)) if x is None else x(network)
        (axes.semilogy if log else axes.plot)(places, values, **style(network), **more)

    return draw


# ||dL/dS_k|| / ||dL/dS_t|| by distance, where cells are compared.
RELATIVE: tuple[Draw, Draw] = (
    line(lambda n: n.before.relative, by_cell, **BEFORE),
    line(lambda n: n.after.relative, by_cell),
)


def distances(label: str, parts: int = 8) -> Draw:
    """Makes x the distances 0 .. T - 1, with ticks that divide it into `parts`."""

    def draw(axes: Axes, network: Network) -> None:
        steps = network.steps
        axes.set(xlim=(0, steps - 1), xticks=range(0, steps, steps // parts), xlabel=label)

    return draw


def reference_line(axes: Axes, y: float, text: str = "", end: str = "right") -> None:
    """A dotted level, with its meaning written on its right or left end."""
    axes.axhline(y, **DOTTED)
    axes.annotate(
        text,
        (0.99 if end == "right" else 0.01, y),
        (0, 3),  # points
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha=end,
        va="bottom",
        fontsize=9,
        color=GREY,
    )


def radii(networks: Iterable[Network]) -> list[Entry]:
    """Which colour is which spectral radius."""
    known = {n.radius: by_radius(n) for n in networks}
    title = ("spectral radius of $W_s$ at the start:", {"color": "none"})
    return [title, *((f"$\\rho$ = {radius}", style) for radius, style in known.items())]


def cells(networks: Iterable[Network]) -> list[Entry]:
    """Which colour is which cell, and how many parameters it has."""
    known = {f"{n.cell} ({n.parameters})": by_cell(n) for n in networks}
    return [("parameters:", {"color": "none"}), *known.items()]
