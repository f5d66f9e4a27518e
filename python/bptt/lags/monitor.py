"""`LagMonitor`: how far back the gradient reaches, followed in training at a bounded cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..backends import REGISTRY
from ..cells import Cell
from ..checks import Array
from ..losses import At
from ..params import Params, Seed, generator_of
from ..states import GivenState
from .gradients import lag_gradients
from .result import LagGradients

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LagMonitor", "LagRecord"]

# Without `every`: at most once in so large a part of the steps so far, so that the history of a
# training of any length stays small.
_SPACING = 1 / 500
_LAGS_PER_DOUBLING = 8
_CAUTION = 2  # how much longer than before a measurement may take on a busy machine
# Beyond the budget, in seconds, for measurements whose steps grow by this factor from one to the
# next: a short training has a curve as well, and a long one does not notice.
_ALLOWANCE = 1.0
_GROWTH = 1.5


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


class LagMonitor:
    """Follow the horizon of a network's gradient while it is trained.

    `step` is called once for each step of training, with what that step trains on. It measures
    when a measurement is due, by `lag_gradients`, and returns at once when none is.

    What it costs: at most the part `budget` of the time between the calls, 3 % by default, and one
    second beyond that (or the first measurement, if that alone takes longer). Both times are
    measured. The first call always measures, since the untrained network is what all others are
    compared with. The extra second is spent early, so that a network that trains within seconds
    gets a curve as well: on measurements at steps that grow by a factor of 1.5 (0, 1, 2, 3, 5, 8,
    12, ...), and none before training has taken as long again as the last one. All others come when
    the budget has room for one that takes twice as long as the last, and the last is paid for.

    Parameters
    ----------
    every : int, optional
        Measure at every so many steps instead, at whatever cost.
    budget : float
        The part of the training time that may be spent, beside the second at the start; not used
        with `every`.
    tolerance : float
        Of the horizon: the relative error of the gradient that is cut beyond it.
    sample : int, optional
        Measure on so many sequences of the batch, or on all if it has fewer, drawn anew each time;
        on all if not given. Fewer cost less, and so there are more measurements within the budget,
        but the gradient of few sequences scatters more. Sequences whose weights are all 0 are not
        drawn.
    max_lag : int, optional
        The largest lag that is computed; all up to the first step if not given, or if the sequence
        is shorter.
    lags : iterable of int, optional
        The lags that are computed, in place of `max_lag`. If not given: for a loss at one step all
        of them, since one sweep yields them together; for a loss at many steps, where each lag
        takes a pass of its own, about eight between each lag and its double.
    backend : str
        As in `value_and_grad`.
    rng : seed or Generator
        For `sample`.
    clock : callable
        Gives the time in seconds.

    Attributes
    ----------
    history : list of LagRecord
        What was measured.
    steps : int
        Calls of `step` so far.

    Examples
    --------
    >>> import bptt, numpy as np
    >>> params = bptt.init_params("gru", input_size=2, hidden_size=8, output_size=3, rng=0)
    >>> monitor = bptt.LagMonitor()
    >>> x, ids = np.ones((50, 4, 2), "float32"), np.array([0, 1, 2, 0])
    >>> for step in range(10):
    ...     found = monitor.step("gru", params, x, ids, loss="cross_entropy", at="last")
    ...     # ... and the step of training
    >>> monitor.history[0].step
    0
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        budget: float = 0.03,
        tolerance: float = 0.05,
        sample: int | None = None,
        max_lag: int | None = None,
        lags: Iterable[int] | None = None,
        backend: str = "auto",
        rng: Seed = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if lags is not None and max_lag is not None:
            raise ValueError("lags: expected either lags or max_lag, got both")
        self.every = None if every is None else checks.size("every", every)
        self.budget = _positive("budget", budget)
        self.tolerance = checks.non_negative("tolerance", tolerance)
        self.history: list[LagRecord] = []
        self.steps = 0
        self._sample = None if sample is None else checks.size("sample", sample)
        self._max_lag = None if max_lag is None else checks.size("max_lag", max_lag, least=0)
        self._lags = None
        if lags is not None:
            self._lags = tuple(checks.rising("lags", lags, 0, None, ""))
        checks.choice("backend", backend, ("auto", *REGISTRY))
        if not callable(clock):
            raise TypeError(f"clock: expected a function, got {type(clock).__name__}")
        self._backend, self._rng, self._clock = backend, generator_of(rng), clock
        self._spent = self._training = 0.0
        self._measured_at = 0.0  # of the training time, the last time
        self._left: float | None = None  # when the last call returned

    @property
    def overhead(self) -> float:
        """Time spent here over the time between the calls; nan before the second call."""
        return self._spent / self._training if self._training else math.nan

    def step(
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
    ) -> LagGradients | None:
        """One step of training; its arguments are those of `lag_gradients`.

        Returns
        -------
        LagGradients or None
            What was measured; None if no measurement was due.

        Raises
        ------
        TypeError, ValueError
            As `lag_gradients`, when it measures.
        KeyboardInterrupt
            Of a Ctrl-C while it measures; that measurement is lost.
        """
        x = checks.as_array("x", x)
        entered = self._clock()
        if self._left is not None:
            self._training += entered - self._left
        found = None
        try:
            if self._due():
                asked = {"target": target, "dy": dy, "at": at, "state": state}
                rest = {"loss": loss, "reduction": reduction, "lags": self._lags_of(len(x), at)}
                found = self._measure(cell, params, **self._drawn({"x": x, **asked}), **rest)
        finally:
            self._left = self._clock()
            self._spent += self._left - entered
        if found is not None:
            self._record(found, self._left - entered)
        self.steps += 1
        return found

    def to_dict(self) -> dict[str, Any]:
        """The settings and the history, as lists and numbers: for JSON."""
        rows = [asdict(record) for record in self.history]
        return {
            "every": self.every,
            "budget": self.budget,
            "tolerance": self.tolerance,
            "steps": self.steps,
            "overhead": self.overhead,
            "history": [
                {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}
                for row in rows
            ],
        }

    def plot(self) -> Figure:
        """A figure of the horizon over the steps of training, on a heat map of the error by lag.

        A column of the heat map is a measurement, drawn over all steps to which it is the nearest
        one. There is no heat map if not all measurements were of the same lags.

        Needs matplotlib (``pip install matplotlib``).
        """
        from .plots import horizon_in_training  # matplotlib is slow to import

        return horizon_in_training(self)

    def draw(self, axes: Axes, **style: Any) -> None:
        """Draw the horizon over the steps of training into the axes of a figure of your own.

        `style` is for ``Axes.plot``.
        """
        from .plots import draw_horizon

        draw_horizon(axes, self, style)

    def _due(self) -> bool:
        if not self.history:
            return True
        since = self.steps - self.history[-1].step
        if self.every is not None:
            return since >= self.every
        return self._early(since) or self._within_budget(since)

    def _early(self, since: int) -> bool:
        """Whether the steps have grown enough, and the allowance has room for one more."""
        last = self.history[-1]
        grown = since >= max(1.0, (_GROWTH - 1) * last.step)
        trained = self._training - self._measured_at >= last.seconds
        affordable = self._spent + last.seconds <= _ALLOWANCE + self.budget * self._training
        return grown and trained and affordable

    def _within_budget(self, since: int) -> bool:
        last = self.history[-1].seconds
        paid_for = last <= self.budget * (self._training - self._measured_at)
        # The first one takes longer than those that follow, and says little of them.
        expected = _CAUTION * last if len(self.history) > 1 else 0.0
        affordable = self._spent + expected <= self.budget * self._training
        return paid_for and affordable and since >= _SPACING * self.steps

    def _lags_of(self, steps: int, at: At) -> tuple[int, ...]:
        if self._lags is not None:
            return self._lags
        step = at if isinstance(at, (int, np.integer)) else steps - 1
        last = step % steps if steps else -1
        if self._max_lag is not None:
            last = min(last, self._max_lag)
        return tuple(range(last + 1)) if _one_step(at) else _spaced(last)

    def _drawn(self, given: dict[str, Any]) -> dict[str, Any]:
        """`given`, x (T, B, I) and what goes with it, of the sequences that are measured."""
        batch = given["x"].shape[1:2]
        if self._sample is None or not batch or batch[0] <= self._sample:
            return given
        rows = _with_a_loss(given["at"], batch[0])
        if len(rows) > self._sample:
            rows = np.sort(self._rng.choice(rows, self._sample, replace=False))

        def of_rows(name: str, value: Any, axis: int) -> Any:
            if value is None:
                return None
            array = checks.as_array(name, value)
            if array.shape[axis : axis + 1] != batch:
                where = f"{batch[0]} sequences along axis {axis}, as x has them"
                raise ValueError(f"{name}: expected {where}, got shape {array.shape}")
            return np.take(array, rows, axis)

        at, state = given["at"], given["state"]
        parts = isinstance(state, (tuple, list))
        return {
            "x": of_rows("x", given["x"], 1),
            "target": of_rows("target", given["target"], 0 if _one_step(at) else 1),
            "dy": of_rows("dy", given["dy"], 1),
            "at": at if _one_step(at) or isinstance(at, str) else of_rows("at", at, 1),
            "state": tuple(of_rows("state", s, 0) for s in state)
            if parts
            else of_rows("state", state, 0),
        }

    def _measure(self, cell: str | Cell, params: Params, **asked: Any) -> LagGradients:
        with warnings.catch_warnings():
            # Of a term that overflows, and of Ctrl-C: the result says both.
            warnings.simplefilter("ignore", RuntimeWarning)
            found = lag_gradients(cell, params, backend=self._backend, **asked)
        if not found.complete:
            raise KeyboardInterrupt  # the training is to stop, not this measurement alone
        return found

    def _record(self, found: LagGradients, seconds: float) -> None:
        self._measured_at = self._training
        self.history.append(
            LagRecord(
                self.steps,
                found.horizon(self.tolerance),
                found.half_life(),
                found.lags,
                found.norm["params"],
                found.error["params"],
                seconds,
            )
        )

    def __repr__(self) -> str:
        last = self.history[-1].horizon if self.history else None
        return f"LagMonitor({self.steps} steps, {len(self.history)} measured, horizon={last})"


def _with_a_loss(at: At, batch: int) -> Array:
    """The sequences of a batch that have a loss: not those of weight 0 throughout."""
    every = np.arange(batch)
    if _one_step(at) or isinstance(at, str):
        return every
    weights = checks.as_array("at", at)
    if weights.ndim != 2 or weights.shape[1] != batch or not weights.any():
        return every  # the error is `lag_gradients`'s
    return np.flatnonzero(weights.any(axis=0))


def _one_step(at: At) -> bool:
    return isinstance(at, (int, np.integer)) or (isinstance(at, str) and at == "last")


def _spaced(last: int) -> tuple[int, ...]:
    """Lags 0 to `last`, about eight to each doubling."""
    count = 1 + math.ceil(_LAGS_PER_DOUBLING * math.log2(last + 1)) if last > 0 else 1
    found = np.unique(np.rint(np.geomspace(1, last + 1, count)).astype(int) - 1)
    return tuple(found.tolist())


def _positive(name: str, value: object) -> float:
    number = checks.finite(name, value)
    if number <= 0:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return number
