"""The terms of the gradient, lag by lag: what one lag adds, and what all of them have in common.

Of layer l of a stack, delta_k^l = dL_{k+lag}/dS_k^l has two parts: what came from the step behind,
at the lag before, and what the layer above hands down at the same step and lag,

    delta_k^l (lag) = (dS_{k+1}^l/dS_k^l)^T delta_{k+1}^l (lag - 1)
                    + (dS_k^{l+1}/dx_k)^T delta_k^{l+1} (lag)

Either way all k of one lag are independent of each other. A layer alone is a stack of one.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..backends.protocol import Incoming, State
from ..checks import Array
from ..recorded import Named, Recorded
from .scalar import dot, squares_of
from .swept import Chains, Swept, sweep

__all__ = ["Term", "Terms"]


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
    dstates : tuple of tuples of (n, B, H)
        delta at these steps: of each layer, the lowest first, its parts.
    rest_dstates : tuple of tuples of (m, B, H)
        The sum of delta of all larger lags, at the first m steps; zero at others.
    """

    lag: int
    params: Named
    rest: Named
    steps: slice
    dstates: tuple[State, ...]
    rest_dstates: tuple[State, ...]


class Terms(ABC):
    """All lags of one gradient: iterate to get the `Term` of each of `lags`, which are sorted.

    Parameters
    ----------
    layers : dict of Recorded
        The lowest first, each by what stands before the names of its parameters.
    dy : (T, B, H) array
        What comes into the states of the top one.

    Once all lags there are have been asked for, `left` is what their terms leave of the total.
    """

    def __init__(
        self, layers: Mapping[str, Recorded], dy: Array, lags: Array, route: str | None
    ) -> None:
        self.prefixes, self.dy = tuple(layers), dy
        self.left: Named | None = None
        self._lags, self._chains = lags, Chains.along(route)
        self.layers = self._sweep(list(layers.values()))
        self.total = self._named(layer.total for layer in self.layers)
        self.squares = squares_of(self.total)
        self.total_dstates = [layer.dstates for layer in self.layers]
        self.dstates_squares = [[dot(d, d) for d in parts] for parts in self.total_dstates]
        # Of what delta is multiplied by in the terms: x_k, S_{k-1} and one, of all steps.
        self.inputs_square = sum(_inputs_square(recorded) for recorded in layers.values())

    @abstractmethod
    def __iter__(self) -> Iterator[Term]: ...

    @abstractmethod
    def sum_of_all(self) -> Named:
        """The total once more, of the delta of all lags at once."""

    @property
    @abstractmethod
    def _keeps_deltas(self) -> bool:
        """Whether the sweeps are to leave da of all steps behind."""

    @abstractmethod
    def _incoming(self, parts: int) -> Incoming:
        """What comes into the states of the top layer, of so many parts."""

    def _sweep(self, layers: Sequence[Recorded]) -> list[Swept]:
        """Layer after layer from the top down, along each chain."""
        parts = len(layers[-1].after)
        incoming = [self._incoming(parts) for _ in self._chains.of]
        found = []
        for n, recorded in reversed(list(enumerate(layers))):
            swept, dx = sweep(
                recorded, incoming, self._chains, deltas=self._keeps_deltas, inputs=n > 0
            )
            incoming = [Incoming((d, *(None for _ in range(1, parts)))) for d in dx]
            found.append(swept)
        return found[::-1]

    def _named(self, of_layers: Iterable[Named]) -> Named:
        """What there is of each layer's parameters, by the names of all."""
        return {
            prefix + name: g
            for prefix, named in zip(self.prefixes, of_layers, strict=True)
            for name, g in named.items()
        }

    def _joined(self, of_layers: Sequence[Term]) -> Term:
        """One term of those of the layers."""
        if self.prefixes == ("",):
            return of_layers[0]
        return Term(
            of_layers[0].lag,
            self._named(term.params for term in of_layers),
            self._named(term.rest for term in of_layers),
            of_layers[0].steps,
            tuple(itertools.chain.from_iterable(term.dstates for term in of_layers)),
            tuple(itertools.chain.from_iterable(term.rest_dstates for term in of_layers)),
        )

    def _without_rest(self, last: Term) -> Term:
        """The term of the last lag there is: nothing is cut, and what rounding left is kept."""
        self.left = last.rest
        for d in itertools.chain.from_iterable(last.rest_dstates):
            d[:] = 0
        return replace(last, rest={name: np.zeros_like(g) for name, g in last.rest.items()})


def _inputs_square(recorded: Recorded) -> float:
    arrays = (recorded.x, recorded.y, recorded.initial[0])
    return float(sum(dot(a, a) for a in arrays) + recorded.x[..., 0].size)
