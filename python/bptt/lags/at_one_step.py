"""`AtOneStep`: the terms for a loss at one step, all of one sweep back through time.

delta of a lag lives at one step of time alone then, in every layer, and the sweep passes by all of
them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backends.protocol import Incoming
from ..checks import Array
from ..recorded import Named
from .swept import Swept
from .terms import Term, Terms

__all__ = ["AtOneStep"]


class AtOneStep(Terms):
    """For a loss at the last step of the recorded ones."""

    @property
    def _keeps_deltas(self) -> bool:
        return True

    def _incoming(self, parts: int) -> Incoming:
        last = self.dy[-1]
        nothing = tuple(None for _ in range(parts))
        return Incoming(nothing, (last, *(np.zeros_like(last) for _ in nothing[1:])))

    def sum_of_all(self) -> Named:
        return self._named(_gradients(layer, slice(None)) for layer in self.layers)

    def __iter__(self) -> Iterator[Term]:
        rests = [{name: g.copy() for name, g in layer.total.items()} for layer in self.layers]
        after = len(self.dy)  # the first step that is out of the rests
        for lag in map(int, self._lags):
            step = len(self.dy) - 1 - lag
            term = self._joined(
                [
                    _term(layer, rest, lag, step, after)
                    for layer, rest in zip(self.layers, rests, strict=True)
                ]
            )
            after = step
            yield term if step else self._without_rest(term)

    def products(self) -> Array | None:
        """``Backend.lag_products`` of all lags and layers, without their terms."""
        found = []
        for layer in self.layers:
            assert layer.deltas is not None
            of_layer = layer.recorded.lag_products(layer.deltas, layer.total, self._lags)
            if of_layer is None:
                return None
            found.append(of_layer)
        sums = self._named(named for _, named in found)
        self.left = {name: g - sums[name] for name, g in self.total.items()}
        return np.concatenate([products for products, _ in found], axis=1)


def _term(layer: Swept, rest: Named, lag: int, step: int, after: int) -> Term:
    """What a lag adds to the gradients of a layer; `rest` becomes all that lies before its step,
    no longer up to `after`."""
    term = _gradients(layer, slice(step, step + 1))
    skipped = _gradients(layer, slice(step + 1, after)) if step + 1 < after else {}
    for name, g in rest.items():
        g -= term[name]
        if skipped:
            g -= skipped[name]
    steps = slice(step, step + 1)
    dstates = tuple(d[steps] for d in layer.dstates)
    return Term(lag, term, rest, steps, (dstates,), (tuple(d[:step] for d in layer.dstates),))


def _gradients(layer: Swept, steps: slice) -> Named:
    """What some steps add to each parameter's gradient."""
    r, cell, all_deltas = layer.recorded, layer.recorded.cell, layer.deltas
    assert all_deltas is not None
    deltas = all_deltas[:, steps].reshape(cell.sums, -1, all_deltas.shape[-1])
    inputs, recurrent = deltas[: cell.gates], deltas[list(cell.recurrent_sums)]
    x, h = (a[steps].reshape(-1, a.shape[-1]) for a in (r.x, r.before[0]))
    found = {
        "w_ih": _by_rows(inputs.transpose(0, 2, 1) @ x),
        "w_hh": _by_rows(recurrent.transpose(0, 2, 1) @ h),
        "b_ih": inputs.sum(axis=1).ravel(),
        "b_hh": recurrent.sum(axis=1).ravel(),
    }
    return {name: found[name] for name in layer.total}


def _by_rows(gates: Array) -> Array:
    """(G, H, K) as (G H, K)."""
    return gates.reshape(-1, gates.shape[-1])
