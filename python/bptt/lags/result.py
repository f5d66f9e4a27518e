"""`LagGradients`: what `bptt.lag_gradients` returns."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files, memory
from ..checks import Array, choice, non_negative, size
from ..holdings import signal_nbytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

__all__ = ["LagGradients", "LagTerm"]

_CURVES = ("norm", "error", "cosine", "share")
# Fields that are the same in JSON.
_PLAIN = ("cell", "route", "steps", "loss", "step", "check", "overflow_lag", "complete")


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
        delta_k = dL_{k+lag}/dS_k at the steps `steps`, one array for each part of the state: of
        an LSTM the gradients with respect to h and to c. (L, n, B, H) of a stack of L layers.
    steps : slice
        The steps k at which `dstates` are; it is zero elsewhere.
    """

    lag: int
    params: dict[str, Array]
    dstates: tuple[Array, ...]
    steps: slice


@dataclass(frozen=True, eq=False)
class LagGradients:
    """The gradient of a recurrent layer, or of a stack of layers, resolved by lag.

    A curve is a dictionary of (N,) arrays, one entry for each of `lags`. Its keys are the
    parameters of the layer (``"w_ih"``, ``"w_hh"``, ``"b_ih"``, ``"b_hh"``, those that are
    present); ``"params"``, all of them as one vector; and ``"state"``, the gradient delta with
    respect to the states S_k of all steps and sequences, as one vector. Of an LSTM delta has a part
    for h and one for c, as independent coordinates.

    Of a stack the parameters are ``"layers[0].w_ih"`` and so on, "params" and "state" are those of
    all layers, and those of one are ``"layers[0]"`` and ``"layers[0].state"``.

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
        that is cut beyond this lag, and 0 at the last lag there is. Errors of a few eps of the
        dtype are rounding. If the total is zero: 0 where nothing is cut, else inf.
    cosine : dict of (N,)
        Of the angle between the sum of the terms up to this lag and the total; 1 if both are zero,
        and 0 if only one of them is, or is no more than rounding beside the other.
    share : dict of (N,)
        ``<term, total> / ||total||^2``: what the term adds along the total. Over all lags the
        shares sum to 1. 0 if the total is zero.
    total : dict of arrays
        The sum over all lags, also those that are not in `lags`. Without `route` it is the gradient
        that `bptt.value_and_grad` returns, with those of the readout.
    loss : float or None
        None if `dy` was given.
    steps : int
        T; of sequences of several lengths the steps up to the last one with a loss.
    step : int or None
        The step at which the loss is read, if it is a single one and all sequences have it.
    check : float
        ``||sum of the terms - total|| / ||total||``, all parameters of the layer as one vector: the
        accuracy that was reached. It is rounding, of the order of the dtype's eps (float32 1e-7,
        float64 1e-16), and larger by as much as the terms cancel each other in the total; inf if
        the total is zero and the sum is not. Where not all lags were computed, the sum is that of
        one pass with the delta of all of them.
    overflow_lag : int or None
        The first lag whose term is not finite; the curves end before it. The total overflows as
        well then, so `error`, `cosine`, `share` and `check` are nan.
    complete : bool
        False if Ctrl-C ended the work: the curves have the lags that were done.
    standard_error : dict of dict of (N,), or None
        With `sample`: that of norm, error, cosine and share, by curve and key, estimated by the
        jackknife over groups of sequences.
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
        """(N, T), the norm over the batch of delta_k, for each lag and each step k.

        Raises
        ------
        MemoryError
            If it does not fit the memory: of a loss at one step only one number in each row is
            not zero, and the array is made here.
        """
        if self.every_signal is not None or self.step is None:
            return np.empty((0, self.steps)) if self.every_signal is None else self.every_signal
        needed = signal_nbytes(len(self.lags), self.steps)
        memory.require_memory(needed, f"the signal of {len(self.lags)} lags")
        signal = np.zeros((len(self.lags), self.steps))
        signal[np.arange(len(self.lags)), self.step - self.lags] = self.norm["state"]
        return signal

    def horizon(self, tolerance: float = 0.05, of: str = "params") -> int | None:
        """The smallest of `lags` with ``error[of] <= tolerance``; None if there is none.

        By default the lag beyond which the gradient of all parameters, as one vector, may be cut
        with an error of at most 5 %.

        Parameters
        ----------
        tolerance : float
            Of the relative error, at least 0.
        of : str
            A key of `error`: a parameter, "params" or "state"; "layers[0]", ... of a stack.

        Raises
        ------
        TypeError, ValueError
            If `tolerance` is negative or no number, or `of` is no key.
        """
        limit = non_negative("tolerance", tolerance)
        error = self.error[choice("of", of, self.error)]
        near = np.flatnonzero(error <= limit)
        return int(self.lags[near[0]]) if near.size else None

    def half_life(self, of: str = "state", max_lag: int | None = None) -> float:
        """The number of lags over which ``norm[of]`` halves, in the mean; inf if it does not fall.

        From the slope of a straight line that is fitted to log norm over lag by least squares.
        Norms of zero are left out; nan if fewer than two others are there.

        Parameters
        ----------
        of : str
            A key of `norm`.
        max_lag : int, optional
            The largest lag that counts. Of sequences of several lengths only the long ones have
            large lags, so the norm falls there, whatever a sequence does: those of all end at the
            length of the shortest - 1.

        Raises
        ------
        TypeError, ValueError
            If `of` is no key, or `max_lag` is negative or no integer.
        """
        norm = self.norm[choice("of", of, self.norm)]
        seen = norm > 0
        if max_lag is not None:
            seen &= self.lags <= size("max_lag", max_lag, least=0)
        if np.count_nonzero(seen) < 2:
            return math.nan
        slope = float(np.polyfit(self.lags[seen], np.log(norm[seen]), 1)[0])
        return -math.log(2) / slope if slope < 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """All but the terms and the total, as lists and numbers: for JSON."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        found["lags"], found["signal"] = self.lags.tolist(), self.signal.tolist()
        for curve in _CURVES:
            found[curve] = {name: a.tolist() for name, a in getattr(self, curve).items()}
        if self.standard_error is not None:
            found["standard_error"] = {
                curve: {name: a.tolist() for name, a in of.items()}
                for curve, of in self.standard_error.items()
            }
        return found

    def save(self, path: files.StrPath) -> None:
        """Write `to_dict` to a JSON file, which `load` reads.

        The file appears at `path` only when it is complete, in the place of an older one of that
        name. A symbolic link stays one, and what it leads to is replaced.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        files.write(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: files.StrPath) -> LagGradients:
        """Read what `save` wrote: all but the terms, and the total, which is an empty dictionary.

        Raises
        ------
        ValueError
            If the file is not what `save` wrote.
        OSError
            If there is no such file, or it cannot be read.
        """
        text = files.read_text(path)
        try:
            return cls(**_read(json.loads(text)), total={})
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(
                f"path: {os.fspath(path)!r} is not what LagGradients.save wrote: {reason}"
            ) from None

    def plot(self, of: str = "params") -> Figure:
        """A figure of norm, error and share over the lag, with the horizon of 5 % marked.

        Needs matplotlib (``pip install matplotlib``).
        """
        from .plots import lag_curves  # matplotlib is slow to import, and may not be there

        choice("of", of, self.error)
        curves = {curve: getattr(self, curve)[of] for curve in _CURVES}
        return lag_curves(self.cell, of, self.lags, curves, self.horizon(0.05, of))

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
            Of share, the sum up to each lag is drawn. On error and share the horizon is marked by
            a ring and a dotted line.
        of, tolerance
            As in `horizon`.
        **style
            For ``Axes.plot``, such as a label and a color.
        """
        from .plots import draw_curve

        values = getattr(self, choice("curve", curve, _CURVES))[choice("of", of, self.error)]
        draw_curve(axes, curve, self.lags, values, self.horizon(tolerance, of), style)

    def draw_signal(self, axes: Axes, **style: Any) -> QuadMesh:
        """Draw a heat map of ``||delta||`` over the step t of the loss, and the lag.

        Only the columns of steps t that have a loss are filled. `style` is for
        ``Axes.pcolormesh``; what is returned can be given to ``Figure.colorbar``.
        """
        from .plots import draw_signal

        return draw_signal(axes, self.lags, self.signal, style)

    def __repr__(self) -> str:
        shown = f"LagGradients({self.cell!r}, {len(self.lags)} lags"
        shown += "" if self.route is None else f", route={self.route!r}"
        reach = self.horizon() if len(self.lags) else None
        return f"{shown}, horizon={reach}, half_life={self.half_life():.3g})"


def _read(found: Any) -> dict[str, Any]:
    """The fields in what `LagGradients.to_dict` gave, but for the total."""
    if not isinstance(found, dict):
        raise TypeError(f"expected a dictionary, got {type(found).__name__}")
    fields = {name: found[name] for name in _PLAIN}
    lags = fields["lags"] = np.array(found["lags"], np.int64)
    fields |= {curve: _read_curve(found, curve, lags) for curve in _CURVES}
    errors = found.get("standard_error")
    if errors is not None:
        fields["standard_error"] = {name: _read_curve(errors, name, lags) for name in _CURVES}
    if found["step"] is None and len(lags):
        signal = np.array(found["signal"], np.float64)
        fields["every_signal"] = signal.reshape(len(lags), found["steps"])
    return fields


def _read_curve(found: dict[str, Any], curve: str, lags: Array) -> dict[str, Array]:
    arrays = {name: np.array(values, np.float64) for name, values in found[curve].items()}
    for name, array in arrays.items():
        if array.shape != lags.shape:
            raise ValueError(f"{curve} of {name!r} has shape {array.shape}, lags {lags.shape}")
    return arrays
