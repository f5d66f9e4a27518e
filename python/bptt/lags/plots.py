"""Figures of `LagGradients`. Importing this module imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .result import LagGradients

__all__ = ["lag_curves"]


def lag_curves(found: Mapping[str, LagGradients], of: str = "params") -> Figure:
    """Norm, error and share of the gradient of `of` over the lag, a line for each of `found`."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    norm, error, share = figure.subplots(1, 3)
    for name, lags in found.items():
        (line,) = norm.semilogy(lags.lags, lags.norm[of], label=name)
        error.semilogy(lags.lags, lags.error[of], label=name)
        share.plot(lags.lags, np.cumsum(lags.share[of]), label=name)
        horizon = lags.horizon(of=of)
        if horizon is not None:
            error.axvline(horizon, color=line.get_color(), linestyle=":")
    norm.set(title=f"norm of the term ({of})", xlabel="lag (steps)")
    error.set(title="relative error if cut beyond", xlabel="lag (steps)")
    error.axhline(0.05, color="gray", linewidth=0.8)
    share.set(title="share of the gradient up to", xlabel="lag (steps)")
    norm.legend()
    return figure
