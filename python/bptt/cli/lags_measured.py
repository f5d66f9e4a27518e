"""What ``bptt lags`` measures of a network; ``results.json`` holds all of it."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

import bptt
from bptt.checks import Array

from .lags_networks import Network

__all__ = ["Measured", "Options", "Results", "check", "measure"]

# All exponents of a large state on all sequences would take longer than everything else.
_MOST_EXPONENTS, _SEQUENCES = 128, 16

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Options:
    """What `bptt.lag_gradients` is asked for, of each network."""

    backend: str = "auto"
    max_lag: int | None = None
    lags: tuple[int, ...] | None = None
    sample: int | None = None
    seed: int = 0


@dataclass
class Measured:
    """One network.

    Attributes
    ----------
    lags : LagGradients
        Of the loss that the network is for.
    every_step : LagGradients
        The same, or of a loss at one step, of that loss read at every step of the sequences.
    routes : dict of LagGradients
        The routes of a gated cell: direct, recurrent.
    lyapunov : LyapunovExponents or None
    training : LagMonitor or None
        What was seen while it was trained.
    finished : bool
        False if Ctrl-C ended the training or the measurement.
    """

    cell: str
    hidden_size: int
    parameters: int
    lags: bptt.LagGradients
    every_step: bptt.LagGradients
    training: bptt.LagMonitor | None
    routes: dict[str, bptt.LagGradients] = field(default_factory=dict)
    lyapunov: bptt.LyapunovExponents | None = None
    finished: bool = True
    seconds: float = 0.0

    @property
    def gradients(self) -> list[bptt.LagGradients]:
        """All that was measured by lag."""
        return [self.lags, self.every_step, *self.routes.values()]


@dataclass
class Results:
    """All networks of one run; `status` is "running", "complete" or "interrupted"."""

    options: Options
    backend: str
    about: str
    loss: str
    at: str | int
    wanted: int
    networks: list[Measured] = field(default_factory=list)
    status: str = "running"

    @property
    def interrupted(self) -> bool:
        return self.status == "interrupted"

    @property
    def shown(self) -> list[Measured]:
        """Those whose gradient is finite at one lag at least."""
        return [network for network in self.networks if network.lags.lags.size]

    @property
    def trained(self) -> list[Measured]:
        return [network for network in self.networks if network.training is not None]

    @property
    def gated(self) -> list[Measured]:
        return [network for network in self.networks if network.routes and network.lags.lags.size]


def check(network: Network, options: Options) -> None:
    """Raise what `measure` would raise of wrong arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        bptt.lag_terms(*_arguments(network), **_asked(network, options))


def measure(network: Network, training: bptt.LagMonitor | None, options: Options) -> Measured:
    """Measure in float64, so that terms many decades apart are exact in the figures.

    Ctrl-C ends it with what is done, if that is one lag or more.
    """
    began = time.perf_counter()
    arguments, asked = _arguments(network), _asked(network, options)
    lags = _lag_gradients(*arguments, **asked)
    found = Measured(
        network.cell,
        network.params.hidden_size,
        sum(array.size for array in network.params.arrays().values()),
        lags,
        lags,
        training,
        finished=lags.complete,
    )
    try:
        if found.finished and network.at != "all":
            found.every_step = _of_every_step(arguments, asked)
        if found.finished and bptt.CELLS[network.cell].keeps is not None:
            for route in ("direct", "recurrent"):
                found.routes[route] = _lag_gradients(*arguments, **asked, route=route)
        if found.finished and len(network.x) > 1:
            found.lyapunov = _lyapunov(arguments, options)
    except KeyboardInterrupt:
        found.finished = False
    parts: list[Any] = [found.every_step, *found.routes.values(), *filter(None, [found.lyapunov])]
    found.finished &= all(part.complete for part in parts)
    found.seconds = time.perf_counter() - began
    return found


def _of_every_step(arguments: tuple[Any, ...], asked: dict[str, Any]) -> bptt.LagGradients:
    cell, params, x, target = arguments
    everywhere = np.ascontiguousarray(np.broadcast_to(target, (len(x), *target.shape)))
    return _lag_gradients(cell, params, x, everywhere, **{**asked, "at": "all"})


def _lyapunov(arguments: tuple[Any, ...], options: Options) -> bptt.LyapunovExponents:
    cell, params, x, _ = arguments
    size = len(bptt.CELLS[cell].states) * params.hidden_size
    return _quietly(
        bptt.lyapunov_exponents,
        cell,
        params,
        np.ascontiguousarray(x[:, :_SEQUENCES]),
        k=min(size, _MOST_EXPONENTS),
        backend=options.backend,
        rng=options.seed,
    )


def _lag_gradients(*arguments: Any, **asked: Any) -> bptt.LagGradients:
    return _quietly(bptt.lag_gradients, *arguments, **asked)


def _quietly(measurement: Callable[..., _Found], *arguments: Any, **asked: Any) -> _Found:
    """With a bar on a terminal; of overflow and Ctrl-C the result tells, and so no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return measurement(*arguments, **asked, progress=sys.stderr.isatty())


def _arguments(network: Network) -> tuple[str, bptt.Params, Array, Array]:
    target = network.target
    if target.dtype.kind == "f":  # not the ids of classes
        target = target.astype("float64")
    return network.cell, network.params.astype("float64"), network.x.astype("float64"), target


def _asked(network: Network, options: Options) -> dict[str, Any]:
    return {
        "loss": network.loss,
        "at": network.at,
        "max_lag": options.max_lag,
        "lags": options.lags,
        "sample": options.sample,
        "rng": options.seed,
        "backend": options.backend,
    }
