"""The terms of the gradient, lag by lag: one parallel pass for each lag, or one sweep for all.

With a loss at many steps, a lag takes one `Recorded.pull_back`. With a loss at one step, delta of a
lag lives at one step of time alone, and a single sweep back through time passes by all of them.

A gradient of a gated cell takes two routes from step to step: the direct one (f_t dc_t of an LSTM,
z_t dS_t of a GRU), which no weights lie on, and the recurrent one, what the whole has beyond that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..backends.protocol import Incoming, State, Trace
from ..checks import Array
from ..recorded import Named, Recorded
from .scalar import dot, squares_of

__all__ = ["ROUTES", "AtEveryStep", "AtOneStep", "Term", "Terms"]

ROUTES = ("direct", "recurrent")


@dataclass(frozen=True, eq=False)
class Term:
    """What one lag adds to the gradient. Arrays are valid until the next one is asked for.

    Attributes
    ----------
    lag : int
    params : dict
        Its part of each parameter's gradient.
    rest : dict
        What all larger lags add.
    steps : slice
        The steps k at which delta may differ from zero.
    dstates : tuple of (n, B, H)
        delta at these steps.
    rest_dstates : tuple of (m, B, H)
        The sum of delta of all larger lags, at the first m steps; zero at others.
    """

    lag: int
    params: Named
    rest: Named
    steps: slice
    dstates: State
    rest_dstates: State


class Terms(ABC):
    """All lags of one gradient: iterate to get the `Term` of each of `lags`, which are sorted.

    Once all lags there are have been asked for, `left` is what their terms leave of the total.
    """

    def __init__(self, recorded: Recorded, dy: Array, lags: Array, route: str | None) -> None:
        self.recorded, self._lags = recorded, lags
        self._chains: list[tuple[int, str]] = {
            None: [(1, "whole")],
            "direct": [(1, "direct")],
            "recurrent": [(1, "whole"), (-1, "direct")],
        }[route]
        self.dy = dy
        self.left: Named | None = None
        self.total, self.total_dstates = self._sweep()
        self.squares = squares_of(self.total)
        self.dstates_squares = [dot(d, d) for d in self.total_dstates]
        # Of what delta is multiplied by in the terms: x_k, S_{k-1} and one, of all steps.
        inputs = (recorded.x, recorded.y, recorded.initial[0])
        self.inputs_square = sum(dot(a, a) for a in inputs) + recorded.x[..., 0].size

    @abstractmethod
    def __iter__(self) -> Iterator[Term]: ...

    @abstractmethod
    def sum_of_all(self) -> Named:
        """The total once more, of the delta of all lags at once."""

    @abstractmethod
    def _trace(self) -> Trace:
        """What the sweeps are to leave behind."""

    @abstractmethod
    def _incoming(self) -> Incoming:
        """What comes into all states, and into the last one."""

    def _sweep(self) -> tuple[Named, State]:
        """The sum of all lags, of the parameters' gradients and of delta."""
        traces, totals = [], []
        for _, route in self._chains:
            traces.append(self._trace())
            totals.append(self.recorded.sweep(self._incoming(), traces[-1], route))
        deltas = [trace.deltas for trace in traces if trace.deltas is not None]
        self._deltas = self._sum(deltas) if deltas else None
        return self._named(totals), self._parts([trace.dstates for trace in traces])

    def _without(self, rest: Named, cut: State) -> Named:
        """`rest` after the last lag there is: nothing, and what rounding left is kept."""
        self.left = rest
        for d in cut:
            d[:] = 0
        return {name: np.zeros_like(g) for name, g in rest.items()}

    def _sum(self, of_chains: list[Array]) -> Array:
        total = of_chains[0]
        for (sign, _), array in list(zip(self._chains, of_chains, strict=True))[1:]:
            total = total + sign * array
        return total

    def _named(self, of_chains: list[Named]) -> Named:
        return {name: self._sum([found[name] for found in of_chains]) for name in of_chains[0]}

    def _parts(self, of_chains: list[State]) -> State:
        return tuple(self._sum(list(parts)) for parts in zip(*of_chains, strict=True))


