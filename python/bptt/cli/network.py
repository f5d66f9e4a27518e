"""A network of a run, and what may be known of it: its training, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import bptt
from bptt.checks import Array


@dataclass
class Course:
    """The course of one training."""

    # For each step: mean loss of the minibatch; norm of the whole gradient before clipping.
    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    # Wall-clock time of the steps between two evaluations, without these.
    seconds: list[float] = field(default_factory=list)
    # After how many steps the held-out sequences were looked at, and what was found, by name.
    evaluated: list[int] = field(default_factory=list)
    held_out: dict[str, list[float]] = field(default_factory=dict)

    def add_evaluation(self, found: dict[str, float]) -> None:
        self.evaluated.append(len(self.loss))
        for name, value in found.items():
            self.held_out.setdefault(name, []).append(value)

    def recent_loss(self, steps: int) -> float:
        """Mean loss of the last `steps` steps; NaN before the first."""
        recent = self.loss[-steps:]
        return sum(recent) / len(recent) if recent else math.nan

    def recent_losses(self, steps: int) -> Array:
        """The same after each step."""
        sums = np.cumsum(np.insert(self.loss, 0, 0.0))
        end = np.arange(1, len(sums))
        start = np.maximum(end - steps, 0)
        return np.asarray((sums[end] - sums[start]) / (end - start))

    @property
    def steps(self) -> int:
        """How many were made."""
        return len(self.loss)

    @property
    def last(self) -> dict[str, float]:
        """What the last evaluation found."""
        return {name: values[-1] for name, values in self.held_out.items()}

    @property
    def median_seconds(self) -> float:
        """Of the steps between two evaluations; NaN before the second."""
        return float(np.median(self.seconds)) if self.seconds else math.nan


@dataclass(frozen=True, eq=False)
class Moment:
    """A network with a loss at the last of T steps; index d of a (T,) array is the distance t - k.

    The gate is the one on a gated cell's direct route from one state to the next, on which W_s has
    no part:

        c_t = f_t * c_{t-1} + i_t * g_t         dc_t/dc_{t-1} = f_t    (LSTM)
        S_t = (1 - z_t) * n_t + z_t * S_{t-1}   dS_t/dS_{t-1} = z_t    (GRU)
    """

    radius: float  # spectral radius of W_s, the largest of all gates
    gate: float | None  # mean over sequences, units and steps
    gate_product: float | None  # mean of the product over steps 2..T: what reaches S_1 this way
    # ||dL/dS_k|| of each sequence's own loss, by unit of state: median over the sequences, 10th
    # and 90th percentile; median of ||dL/dS_k|| / ||dL/dS_T||.
    state: Array
    state_low: Array
    state_high: Array
    relative: Array
    # Of dL/dW_s, L being the mean loss of the sequences: the Frobenius norm of the term of step k
    # (the last is zero: it multiplies S_0 = 0), the relative error of the sum of the terms up to a
    # distance, and the norm of the whole sum.
    w_hh: Array
    w_hh_error: Array
    w_hh_whole: float
    w_ho: float  # ||dL/dW_o||, a single term without a product
    check: float  # LagGradients.check, which is rounding if the measurement is right

    @property
    def far(self) -> float:
        """||dL/dS_1|| / ||dL/dS_T||"""
        return float(self.relative[-1])

    @property
    def oldest(self) -> float:
        """Norm of the term of step 2 in dL/dW_s; that of step 1 multiplies S_0 = 0."""
        return float(self.w_hh[-2])

    @property
    def oldest_over_nearest(self) -> float:
        """Norm of the term of step 2 over that of the last step."""
        return self.oldest / float(self.w_hh[0])

    @property
    def horizon(self) -> int:
        """Smallest distance at which dL/dW_s may be cut with an error of at most 5 %."""
        return int(np.argmax(self.w_hh_error <= 0.05))


@dataclass(eq=False, repr=False)
class Network:
    """A network, the sequences that it is measured on, and what was measured.

    From `params` on, it has the attributes that its run came to.
    """

    name: str  # of files, such as tanh-radius-0.8
    title: str  # for readers
    cell: str
    hidden_size: int
    steps: int  # T, the length of the sequences
    loss: str
    at: str | int = "last"
    radius: float | None = None  # the spectral radius that its W_s starts from
    learning_rate: float = math.nan
    compared: bool = False  # with others of equal size, start and data
    finished: bool = True  # False if Ctrl-C came before the end
    seconds: float = 0.0
    lengths: Array | None = None  # (B,) of the sequences, if they are not all of T steps

    params: bptt.Params = field(init=False)
    params_file: str = field(init=False)  # where the demo saved them, relative to its folder
    x: Array = field(init=False)  # (T, B, I)
    target: Array = field(init=False)
    course: Course = field(init=False)  # of its training
    monitor: bptt.LagMonitor = field(init=False)  # the horizon meanwhile

    # What the demo measures: before the first step of training (also with the loss read at other
    # steps), and after the last.
    before: Moment = field(init=False)
    by_loss_step: dict[str, Array] = field(init=False)
    after: Moment = field(init=False)

    # What `bptt lags` measures: the loss the network is for; that loss, read at every step of the
    # sequences; and of a gated cell the two routes.
    lags: bptt.LagGradients = field(init=False)
    every_step: bptt.LagGradients = field(init=False)
    direct: bptt.LagGradients = field(init=False)
    recurrent: bptt.LagGradients = field(init=False)
    lyapunov: bptt.LyapunovExponents = field(init=False)

    @property
    def gated(self) -> bool:
        return bptt.CELLS[self.cell].keeps is not None

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(array.size for array in self.params.arrays().values())

    @property
    def question(self) -> tuple[str, bptt.Params, Array, Array]:
        """Cell, parameters, x and target in float64: terms many decades apart are exact then."""
        target = self.target
        if target.dtype.kind == "f":  # not the ids of classes
            target = target.astype("float64")
        return (self.cell, self.params.astype("float64"), self.x.astype("float64"), target)

    @property
    def common_lag(self) -> int:
        """The largest lag that all sequences with a step have."""
        if self.lengths is None:
            return self.steps - 1
        return int(self.lengths[self.lengths > 0].min()) - 1

    @property
    def half_life(self) -> float:
        """Of the gradient at the state, over lags that all sequences have."""
        return self.lags.half_life(max_lag=self.common_lag)

    @property
    def checks(self) -> list[float]:
        """`LagGradients.check` of all that was measured."""
        parts = (p for p in vars(self).values() if isinstance(p, (Moment, bptt.LagGradients)))
        return [part.check for part in parts]

    def to_dict(self) -> dict[str, Any]:
        """What is known of it, without the arrays that this was computed from."""
        found = {**vars(self), "parameters": self.parameters}
        return {
            name: v for name, v in found.items() if name not in ("params", "x", "target", "lengths")
        }


def grouped(networks: Iterable[Network], by: str) -> dict[Any, list[Network]]:
    """The networks by an attribute such as ``cell``, in the order in which its values come."""
    found: dict[Any, list[Network]] = {}
    for network in networks:
        found.setdefault(getattr(network, by), []).append(network)
    return found
