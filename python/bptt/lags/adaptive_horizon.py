"""`AdaptiveHorizon`: how many lags a truncated gradient needs for a wanted relative bias.

With g_lag the term of a lag and g their sum, cutting all lags beyond K leaves a relative bias of

    ||sum_{lag > K} g_lag|| / ||g||  <=  E(K) / ||g||        E(K) = sum_{lag > K} ||g_lag||

(Aicher, Foti and Fox 2019, arXiv 1905.07473). Norms are measured up to some lag R. Beyond it they
are taken to fall as they did before, ||g_{R+i}|| = ||g_R|| beta^i, the paper's assumption of
geometric decay. The paper bounds ||g_lag|| and ||g|| in turn, from ||dL_t/dS_{t-lag}||; here both
are measured, since `lag_gradients` has them.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from .. import checks
from ..cells import Cell
from ..checks import Array
from ..losses import At
from ..params import Params, Seed
from ..states import GivenState
from .gradients import lag_gradients
from .result import LagGradients

__all__ = ["AdaptiveHorizon"]


class AdaptiveHorizon:
    """Chooses K of ``truncate=K`` during training, for a wanted relative bias of the gradient.

    Parameters
    ----------
    tolerance : float
        The relative bias that is accepted, ``||g - g_K|| / ||g||`` of all parameters of the layer
        as one vector; above 0.
    every : int
        Measure once in so many calls of `update`; more often at the start, where a network changes
        fast: a quarter of the calls so far lies between two measurements, until that is `every`.
    memory : int
        Take the largest K of so many measurements, the last ones.
    margin : float
        Measure K for ``tolerance / margin``: the gradient of the next sequences may be smaller
        than that of those measured, and what is cut off larger. At least 1. Where gradients fade
        geometrically, it costs a few lags.
    max_lag : int, optional
        The largest lag that is measured; what lies beyond is extrapolated. All are, if not given:
        cheap for a loss at one step, but a pass for each lag else.

    Attributes
    ----------
    K : int or None
        For ``truncate=``. None before the first measurement: nothing is cut then.
    bias : float or None
        The bound on the relative bias at K, by the last measurement.
    lags : LagGradients or None
        The last measurement.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or not in its range.

    Notes
    -----
    The bound holds on the sequences that were measured. On others, and for the parameters of later
    steps, it is an estimate; docs/truncation.md tells how often it was kept.

    Examples
    --------
    >>> import bptt, numpy as np
    >>> params = bptt.init_params("tanh", input_size=1, hidden_size=8, output_size=1, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((200, 4, 1)).astype("float32")
    >>> horizon = bptt.AdaptiveHorizon(0.1)
    >>> for step in range(3):
    ...     K = horizon.update("tanh", params, x, x[-2], loss="squared_error", at="last")
    ...     loss, grads = bptt.value_and_grad(
    ...         "tanh", params, x, x[-2], loss="squared_error", at="last", truncate=K
    ...     )
    >>> 0 <= horizon.K < 100 and horizon.bias <= 0.1
    True
    """

    def __init__(
        self,
        tolerance: float,
        *,
        every: int = 50,
        memory: int = 10,
        margin: float = 3.0,
        max_lag: int | None = None,
    ) -> None:
        self.tolerance = checks.finite("tolerance", tolerance)
        if self.tolerance <= 0:
            raise ValueError(f"tolerance: expected a number above 0, got {tolerance!r}")
        self.margin = checks.finite("margin", margin)
        if self.margin < 1:
            raise ValueError(f"margin: expected a number of at least 1, got {margin!r}")
        self.every = checks.size("every", every)
        self.max_lag = None if max_lag is None else checks.size("max_lag", max_lag)
        self.K: int | None = None
        self.bias: float | None = None
        self.lags: LagGradients | None = None
        self._recent: deque[int] = deque(maxlen=checks.size("memory", memory))
        self._calls = self._next = 0

    def update(
        self,
        cell: str | Cell,
        params: Params,
        x: Array,
        target: Array | None = None,
        *,
        dy: Array | None = None,
        loss: str | None = None,
        at: At = "all",
        reduction: str = "mean",
        state: GivenState | None = None,
        backend: str = "auto",
        sample: int | None = None,
        rng: Seed = 0,
    ) -> int | None:
        """Measure if it is time to, and return K.

        Parameters
        ----------
        cell, params, x, target, dy, loss, at, reduction, state, backend, sample, rng
            As in `lag_gradients`: what is to be trained on, or ``sample=`` some of its sequences.

        Raises
        ------
        TypeError, ValueError
            As `lag_gradients` does.
        """
        if self._calls == self._next:
            reach = _reach(x, at)
            last = None if self.max_lag is None else min(self.max_lag, reach - 1)
            lags = lag_gradients(
                cell,
                params,
                x,
                target,
                dy=dy,
                loss=loss,
                at=at,
                reduction=reduction,
                state=state,
                backend=backend,
                max_lag=last,
                sample=sample,
                rng=rng,
            )
            self._choose(lags, reach)
            self._next += min(self.every, max(1, self._calls // 4))
        self._calls += 1
        return self.K

    def _choose(self, lags: LagGradients, reach: int) -> None:
        self.lags = lags
        bound = bias_bound(lags, reach)
        self._recent.append(int(np.argmax(bound <= self.tolerance / self.margin)))
        self.K = max(self._recent)
        self.bias = float(bound[min(self.K, reach - 1)])

    def __repr__(self) -> str:
        return f"AdaptiveHorizon({self.tolerance}, K={self.K}, bias={self.bias})"


def bias_bound(lags: LagGradients, reach: int) -> Array:
    """E(K) / ||g|| for each K below `reach`, the number of lags that there are; the last is 0."""
    norm = lags.norm["params"]
    measured = len(norm)
    if not measured:  # the first of them is not finite
        return np.append(np.full(reach - 1, np.inf), 0.0)
    if measured < reach:
        further = np.arange(1, reach - measured + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            norm = np.concatenate([norm, norm[-1] * _decay(norm) ** further])
    layer = [name for name in lags.norm if name not in ("params", "state")]
    total = np.sqrt(sum(np.sum(np.square(lags.total[name], dtype=float)) for name in layer))
    rest = np.append(np.cumsum(norm[:0:-1])[::-1], 0.0)
    bound: Array = np.divide(rest, total, out=np.where(rest > 0, np.inf, 0.0), where=total > 0)
    return bound


def _decay(norm: Array) -> float:
    """beta, by which norms fall from lag to lag: the slowest mean rate down to the last of them.

    Over its last half, and at least a quarter, that they have passed the first few lags.
    """
    last = len(norm) - 1
    if norm[last] == 0 or last < 1:
        return 0.0 if norm[last] == 0 else 1.0
    before = np.arange(last // 2, max(last * 3 // 4, last // 2 + 1))
    return float(np.max((norm[last] / norm[before]) ** (1 / (last - before))))


def _reach(x: Array, at: Any) -> int:
    """How many lags a loss has: the steps up to the last one at which it is read."""
    steps = len(np.atleast_1d(checks.as_array("x", x)))
    if steps and isinstance(at, (int, np.integer)):
        return int(at) % steps + 1
    return max(steps, 1)
