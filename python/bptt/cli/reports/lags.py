"""The report of ``bptt lags``: its figures and facts.

What a curve shows is drawn by `bptt.LagGradients.draw` and its like; here panels are put together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measure import Options
from ..network import Network
from ..results import Results
from . import panels
from .page import Report, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLERANCE = 0.05  # of the horizon
_DARKEST = 1e-8  # part of the largest in a heat map; what is below it looks the same
_LEAST_ERROR = 1e-4  # that is shown
_ROUTES: dict[str, Any] = {"direct": {"ls": "--", "lw": 1.6}, "recurrent": {"ls": ":", "lw": 1.6}}


def heat(networks: list[Network], options: Options) -> Figure:
    """||delta|| over the step of the loss and the lag, one panel for each cell, in one scale."""
    from matplotlib.colors import LogNorm

    figure, axes = panels.grid(1, len(networks), 3.5)
    norms = np.concatenate([network.every_step.signal.ravel() for network in networks])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    largest, smallest = norms.max(initial=0) or 1.0, norms.min(initial=1)
    scale = LogNorm(max(smallest, largest * _DARKEST), largest)
    for axis, network in zip(axes[0], networks, strict=True):
        mesh = network.every_step.draw_signal(axis, norm=scale)
        axis.set_title(network.cell)
        axis.grid(visible=False)
        axis.label_outer()
    figure.colorbar(mesh, ax=axes[0].tolist(), extend="min", label=r"$\|\delta\|$")
    return figure


def error(networks: list[Network], options: Options) -> Figure:
    """The error of the gradient if it is cut, and its share, by lag; horizons are dots."""
    figure, axes = panels.grid(1, 2, 3.9, "none")
    cut, share = axes[0]
    for network in networks:
        style = panels.by_cell(network)
        network.lags.draw(cut, "error", tolerance=TOLERANCE, **style)
        network.lags.draw(share, "share", tolerance=TOLERANCE, **style)
    panels.reference_line(cut, TOLERANCE, "5 %", end="left")
    panels.reference_line(share, 1)
    cut.set(title="relative error of the gradient", ylabel="")
    cut.set_ylim(bottom=max(cut.get_ylim()[0], _LEAST_ERROR))
    share.set(title="share of the gradient up to a lag", ylabel="")
    panels.add_legend(figure, panels.cells(networks))
    return figure


def routes(networks: list[Network], options: Options) -> Figure:
    """||delta|| by lag of the whole and of each route, one panel for each gated cell."""
    figure, axes = panels.grid(1, len(networks), 3.7)
    for axis, network in zip(axes[0], networks, strict=True):
        style = panels.by_cell(network)
        network.lags.draw(axis, "norm", "state", **style, label="whole")
        for route, dashes in _ROUTES.items():
            if hasattr(network, route):
                found, label = getattr(network, route), {"label": route}
                found.draw(axis, "norm", "state", **style, **dashes, **label)
        axis.set(title=network.cell, ylabel=r"$\|\delta\|$")
        axis.label_outer()
        axis.legend()
    return figure


def lyapunov(networks: list[Network], options: Options) -> Figure:
    """The Lyapunov exponents of each cell from the largest on."""
    figure, axes = panels.grid(1, 1, 3.7, "none")
    for network in networks:
        found = network.lyapunov
        order = np.arange(1, len(found.exponents) + 1) / found.size
        finite = np.isfinite(found.exponents)
        known = order[finite], found.exponents[finite], found.standard_error[finite]
        axes[0, 0].errorbar(*known, **panels.by_cell(network), fmt=".-", ms=3, lw=1.2)
    panels.reference_line(axes[0, 0], 0)
    axes[0, 0].set(xlabel="rank of the exponent / their number")
    axes[0, 0].set(ylabel="exponent (nats per step)")
    panels.add_legend(figure, panels.cells(networks))
    return figure


def training(networks: list[Network], options: Options) -> Figure:
    """The horizon in the course of training."""
    figure, axes = panels.grid(1, 1, 3.3, "none")
    for network in networks:
        network.monitor.draw(axes[0, 0], lw=1.4, **panels.marked(panels.by_cell(network)))
    axes[0, 0].set_ylim(bottom=0)
    panels.add_legend(figure, panels.cells(networks))
    return figure


def shown(networks: list[Network]) -> list[Network]:
    """Those whose gradient is finite at one lag at least."""
    return [network for network in networks if network.lags.lags.size]


def having(name: str) -> Callable[[list[Network]], list[Network]]:
    """Those that something was measured of."""
    return lambda networks: [network for network in networks if hasattr(network, name)]


def facts(results: Results) -> dict[str, Any]:
    """What is measured."""
    at, sample = results.data["at"], results.settings.sample
    words = {"last": "at the last step", "all": "at every step"}
    trained = any(hasattr(network, "monitor") for network in results.networks)
    return {
        "loss": results.data["loss"].replace("_", " "),
        "at": words.get(at, f"at step {at} (from zero)"),
        "at_one_step": at != "all",
        "as_trained": "after training" if trained else "as they are",
        "sampled": "" if sample is None else f", on {sample} of them drawn at random",
    }


def row(network: Network, options: Options) -> dict[str, str]:
    """What the table says of a network."""
    horizon, half_life = network.lags.horizon(TOLERANCE), network.lags.half_life()
    norm, exponents = network.lags.norm["state"], getattr(network, "lyapunov", None)
    return {
        "horizon": "beyond all" if horizon is None else str(horizon),
        "half_life": "does not fade" if half_life == math.inf else number(half_life),
        "far_over_near": number(norm[-1] / norm[0]) if norm.size and norm[0] > 0 else "-",
        "exponent": number(exponents.exponents[0]) if exponents else "-",
    }


LAGS = Report(
    command="lags",
    title="The gradient, resolved by lag",
    text="lags.html",
    groups={
        "all": list,
        "shown": shown,
        "routed": lambda networks: having("direct")(shown(networks)),
        "with_exponents": lambda networks: [
            n for n in having("lyapunov")(networks) if np.isfinite(n.lyapunov.exponents).any()
        ],
        "trained": having("monitor"),
        "overflown": lambda networks: [n for n in networks if n.lags.overflow_lag is not None],
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
