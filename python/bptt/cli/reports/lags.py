"""The report of ``bptt lags``: its figures and facts.

What a curve shows is drawn by `bptt.LagGradients.draw` and its like; here panels are put together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ..measure import Options
from ..network import Network, grouped
from ..results import Results
from . import panels
from .page import Report, number, only
from .panels import Panel

TOLERANCE = 0.05  # of the horizon
_DARKEST = 1e-8  # part of the largest in a heat map; what is below it looks the same
_LEAST_ERROR = 1e-4  # that is shown
_ROUTES: dict[str, Any] = {"direct": {"ls": "--", "lw": 1.6}, "recurrent": {"ls": ":", "lw": 1.6}}


def heat(networks: list[Network], options: Options) -> Figure:
    """||delta|| over the step of the loss and the lag, one panel for each cell, in one scale."""
    norms = np.concatenate([network.every_step.signal.ravel() for network in networks])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    largest, smallest = norms.max(initial=0) or 1.0, norms.min(initial=1)
    scale = LogNorm(max(smallest, largest * _DARKEST), largest)
    panel = Panel("{}", [lambda axis, n: n.every_step.draw_signal(axis, norm=scale)])
    figure = panels.figure(grouped(networks, "cell"), [panel], 3.5)
    axes = list(figure.axes)
    for axis in axes:
        axis.grid(visible=False)
    figure.colorbar(axes[-1].collections[0], ax=axes, extend="min", label=r"$\|\delta\|$")
    return figure


def error(networks: list[Network], options: Options) -> Figure:
    """The error of the gradient if it is cut, and its share, by lag; horizons are dots."""

    def curve(name: str) -> panels.Draw:
        return lambda axis, n: n.lags.draw(axis, name, tolerance=TOLERANCE, **panels.by_cell(n))

    columns = [
        Panel(
            "relative error of the gradient",
            [curve("error")],
            {"ylabel": ""},
            (TOLERANCE, "5 %", "left"),
        ),
        Panel("share of the gradient up to a lag", [curve("share")], {"ylabel": ""}, (1,)),
    ]
    legend = panels.cells(networks)
    figure = panels.figure({"": networks}, columns, 3.9, legend, across=True, sharey="none")
    left = figure.axes[0]
    left.set_ylim(bottom=max(left.get_ylim()[0], _LEAST_ERROR))
    return figure


def routes(networks: list[Network], options: Options) -> Figure:
    """||delta|| by lag of the whole and of each route, one panel for each gated cell."""

    def draw(axis: Axes, network: Network) -> None:
        style = panels.by_cell(network)
        network.lags.draw(axis, "norm", "state", **style, label="whole")
        for route, dashes in _ROUTES.items():
            if hasattr(network, route):
                getattr(network, route).draw(axis, "norm", "state", **style, **dashes, label=route)

    panel = Panel("{}", [draw], {"ylabel": r"$\|\delta\|$"})
    figure = panels.figure(grouped(networks, "cell"), [panel], 3.7)
    for axis in figure.axes:
        axis.legend()
    return figure


def lyapunov(networks: list[Network], options: Options) -> Figure:
    """The Lyapunov exponents of each cell from the largest on."""

    def draw(axis: Axes, network: Network) -> None:
        found = network.lyapunov
        order = np.arange(1, len(found.exponents) + 1) / found.size
        finite = np.isfinite(found.exponents)
        known = order[finite], found.exponents[finite], found.standard_error[finite]
        axis.errorbar(*known, **panels.by_cell(network), fmt=".-", ms=3, lw=1.2)

    look = {"xlabel": "rank of the exponent / their number", "ylabel": "exponent (nats per step)"}
    panel = Panel("", [draw], look, (0,))
    return panels.figure({"": networks}, [panel], 3.7, panels.cells(networks))


def training(networks: list[Network], options: Options) -> Figure:
    """The horizon in the course of training."""

    def draw(axis: Axes, network: Network) -> None:
        network.monitor.draw(axis, lw=1.4, **panels.marked(panels.by_cell(network)))

    panel = Panel("", [draw], {"ylim": (0, None)})
    return panels.figure({"": networks}, [panel], 3.3, panels.cells(networks))


def facts(results: Results) -> dict[str, Any]:
    """What is measured."""
    at, sample = results.data["at"], results.settings.sample
    words = {"last": "at the last step", "all": "at every step"}
    trained = any(hasattr(network, "monitor") for network in results.networks)
    return {
        "loss": results.data["loss"].replace("_", " "),
        "at": words.get(at, f"at step {at} (from zero)"),
        "at_one_step": at != "all",
        "ragged": any(network.lengths is not None for network in results.networks),
        "as_trained": "after training" if trained else "as they are",
        "sampled": "" if sample is None else f", on {sample} of them drawn at random",
    }


def row(network: Network, options: Options) -> dict[str, str]:
    """What the table says of a network."""
    horizon = network.lags.horizon(TOLERANCE)
    exponents = getattr(network, "lyapunov", None)
    norm = network.lags.norm["state"][network.lags.lags <= network.common_lag]
    return {
        "horizon": "beyond all" if horizon is None else str(horizon),
        "half_life": _half_life(network.half_life),
        "far_over_near": number(norm[-1] / norm[0]) if norm.size and norm[0] > 0 else "-",
        "exponent": number(exponents.exponents[0]) if exponents else "-",
    }


def _half_life(lags: float) -> str:
    if math.isnan(lags):  # there are too few
        return "-"
    return "does not fade" if math.isinf(lags) else number(lags)


LAGS = Report(
    command="lags",
    title="The gradient, resolved by lag",
    text="lags.html",
    groups={
        "all": list,
        "shown": only(lambda n: n.lags.lags.size),  # finite at one lag at least
        "routed": only(lambda n: n.lags.lags.size and hasattr(n, "direct")),
        "with_exponents": only(
            lambda n: hasattr(n, "lyapunov") and np.isfinite(n.lyapunov.exponents).any()
        ),
        "trained": only(lambda n: hasattr(n, "monitor")),
        "overflown": only(lambda n: n.lags.overflow_lag is not None),
    },
    figures={
        "heat": ("shown", heat),
        "error": ("shown", error),
        "routes": ("routed", routes),
        "lyapunov": ("with_exponents", lyapunov),
        "training": ("trained", training),
    },
    facts=facts,
    row=row,
)
