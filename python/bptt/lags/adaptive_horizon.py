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
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..cells import Cell
from ..checks import Array
from ..params import Params
from ..stack import Layers
from .options import Loss, Plan, expect_options, shows
from .probe import Probe
from .question import Question
from .result import LagGradients

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AdaptiveHorizon"]


class AdaptiveHorizon(Probe):
    """Chooses K of ``truncate=K`` during training, for a wanted relative bias of the gradient.

    Parameters
    ----------
    tolerance : float
        The relative bias that is accepted, ``||g - g_K|| / ||g||`` of all parameters of the layer
        as one vector; above 0.
    every : int or None
        Measure once in so many calls of `update`; more often at the start, where a network changes
        fast: a quarter of the calls so far lies between two measurements, until that is `every`.
        With None, measurements keep to `budget` instead, as those of `LagMonitor` do.
    budget, sample, backend, rng, clock
        As in `LagMonitor`.
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
    steps : int
        Calls of `update` so far.
    overhead : float
        The time within them over the time between them.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or not in its range.

    Notes
    -----
    The bound holds on the sequences that were measured. On others, and for the parameters of later
    steps, it is an estimate; docs/truncation.md tells how often it was kept.

    With `every`, a training can be repeated to the bit. Within a budget (``every=None``), the steps
    that are measured depend on how long things take, and with them K and the training.

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

    # K cuts the gradients of all steps up to the next measurement. In trainings that begin fast,
    # the bias kept the tolerance in 98 to 100 % of the steps with 1.25, in 93 to 97 % with 1.5.
    _growth = 1.25
    _gradual = True

    @shows(Plan, Probe)
    def __init__(
        self,
        tolerance: float,
        *,
        memory: int = 10,
        margin: float = 3.0,
        max_lag: int | None = None,
        every: int | None = 50,
        **plan: Unpack[Plan],
    ) -> None:
        expect_options("AdaptiveHorizon", plan, Plan)
        super().__init__(every=every, **plan)
        self.tolerance = checks.finite("tolerance", tolerance)
        if self.tolerance <= 0:
            raise ValueError(f"tolerance: expected a number above 0, got {tolerance!r}")
        self.margin = checks.finite("margin", margin)
        if self.margin < 1:
            raise ValueError(f"margin: expected a number of at least 1, got {margin!r}")
        self.max_lag = None if max_lag is None else checks.size("max_lag", max_lag)
        self.K: int | None = None
        self.bias: float | None = None
        self.lags: LagGradients | None = None
        self._recent: deque[int] = deque(maxlen=checks.size("memory", memory))

    @shows(Loss, Question)
    def update(
        self,
        cell: str | Cell,
        params: Params | Layers,
        x: Array,
        target: Array | None = None,
        **loss: Unpack[Loss],
    ) -> int | None:
        """Measure if it is time to, and return K.

        Its arguments are those of `lag_gradients`: what is to be trained on.

        Raises
        ------
        TypeError, ValueError
            As `lag_gradients`, when it measures.
        KeyboardInterrupt
            Of a Ctrl-C while it measures; that measurement is lost.
        """
        expect_options("AdaptiveHorizon", loss, Loss)
        found = self._step(lambda: Question(cell, params, x, target, **loss))
        if found is not None:
            self._choose(found, found.steps if found.step is None else found.step + 1)
        return self.K

    def _narrowed(self, question: Question) -> Question:
        if self.max_lag is None:
            return question
        return replace(question, max_lag=min(self.max_lag, question.reach - 1))

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
    layers = [g for name, g in lags.total.items() if name in lags.norm]  # without the readout
    total = np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in layers))
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