class AtEveryStep(Terms):
    """For a loss at any number of steps."""

    def _trace(self) -> Trace:
        recorded = self.recorded
        return Trace(None, tuple(np.empty_like(a) for a in recorded.after))

    def _incoming(self) -> Incoming:
        return Incoming((self.dy, *(None for _ in self.recorded.after[1:])))

    def sum_of_all(self) -> Named:
        return self.recorded.pull_back(self.total_dstates, weights=True)[0]

    def __iter__(self) -> Iterator[Term]:
        wanted = {int(lag) for lag in self._lags}
        rest_dstates = tuple(d.copy() for d in self.total_dstates)
        rest = {name: g.copy() for name, g in self.total.items()}
        # Two sets of arrays for each chain: what is read, and what is written.
        after = self.recorded.after
        arrays = [[tuple(map(np.empty_like, after)) for _ in range(2)] for _ in self._chains]
        deltas = self._first_deltas([second for _, second in arrays])
        without_gap = True
        for lag in range(max(wanted, default=-1) + 1):
            dstates = self._parts(deltas)
            steps = slice(0, len(dstates[0]))
            for remaining, d in zip(rest_dstates, dstates, strict=True):
                remaining[steps] -= d
            without_gap &= lag in wanted
            into = [one[lag % 2] for one in arrays]
            if lag in wanted and not without_gap:
                rest = self.recorded.pull_back(rest_dstates, weights=True, into=into[0])[0]
            found, deltas = self._pull_back(deltas, lag in wanted, into)
            if lag not in wanted:
                continue
            term = self._named(found)
            if without_gap:
                for name, g in rest.items():
                    g -= term[name]
                if lag == len(self.dy) - 1:
                    rest = self._without(rest, rest_dstates)
            yield Term(lag, term, rest, steps, dstates, rest_dstates)

    def _first_deltas(self, arrays: list[State]) -> list[State]:
        """delta of lag 0, along each chain: what comes in, and zeros in one of its arrays."""
        deltas: list[State] = [(self.dy, *written[1:]) for written in arrays]
        for _, *zeros in deltas:
            for part in zeros:
                part[:] = 0
        return deltas

    def _pull_back(
        self, deltas: list[State], weights: bool, into: list[State]
    ) -> tuple[list[Named], list[State]]:
        """Along each chain, the gradients of the parameters, and delta of the next lag."""
        found = [
            self.recorded.pull_back(d, weights=weights, into=written, route=route)
            for d, (_, route), written in zip(deltas, self._chains, into, strict=True)
        ]
        return [of for of, _ in found], [tuple(part[1:] for part in d) for _, d in found]


class AtOneStep(Terms):
    """For a loss at the last step of the recorded ones."""

    def _trace(self) -> Trace:
        return Trace.empty(self.recorded.cell, self.recorded.y)

    def _incoming(self) -> Incoming:
        last = self.dy[-1]
        nothing = tuple(None for _ in self.recorded.after)
        return Incoming(nothing, (last, *(np.zeros_like(last) for _ in nothing[1:])))

    def sum_of_all(self) -> Named:
        return self._gradients(slice(None))

    def __iter__(self) -> Iterator[Term]:
        rest = {name: g.copy() for name, g in self.total.items()}
        after = len(self.recorded.x)  # the first step that is out of `rest`
        for lag in map(int, self._lags):
            step = len(self.recorded.x) - 1 - lag
            term = self._gradients(slice(step, step + 1))
            skipped = self._gradients(slice(step + 1, after)) if step + 1 < after else {}
            for name, g in rest.items():
                g -= term[name]
                if skipped:
                    g -= skipped[name]
            if step == 0:
                rest = self._without(rest, ())
            after, steps = step, slice(step, step + 1)
            dstates = tuple(d[steps] for d in self.total_dstates)
            yield Term(lag, term, rest, steps, dstates, tuple(d[:step] for d in self.total_dstates))

    def products(self) -> Array | None:
        """``Backend.lag_products`` of all lags, without their terms."""
        assert self._deltas is not None
        found = self.recorded.lag_products(self._deltas, self.total, self._lags)
        if found is None:
            return None
        products, sums = found
        self.left = {name: g - sums[name] for name, g in self.total.items()}
        return products

    def _gradients(self, steps: slice) -> Named:
        """What some steps add to each parameter's gradient."""
        r, cell = self.recorded, self.recorded.cell
        assert self._deltas is not None
        deltas = self._deltas[:, steps].reshape(cell.sums, -1, self._deltas.shape[-1])
        inputs, recurrent = deltas[: cell.gates], deltas[list(cell.recurrent_sums)]
        x, h = (a[steps].reshape(-1, a.shape[-1]) for a in (r.x, r.before[0]))
        found = {
            "w_ih": _by_rows(inputs.transpose(0, 2, 1) @ x),
            "w_hh": _by_rows(recurrent.transpose(0, 2, 1) @ h),
            "b_ih": inputs.sum(axis=1).ravel(),
            "b_hh": recurrent.sum(axis=1).ravel(),
        }
        return {name: found[name] for name in self.total}


def _by_rows(gates: Array) -> Array:
    """(G, H, K) as (G H, K)."""
    return gates.reshape(-1, gates.shape[-1])
