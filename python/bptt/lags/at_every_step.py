"""`AtEveryStep`: the terms for a loss at any number of steps, one parallel pass for each lag.

A lag takes one `Recorded.pull_back` of each layer, from the top down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..backends.protocol import Incoming, State
from ..checks import Array
from ..recorded import Named
from .swept import Swept
from .terms import Term, Terms

__all__ = ["AtEveryStep"]


class AtEveryStep(Terms):
    """For a loss at any number of steps."""

    @property
    def _keeps_deltas(self) -> bool:
        return False

    def _incoming(self, parts: int) -> Incoming:
        return Incoming((self.dy, *(None for _ in range(1, parts))))

    def sum_of_all(self) -> Named:
        return self._named(
            layer.recorded.pull_back(layer.dstates, weights=True)[0] for layer in self.layers
        )

    def __iter__(self) -> Iterator[Term]:
        wanted = {int(lag) for lag in self._lags}
        walks = self._walks()
        for lag in range(max(wanted, default=-1) + 1):
            found = [walk.pull_back(lag, lag in wanted) for walk in reversed(walks)]
            terms = [term for term in reversed(found) if term is not None]
            if not terms:
                continue
            term = self._joined(terms)
            yield self._without_rest(term) if lag + 1 == len(wanted) == len(self.dy) else term

    def _walks(self) -> list[_Walk]:
        """One through each layer."""
        *lower, top = self.layers
        # dL/dx along each chain, which the layer below has read before it writes its own.
        between = [np.empty_like(self.dy) for _ in self._chains.of if lower]
        walks = [_Walk(layer, None, between, between if n else ()) for n, layer in enumerate(lower)]
        return [*walks, _Walk(top, self.dy, (), between)]


class _Walk:
    """From lag to lag through one layer.

    Parameters
    ----------
    dy : (T, B, H) array, or None
        What comes into the states from outside.
    above, below : sequences of (T, B, H)
        Where dL/dx of the layer above is found, along each chain, and where that of this layer
        goes; empty where there is no such layer.
    """

    def __init__(
        self, layer: Swept, dy: Array | None, above: Sequence[Array], below: Sequence[Array]
    ) -> None:
        self._recorded, self._chains = layer.recorded, layer.chains
        self._above, self._below = above, below
        self._rest_dstates = tuple(d.copy() for d in layer.dstates)
        self._rest = {name: g.copy() for name, g in layer.total.items()}
        # Two sets of arrays for each chain: what is read, and what is written.
        after = layer.recorded.after
        self._arrays = [
            [tuple(map(np.empty_like, after)) for _ in range(2)] for _ in layer.chains.of
        ]
        self._deltas = [_first_delta(dy, second) for _, second in self._arrays]
        self._without_gap = True

    def pull_back(self, lag: int, wanted: bool) -> Term | None:
        """The next lag, its term if that is wanted; the layer above has come to it before."""
        deltas = self._deltas
        for (of_y, *_), dx in zip(deltas, self._above, strict=False):
            of_y += dx[: len(of_y)]
        dstates = self._chains.parts(deltas)
        steps = slice(0, len(dstates[0]))
        for remaining, d in zip(self._rest_dstates, dstates, strict=True):
            remaining[steps] -= d
        self._without_gap &= wanted
        into = [one[lag % 2] for one in self._arrays]
        if wanted and not self._without_gap:
            rest = self._recorded.pull_back(self._rest_dstates, weights=True, into=into[0])
            self._rest = rest[0]
        found = self._pull_back(deltas, wanted, into)
        if not wanted:
            return None
        term = self._chains.named(found)
        if self._without_gap:
            for name, g in self._rest.items():
                g -= term[name]
        return Term(lag, term, self._rest, steps, (dstates,), (self._rest_dstates,))

    def _pull_back(self, deltas: list[State], weights: bool, into: list[State]) -> list[Named]:
        """Along each chain, the gradients of the parameters; delta of the next lag is kept."""
        below: Sequence[Array | None] = self._below or [None] * len(deltas)
        chains = zip(deltas, self._chains.routes, into, below, strict=True)
        found = [
            self._recorded.pull_back(d, weights=weights, into=written, route=route, dx=dx)
            for d, route, written, dx in chains
        ]
        self._deltas = [tuple(part[1:] for part in d) for _, d in found]
        return [of for of, _ in found]


def _first_delta(dy: Array | None, arrays: State) -> State:
    """delta of lag 0: what comes in from outside, and zeros in `arrays` where nothing does."""
    for part in arrays:
        part[:] = 0
    return arrays if dy is None else (dy, *arrays[1:])
