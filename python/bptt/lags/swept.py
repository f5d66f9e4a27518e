"""All lags of one layer together: what a sweep back through it leaves, along a route.

A gradient of a gated cell takes two routes from step to step: the direct one (f_t dc_t of an LSTM,
z_t dS_t of a GRU), which no weights lie on, and the recurrent one, what the whole has beyond that.
From layer to layer, within a step, it goes through W_x on either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..backends.protocol import Incoming, State, Trace
from ..checks import Array
from ..recorded import Named, Recorded

__all__ = ["ROUTES", "Chains", "Swept", "sweep"]

ROUTES = ("direct", "recurrent")


@dataclass(frozen=True)
class Chains:
    """The chains of steps whose sum, with these signs, is the gradient along a route."""

    of: tuple[tuple[int, str], ...]

    @classmethod
    def along(cls, route: str | None) -> Chains:
        """Those of one of `ROUTES`, or of both."""
        if route == "recurrent":
            return cls(((1, "whole"), (-1, "direct")))
        return cls(((1, route or "whole"),))

    @property
    def routes(self) -> tuple[str, ...]:
        """What each takes from step to step: one of ``backends.protocol.ROUTES``."""
        return tuple(route for _, route in self.of)

    def sum(self, of_chains: Sequence[Array]) -> Array:
        """The sum of what there is of each."""
        total = of_chains[0]
        for (sign, _), array in zip(self.of[1:], of_chains[1:], strict=True):
            total = total + sign * array
        return total

    def named(self, of_chains: Sequence[Named]) -> Named:
        if len(of_chains) == 1:
            return of_chains[0]
        return {name: self.sum([found[name] for found in of_chains]) for name in of_chains[0]}

    def parts(self, of_chains: Sequence[State]) -> State:
        if len(of_chains) == 1:
            return of_chains[0]
        return tuple(self.sum(list(parts)) for parts in zip(*of_chains, strict=True))


@dataclass(frozen=True, eq=False)
class Swept:
    """A layer after the sweep, with the sums over all lags and steps.

    Attributes
    ----------
    recorded : Recorded
    chains : Chains
    total : dict
        Each parameter's gradient.
    dstates : tuple of (T, B, H)
        delta of all lags.
    deltas : (sums, T, B, H), or None
        da of each sum of the cell, if it was asked for.
    """

    recorded: Recorded
    chains: Chains
    total: Named
    dstates: State
    deltas: Array | None


def sweep(
    recorded: Recorded,
    incoming: Sequence[Incoming],
    chains: Chains,
    *,
    deltas: bool,
    inputs: bool,
) -> tuple[Swept, list[Array]]:
    """BPTT along each chain, from what comes into its states.

    Also returns dL/dx (T, B, I) along each, if `inputs`.
    """
    traces, found = [], []
    for given, route in zip(incoming, chains.routes, strict=True):
        if deltas:
            traces.append(Trace.empty(recorded.cell, recorded.y))
        else:
            traces.append(Trace(None, tuple(map(np.empty_like, recorded.after))))
        found.append(recorded.sweep(given, traces[-1], route, inputs))
    of_sums = [trace.deltas for trace in traces if trace.deltas is not None]
    swept = Swept(
        recorded,
        chains,
        chains.named([grads.arrays() for grads in found]),
        chains.parts([trace.dstates for trace in traces]),
        chains.sum(of_sums) if of_sums else None,
    )
    return swept, [grads.x for grads in found if inputs]
