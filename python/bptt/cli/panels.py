"""How the demo's figures look: style, colours, axes, legends. Nothing here knows what is shown.

The colours are Okabe and Ito's, which stay apart for colour-blind readers. Figures are made with
matplotlib's object interface: no pyplot, no window system, no state that outlives a call.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bptt.checks import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "BEFORE",
    "AxesGrid",
    "Share",
    "cell_colour",
    "cell_legend",
    "cell_marker",
    "colour",
    "distance_axis",
    "formula_line",
    "grid",
    "legend",
    "line_legend",
    "radius_marker",
    "reference_line",
    "running_mean",
    "to_png",
]

AxesGrid = npt.NDArray[Any]
Share = Literal["all", "row", "none"]

_WIDTH = 9.0  # inches; the report shows it 900 pixels wide
_DPI = 150
_GREY = "#444444"
_DASHES = (0, (3, 3))
# Of a line that shows an untrained network beside the trained one.
BEFORE: dict[str, Any] = {"ls": (0, (1, 1)), "lw": 1.6}
_STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "mathtext.fontset": "dejavusans",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "ytick.minor.left": False,
    "figure.constrained_layout.use": True,
}


def to_png(draw: Callable[[], Figure]) -> bytes:
    """Draw a figure in the demo's style; the bytes of a PNG file."""
    import matplotlib

    from bptt.ticks import label_logarithmic

    png = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = draw()
        for axes in figure.axes:
            if axes.get_yscale() == "log":
                label_logarithmic(axes.yaxis)
        figure.savefig(png, format="png", dpi=_DPI, facecolor="white")
    return png.getvalue()


def grid(
    rows: int, columns: int, *, height: float, sharey: Share, sharex: bool = True
) -> tuple[Figure, AxesGrid]:
    """A figure of report width, `height` inches high, and its (rows, columns) panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    return figure, axes


def colour(radius: float) -> str:
    """Blue below a spectral radius of one, green at one, vermilion above."""
    return "#0072B2" if radius < 1 else "#009E73" if radius == 1 else "#D55E00"


def cell_colour(cell: str) -> str:
    """Where cells are compared: black, orange and blue, which no radius has, and two more."""
    colours = {"tanh": "#000000", "gru": "#E69F00", "lstm": "#56B4E9", "linear": "#009E73"}
    return colours.get(cell, "#CC79A7")


def cell_marker(cell: str) -> dict[str, Any]:
    """Hollow, and another for each cell, so that none hides another in the same place."""
    shapes = {"tanh": ("o", 5), "gru": ("s", 6), "lstm": ("^", 7), "linear": ("D", 6)}
    shape, size = shapes.get(cell, ("v", 7))
    return {"marker": shape, "ms": size, "mfc": "none", "mew": 1.2}


def radius_marker(radius: float) -> dict[str, Any]:
    """The same, for each radius that has a colour."""
    return cell_marker("tanh" if radius < 1 else "gru" if radius == 1 else "lstm")


def distance_axis(axes: Axes, steps: int, *, every: int = 8) -> None:
    """The distances 0 .. steps - 1; ticks are a row of pixels apart if not said otherwise."""
    axes.set_xlim(0, steps - 1)
    axes.set_xticks(range(0, steps, every))
    axes.set_xlabel("distance $t-k$ from the loss  (steps)")


def formula_line(axes: Axes, values: Array) -> None:
    """What a formula predicts, on top of what was measured."""
    axes.semilogy(values, color="black", ls=_DASHES, lw=1.3)


def reference_line(axes: Axes, y: float, text: str = "", *, end: str = "right") -> None:
    """A dotted level, with its meaning written on its right or left end."""
    axes.axhline(y, color=_GREY, ls=":", lw=1.2)
    axes.annotate(
        text,
        (0.99 if end == "right" else 0.01, y),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha=end,
        va="bottom",
        fontsize=9,
        color=_GREY,
    )


def legend(figure: Figure, radii: Sequence[float], *, formula: str = "", dotted: str = "") -> None:
    """One line above the panels: which colour is which radius, and what is dotted or dashed."""
    handles = [_line("spectral radius of $W_s$ at the start:", "none")]
    handles += [_line(f"$\\rho$ = {radius}", colour(radius)) for radius in radii]
    if dotted:
        handles.append(_line(dotted, _GREY, ls=":", lw=1.2))
    _legend_above(figure, handles, formula)


def line_legend(figure: Figure, widths: dict[str, float], *, formula: str = "") -> None:
    """One line above the panels: what a line of which width is, and the dashed formula."""
    handles = [_line(label, _GREY, lw=width) for label, width in widths.items()]
    _legend_above(figure, handles, formula)


def cell_legend(
    figure: Figure, parameters: dict[str, int], *, before_and_after: bool = False
) -> None:
    """One line above the panels: which colour is which cell, and how many `parameters` it has."""
    handles = [_line("parameters:", "none")]
    handles += [_line(f"{cell} ({count})", cell_colour(cell)) for cell, count in parameters.items()]
    if before_and_after:
        handles += [_line("before", _GREY, **BEFORE), _line("after training", _GREY)]
    _legend_above(figure, handles, "")


def _legend_above(figure: Figure, handles: list[Line2D], formula: str) -> None:
    if formula:
        handles = [*handles, _line(f"formula {formula}", "black", lw=1.3, ls=_DASHES)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _line(label: str, colour: str, **style: Any) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, label=label, **style)


def running_mean(values: Array, width: int) -> Array:
    """Mean of each value and up to width - 1 before it."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return np.asarray((sums[end] - sums[start]) / (end - start))
