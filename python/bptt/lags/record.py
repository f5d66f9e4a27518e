"""`LagRecord`: what `LagMonitor` keeps of a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import Array

__all__ = ["LagRecord"]


@dataclass(frozen=True, eq=False)
class LagRecord:
    """What `LagMonitor` measured at one step of training.

    Attributes
    ----------
    step : int
        Steps of training before, from zero.
    horizon : int or None
        ``LagGradients.horizon`` of all parameters at the monitor's tolerance; None if the error is
        above it at all lags that were computed.
    half_life : float
        ``LagGradients.half_life`` of the norm of delta.
    lags, norm, error : (N,)
        ``LagGradients.norm`` and ``error`` of the parameters, by lag.
    seconds : float
        What the measurement took.
    """

    step: int
    horizon: int | None
    half_life: float
    lags: Array
    norm: Array
    error: Array
    seconds: float
