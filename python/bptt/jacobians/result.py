"""`JacobianNorms` and `LyapunovExponents`: what the functions of these modules return."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..checks import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["JacobianNorms", "LyapunovExponents"]


@dataclass(frozen=True, eq=False)
class JacobianNorms:
    """The spectral norm of ``prod_j dS_j/dS_{j-1}`` over the distance.

    Attributes
    ----------
    cell : str
    at : int
        The step t that the products end at.
    distances : (D,) int
        In steps, from t back.
    norm : (D, B)
        Of dS_t/dS_{t-distance}, of each sequence.
    residual : (D, B)
        Relative to the norm: a singular value lies within this distance of it.
    """

    cell: str
    at: int
    distances: Array
    norm: Array
    residual: Array = field(repr=False)

    def plot(self) -> Figure:
        """A figure of the norm over the distance: the median of the sequences, and their range.

        Needs matplotlib (``pip install matplotlib``).
        """
        from .plots import norms_by_distance  # matplotlib is slow to import, and may not be there

        return norms_by_distance(self.cell, self.distances, self.norm)

    def __repr__(self) -> str:
        count, batch = self.norm.shape
        return f"JacobianNorms({self.cell!r}, at={self.at}, {count} distances, {batch} sequences)"


@dataclass(frozen=True, eq=False)
class LyapunovExponents:
    """Lyapunov exponents in nats a step, the largest first.

    Attributes
    ----------
    cell : str
    size : int
        How many exponents there are: the numbers in a state, H, or 2 H for an LSTM.
    exponents : (k,)
        The mean over sequences.
    standard_error : (k,)
        Of that mean, from the spread between sequences; with fewer than ten of them, from that
        between so many spans of time of each that there are ten or more. nan if there is only one.
    steps : (M,) int
        Some steps of the pass, at most about 200 of them.
    running : (M, k)
        The exponents from the steps up to each of these; the last row is `exponents`.
    by_sequence : (B, k)
        Of each sequence by itself, in the order of `exponents`.
    complete : bool
        False if Ctrl-C ended the work.
    """

    cell: str
    size: int
    exponents: Array
    standard_error: Array
    steps: Array = field(repr=False)
    running: Array = field(repr=False)
    by_sequence: Array = field(repr=False)
    complete: bool = True

    @property
    def entropy_rate(self) -> float:
        """The sum of the positive exponents, in nats per step.

        For a network without input it is the rate at which it produces entropy (Pesin's formula),
        or an upper bound of it (Ruelle's inequality). Only the exponents that were computed count:
        choose `k` so large that the last one is negative.
        """
        return float(self.exponents[self.exponents > 0].sum())

    @property
    def dimension(self) -> float:
        """The Kaplan-Yorke dimension of the attractor.

        It is ``j + sum_{i<=j} lambda_i / |lambda_{j+1}|`` with the largest number j of exponents
        whose sum is not negative (Kaplan and Yorke 1979, Lect. Notes Math. 730). nan if finding it
        needs more exponents than were computed.
        """
        sums = np.cumsum(self.exponents)
        below = np.flatnonzero(sums < 0)
        if not below.size:
            return float(self.size) if len(sums) == self.size else math.nan
        j = int(below[0])
        return j + (float(sums[j - 1] / -self.exponents[j]) if j else 0.0)

    def plot(self) -> Figure:
        """A figure of the exponents by their rank, and of how some of them converged.

        Needs matplotlib (``pip install matplotlib``).
        """
        from .plots import spectrum  # matplotlib is slow to import, and may not be there

        return spectrum(
            self.cell,
            self.size,
            self.exponents,
            self.standard_error,
            self.steps,
            self.running,
        )

    def __repr__(self) -> str:
        first, error = self.exponents[0], self.standard_error[0]
        return (
            f"LyapunovExponents({self.cell!r}, {len(self.exponents)} of {self.size}, "
            f"largest={first:.4g} +- {error:.2g}, steps={self.steps[-1]})"
        )
