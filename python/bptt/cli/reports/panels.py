"""How figures are made: panels, lines, colours, legends. Nothing here knows a report.

The colours are Okabe and Ito's, which stay apart for colour-blind readers. Figures are made with
matplotlib's object interface: no pyplot, no window system, no state that outlives a call. Their
style is ``figures.mplstyle``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..network import Network, grouped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = dict[str, Any]  # how a line looks
Entry = tuple[str, Style]  # of a legend
Entries = list[Entry]
Draw = Callable[["Axes", Network], None]  # a network into a panel

GREY = "#444444"
DASHED: Style = {"color": "black", "ls": (0, (3, 3)), "lw": 1.3}  # a formula
DOTTED: Style = {"color": GREY, "ls": ":", "lw": 1.2}  # a level
BEFORE: Style = {"ls": (0, (1, 1)), "lw": 1.6}  # an untrained network beside the trained one
BEFORE_AND_AFTER: Entries = [
    ("before", {"color": GREY, **BEFORE}),
    ("after training", {"color": GREY}),
]
# Black, orange and blue, of the cells that are compared, no radius has; and of what is shown
# together, no marker hides another in the same place.
_CELLS = {"tanh": "#000000", "gru": "#E69F00", "lstm": "#56B4E9", "linear": "#009E73"}
_OTHER_CELL = "#CC79A7"
_VANISHING, _STEADY, _EXPLODING = "#0072B2", "#009E73", "#D55E00"
_CIRCLE, _SQUARE, _TRIANGLE = ("o", 5), ("s", 6), ("^", 7)
_MARKERS = {
    **dict.fromkeys((_CELLS["tanh"], _VANISHING), _CIRCLE),
    **dict.fromkeys((_CELLS["gru"], _STEADY), _SQUARE),
    **dict.fromkeys((_CELLS["lstm"], _EXPLODING), _TRIANGLE),
}


@dataclass(frozen=True)
class Row:
    """One row of panels, each for a group of networks."""

    title: str  # of each panel; {} is the group
    ylabel: str
    draws: Sequence[Draw]
    level: tuple[Any, ...] = ()  # of a `reference_line`
    limits: tuple[float, float | None] | None = None  # of the vertical axis


def curves(
    networks: list[Network],
    by: str,
    rows: Sequence[Row],
    across: Callable[[Axes, list[Network]], None],
    *,
    height: float,
    legend: Entries,
    sharey: Literal["all", "row"] = "all",
) -> Figure:
    """One column for each group of networks with the same attribute `by`; `across` is their x."""
    groups = grouped(networks, by)
    figure, axes = grid(len(rows), len(groups), height, sharey, sharex=by != "steps")
    for row, line in zip(rows, axes, strict=True):
        for axis, (group, members) in zip(line, groups.items(), strict=True):
            for network in members:
                for draw in row.draws:
                    draw(axis, network)
            axis.set_title(row.title.format(group))
        for axis in line:  # when all is drawn, since the panels share an axis
            if row.limits is not None:
                axis.set_ylim(row.limits)
            if row.level:
                reference_line(axis, *row.level)
        line[0].set_ylabel(row.ylabel)
    for axis, members in zip(axes[-1], groups.values(), strict=True):
        across(axis, members)
    add_legend(figure, legend)
    return figure


def grid(
    rows: int, columns: int, height: float, sharey: str = "all", sharex: bool = True
) -> tuple[Figure, Any]:
    """A figure as wide as a report, `height` inches high, and its (rows, columns) panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, height))  # the report shows it 900 pixels wide
    given: Any = {"sharex": sharex, "sharey": sharey}
    return figure, figure.subplots(rows, columns, squeeze=False, **given)


def to_png(draw: Callable[[], Figure]) -> bytes:
    """Draw a figure in the reports' style; the bytes of a PNG file."""
    import matplotlib

    from bptt.ticks import label_logarithmic

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


def distance_axis(axes: Axes, steps: int, label: str, *, every: int = 8) -> None:
    """The distances 0 .. steps - 1; ticks are a row of pixels apart if not said otherwise."""
    axes.set_xlim(0, steps - 1)
    axes.set_xticks(range(0, steps, every))
    axes.set_xlabel(label)


def reference_line(axes: Axes, y: float, text: str = "", end: str = "right") -> None:
    """A dotted level, with its meaning written on its right or left end."""
    axes.axhline(y, **DOTTED)
    axes.annotate(
        text,
        (0.99 if end == "right" else 0.01, y),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha=end,
        va="bottom",
        fontsize=9,
        color=GREY,
    )


def add_legend(figure: Figure, entries: Entries) -> None:
    """One line above the panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label, **style) for label, style in entries]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def radii(networks: Iterable[Network]) -> Entries:
    """Which colour is which spectral radius."""
    known = {n.radius: by_radius(n) for n in networks}
    title = ("spectral radius of $W_s$ at the start:", {"color": "none"})
    return [title, *((f"$\\rho$ = {radius}", style) for radius, style in known.items())]


def cells(networks: Iterable[Network]) -> Entries:
    """Which colour is which cell, and how many parameters it has."""
    known = {f"{n.cell} ({n.parameters})": by_cell(n) for n in networks}
    return [("parameters:", {"color": "none"}), *known.items()]
