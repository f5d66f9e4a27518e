"""`LagGradients`: what `bptt.lag_gradients` returns."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import Array, choice, finite, require_memory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

__all__ = ["LagGradients", "LagTerm"]

_CURVES = ("norm", "error", "cosine", "share")


@dataclass(frozen=True, eq=False)
class LagTerm:
    """The term of one lag.

    Attributes
    ----------
    lag : int
        t - k, in steps.
    params : dict of arrays
        What this lag adds to the gradient of each parameter, shaped like it.
    dstates : tuple of (n, B, H)
        delta_k = dL_{k+lag}/dS_k at the steps `steps`, one array for each part of the state.
    steps : slice
        The steps k at which `dstates` are; it is zero elsewhere.
    """

    lag: int
    params: dict[str, Array]
    dstates: tuple[Array, ...]
    steps: slice


@dataclass(frozen=True, eq=False)
class LagGradients:
    """The gradient of a recurrent layer, resolved by lag.

    A curve is a dictionary of (N,) arrays, one entry for each of `lags`. Its keys are the
    parameters of the layer (``"w_ih"``, ``"w_hh"``, ``"b_ih"``, ``"b_hh"``, those that are
    present); ``"params"``, all of them as one vector; and ``"state"``, the gradient with respect to
    the states S_k of all steps, delta as one vector.

    Attributes
    ----------
    cell : str
    route : str or None
        The route that the terms follow, if one was asked for.
    lags : (N,) int
        t - k, in steps, from the loss back.
    norm : dict of (N,)
        Frobenius norm of each lag's term.
    error : dict of (N,)
        ``||sum of the terms of all larger lags|| / ||total||``: the relative error of the gradient
        that is cut beyond this lag, and 0 at the last one there is. Some eps of the dtype are
        rounding. 0 if the total is zero and nothing is cut.
    cosine : dict of (N,)
        Between the sum of the terms up to this lag and the total; 1 if both are zero, and 0 if one
        of them is, or is no more than rounding beside the other.
    share : dict of (N,)
        ``<term, total> / ||total||^2``: what the term adds along the total. Over all lags the
        shares sum to 1. 0 if the total is zero.
    total : dict of arrays
        The sum over all lags, also those beyond the last of `lags`: for the whole route, the
        gradient that `bptt.value_and_grad` returns, and of the readout likewise.
    loss : float or None
        None if `dy` was given.
    steps : int
        T.
    step : int or None
        The only step at which the loss is read, if it is one.
    check : float
        ``||sum of the terms - total|| / ||total||``, all parameters of the layer as one vector: the
        accuracy that was reached. It is rounding, of the order of the dtype's eps (float32 1e-7,
        float64 1e-16), and larger by as much as the terms cancel each other in the total; inf if
        the total is zero and the sum is not. Where not all lags were computed, the sum is that of
        one pass with the delta of all of them.
    overflow_lag : int or None
        The first lag whose term is not finite; the curves end before it. What is relative to the
        total, which overflows as well, is nan then.
    complete : bool
        False if Ctrl-C ended the work: the curves have the lags that were done.
    standard_error : dict of dict of (N,), or None
        With `sample`: of norm, error, cosine and share, by the jackknife over groups of sequences.
    terms : list of LagTerm, or None
        If they were asked for.
    """

    cell: str
    route: str | None
    lags: Array
    norm: dict[str, Array]
    error: dict[str, Array]
    cosine: dict[str, Array]
    share: dict[str, Array]
    total: dict[str, Array]
    loss: float | None
    steps: int
    step: int | None
    check: float
    overflow_lag: int | None = None
    complete: bool = True
    standard_error: dict[str, dict[str, Array]] | None = None
    terms: list[LagTerm] | None = field(default=None, repr=False)
    every_signal: Array | None = field(default=None, repr=False)  # with a loss at several steps

    @property
    def signal(self) -> Array:
        """(N, T), ``||delta_k||`` of each lag over the batch, at each step k.

        Raises
        ------
        MemoryError
            If it does not fit the memory: of a loss at one step it is written out here, one number
            a row.
        """
        if self.every_signal is not None or self.step is None:
            return np.empty((0, self.steps)) if self.every_signal is None else self.every_signal
        require_memory(len(self.lags) * self.steps * 8, f"the signal of {len(self.lags)} lags")
        signal = np.zeros((len(self.lags), self.steps))
        signal[np.arange(len(self.lags)), self.step - self.lags] = self.norm["state"]
        return signal

    def horizon(self, tolerance: float = 0.05, of: str = "params") -> int | None:
        """The smallest of `lags` with ``error[of] <= tolerance``; None if there is none.

        Raises
        ------
        TypeError, ValueError
            If `tolerance` is negative or no number, or `of` is no key.
        """
        limit = finite("tolerance", tolerance)
        if limit < 0:
            raise ValueError(f"tolerance: expected a number of at least 0, got {tolerance!r}")
        error = self.error[choice("of", of, self.error)]
        near = np.flatnonzero(error <= limit)
        return int(self.lags[near[0]]) if near.size else None

    def half_life(self, of: str = "state") -> float:
        """Lags over which the norm of a term halves, in the mean; inf if it does not fall.

        From a straight line through log norm over lag, by least squares, of norms that are not
        zero; nan with fewer than two of them.
        """
        norm = self.norm[choice("of", of, self.norm)]
        seen = norm > 0
        if np.count_nonzero(seen) < 2:
            return math.nan
        slope = float(np.polyfit(self.lags[seen], np.log(norm[seen]), 1)[0])
        return -math.log(2) / slope if slope < 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """All but the terms and the total, as lists and numbers: for JSON."""
        found: dict[str, Any] = {
            "cell": self.cell,
            "route": self.route,
            "steps": self.steps,
            "loss": self.loss,
            "step": self.step,
            "check": self.check,
            "overflow_lag": self.overflow_lag,
            "complete": self.complete,
            "lags": self.lags.tolist(),
            "signal": self.signal.tolist(),
        }
        for curve in _CURVES:
            found[curve] = {name: a.tolist() for name, a in getattr(self, curve).items()}
        if self.standard_error is not None:
            found["standard_error"] = {
                curve: {name: a.tolist() for name, a in of.items()}
                for curve, of in self.standard_error.items()
            }
        return found

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_dict` to a JSON file; replaces a file of that name."""
        text = json.dumps(self.to_dict(), indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def plot(self, of: str = "params") -> Figure:
        """A figure of norm, error and share over the lag, with the horizon of 5 % marked.

        Needs matplotlib (``pip install 'bptt[demo]'``).
        """
        from .plots import lag_curves  # matplotlib is slow to import, and may not be there

        return lag_curves(self, choice("of", of, self.error))

    def draw(
        self,
        axes: Axes,
        curve: str = "error",
        of: str = "params",
        *,
        tolerance: float = 0.05,
        **style: Any,
    ) -> None:
        """Draw a curve into the axes of a figure of your own.

        Parameters
        ----------
        axes : matplotlib Axes
        curve : {"norm", "error", "cosine", "share"}
            A share is summed up to each lag. On error and share the horizon is marked.
        of, tolerance
            As in `horizon`.
        **style
            For ``Axes.plot``, such as a label and a color.
        """
        from .plots import draw_curve

        choice("curve", curve, _CURVES)
        draw_curve(axes, self, curve, choice("of", of, self.error), tolerance, style)

    def draw_signal(self, axes: Axes, **style: Any) -> QuadMesh:
        """Draw a heat map of ``||delta||`` over the step t of the loss, and the lag.

        It takes a loss at every step to fill it. `style` is for ``Axes.pcolormesh``; what is
        returned serves ``Figure.colorbar``.
        """
        from .plots import draw_signal

        return draw_signal(axes, self, style)

    def __repr__(self) -> str:
        shown = f"LagGradients({self.cell!r}, {len(self.lags)} lags"
        shown += "" if self.route is None else f", route={self.route!r}"
        reach = self.horizon() if len(self.lags) else None
        return f"{shown}, horizon={reach}, half_life={self.half_life():.3g})"
