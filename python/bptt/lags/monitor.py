"""`LagMonitor`: how far back the gradient reaches, followed in training at a bounded cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..cells import Cell
from ..checks import Array
from ..params import Params
from ..stack import Layers
from .options import Plan, Training, expect_options, shows
from .probe import Probe
from .question import Question
from .record import LagRecord
from .result import LagGradients

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

__all__ = ["LagMonitor"]

_LAGS_PER_DOUBLING = 8


class LagMonitor(Probe):
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
        drawn; pieces that a `reset` cuts count as sequences.
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

    _growth = 1.5

    @shows(Plan, Probe)
    def __init__(
        self,
        *,
        tolerance: float = 0.05,
        max_lag: int | None = None,
        lags: Iterable[int] | None = None,
        every: int | None = None,
        **plan: Unpack[Plan],
    ) -> None:
        expect_options("LagMonitor", plan, Plan)
        super().__init__(every=every, **plan)
        if lags is not None and max_lag is not None:
            raise ValueError("lags: expected either lags or max_lag, got both")
        self.tolerance = checks.non_negative("tolerance", tolerance)
        self.history: list[LagRecord] = []
        self._max_lag = None if max_lag is None else checks.size("max_lag", max_lag, least=0)
        self._lags = None if lags is None else tuple(checks.rising("lags", lags, 0, None, ""))

    @shows(Training, Question)
    def step(
        self,
        cell: str | Cell,
        params: Params | Layers,
        x: Array,
        target: Array | None = None,
        **training: Unpack[Training],
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
        expect_options("LagMonitor", training, Training)
        return self.step_if_due(
            lambda: {"cell": cell, "params": params, "x": x, "target": target, **training}
        )

    def step_if_due(self, arguments: Callable[[], Mapping[str, Any]]) -> LagGradients | None:
        """`step` where its arguments take time to make: `arguments` returns them by their names,
        and is called if a measurement is due."""
        found = self._step(lambda: Question(**arguments()))
        if found is not None:
            self._record(found)
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

        return horizon_in_training(self.history, self.steps, self.tolerance)

    def draw(self, axes: Axes, **style: Any) -> None:
        """Draw the horizon over the steps of training into the axes of a figure of your own.

        `style` is for ``Axes.plot``.
        """
        from .plots import draw_horizon

        draw_horizon(axes, self.history, self.steps, style)

    def _narrowed(self, question: Question) -> Question:
        if self._lags is not None:
            return replace(question, lags=self._lags)
        last = question.reach - 1
        if self._max_lag is not None:
            last = min(last, self._max_lag)
        lags = _spaced(last) if question.step is None else range(last + 1)
        return replace(question, lags=lags)

    def _record(self, found: LagGradients) -> None:
        cost = self._schedule.last
        assert cost is not None
        self.history.append(
            LagRecord(
                cost.step,
                found.horizon(self.tolerance),
                found.half_life(),
                found.lags,
                found.norm["params"],
                found.error["params"],
                cost.seconds,
            )
        )

    def __repr__(self) -> str:
        last = self.history[-1].horizon if self.history else None
        return f"LagMonitor({self.steps} steps, {len(self.history)} measured, horizon={last})"


def _spaced(last: int) -> tuple[int, ...]:
    """Lags 0 to `last`, about eight to each doubling."""
    count = 1 + math.ceil(_LAGS_PER_DOUBLING * math.log2(last + 1)) if last > 0 else 1
    found = np.unique(np.rint(np.geomspace(1, last + 1, count)).astype(int) - 1)
    return tuple(found.tolist())
