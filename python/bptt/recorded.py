"""A recorded forward pass that can be pulled back through time as a whole, or all steps at once.

    delta_k^(lag) = J_{k+1}^T delta_{k+1}^(lag - 1)        term(lag) = sum_k delta_k^(lag) · dS_k/dW

For one lag all k are independent of each other. So `Recorded.pull_back` is one call of
``Backend.backward_steps``, for every cell and backend, and no step in it waits for another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from .backends import Backend
from .backends.protocol import Incoming, Layer, Record, Request, State, Steps, Trace
from .checks import Array
from .grads import Grads, grads_of, present
from .losses import Objective
from .params import PARAM_NAMES
from .states import as_given, as_tuple

__all__ = ["Recorded"]

# Where the weights are larger than this, one step of very many rows would leave the cache between
# its products: so many are taken at once (LSTM, H = 256, 8192 rows: 1.22 to 0.83 of a sweep).
_LARGE_WEIGHTS = 1 << 20
_ROWS_AT_ONCE = 512

Named = dict[str, Array]  # gradients, by the names of the parameters


class Recorded:
    """A forward pass of a layer, with S_0 in front of the history.

    It is run, unless `record` is what such a pass left.
    """

    def __init__(self, backend: Backend, layer: Layer, record: Record | None = None) -> None:
        self.backend, self.layer = backend, layer
        self.cell, self.params, self.x, self.initial = (
            layer.cell,
            layer.params,
            layer.x,
            layer.state,
        )
        self._record = record or backend.forward(layer, "gates")
        self.after = self._record.history

    @cached_property
    def before(self) -> State:
        """The state before each step, (T, B, H)."""
        return self._record.before(self.initial)

    @property
    def y(self) -> Array:
        return self.after[0]

    def steps(self, some: slice) -> Steps:
        """Some steps, each for itself."""
        before, after = (tuple(s[some] for s in states) for states in (self.before, self.after))
        saved = self.backend.steps_of(self._record.saved, some)
        return Steps(self.cell, self.params, self.x[some], before, after, saved)

    def part(self, start: int, stop: int) -> Recorded:
        """The pass through some steps, at least one."""
        state = self.initial if not start else tuple(s[start - 1] for s in self.after)
        steps = slice(start, stop)
        record = Record(
            tuple(s[steps] for s in self.after),
            tuple(s[stop - 1] for s in self.after),
            self.backend.steps_of(self._record.saved, steps),
        )
        return Recorded(self.backend, replace(self.layer, x=self.x[steps], state=state), record)

    def add_gradients(self, incoming: Incoming, into: Grads) -> None:
        """BPTT through all steps, whose gradients are added to those of `into`."""
        request = Request(into, True, wanted=present(into))
        self.backend.backward(self.layer, self._record, incoming, request)

    def readout_gradient(self, objective: Objective) -> tuple[float, Array, Named]:
        """The loss, dL/dS (T, B, H) of each state's own loss, and the readout's gradients."""
        loss, of_loss, readout = self.backend.readout_gradient(self.layer, self.y, objective)
        if objective.step is None:
            return loss, of_loss, readout
        dy = np.zeros_like(self.y)
        dy[objective.step] = of_loss
        return loss, dy, readout

    def sweep(
        self, incoming: Incoming, trace: Trace, route: str = "whole", inputs: bool = False
    ) -> Grads:
        """BPTT through all steps along one of ``ROUTES``: the gradients of the parameters and, if
        asked for, of the inputs; and `trace`, which is written to.
        """
        wanted = frozenset(("x", *PARAM_NAMES) if inputs else PARAM_NAMES)
        request = Request(wanted=wanted, trace=trace, route=route)
        return self.backend.backward(self.layer, self._record, incoming, request)

    def lag_products(self, deltas: Array, totals: Named, lags: Array) -> tuple[Array, Named] | None:
        """``Backend.lag_products`` of this pass."""
        return self.backend.lag_products(self.layer, self.y, deltas, totals, lags)

    def pull_back(
        self,
        dstates: State,
        *,
        weights: bool,
        into: State | None = None,
        route: str = "whole",
        dx: Array | None = None,
    ) -> tuple[Named, State]:
        """One step of BPTT of the first steps, as many as `dstates` (n, B, H) has, at once.

        Returns the parameters' gradients, summed over steps, none of them unless `weights`; and
        the gradient of the state before each step, (n, B, H), in the first rows of `into` if that
        is given. That of the inputs of these steps goes to the first rows of `dx`, if there is one.
        """
        into = into or tuple(map(np.empty_like, dstates))
        found: Named = {}
        if weights:
            layer = {n: w for n, w in self.params.arrays().items() if n not in ("w_ho", "b_o")}
            found = {name: np.empty_like(w) for name, w in layer.items()}
        for some in self._blocks(dstates):
            add = some.start > 0
            if add and dx is not None:
                dx[some] = 0
            self._pull_back(some, dstates, found, into, add=add, x=dx, route=route)
        return found, tuple(s[: len(dstates[0])] for s in into)

    def add_step_gradients(self, dstates: State, into: Grads) -> None:
        """Add what each step's own inputs get from `dstates`, (T, B, H): x, W, b, and S_0."""
        layer = {name: g for name, g in into.arrays().items() if name not in ("w_ho", "b_o")}
        before = tuple(map(np.empty_like, dstates))
        for some in self._blocks(dstates):
            self._pull_back(some, dstates, layer, before, add=True, x=into.x)
        if into.state is None:
            return
        for target, s in zip(as_tuple(into.state), before, strict=True):
            target += s[0]

    def _blocks(self, dstates: State) -> Iterator[slice]:
        """The steps of `dstates`, as many at a time as are good for the cache."""
        steps, batch, _ = dstates[0].shape
        at_once = max(steps, 1)
        if self.params.w_ih.nbytes + self.params.w_hh.nbytes > _LARGE_WEIGHTS:
            at_once = max(1, _ROWS_AT_ONCE // batch)
        return (slice(n, min(n + at_once, steps)) for n in range(0, steps, at_once))

    def _pull_back(
        self,
        some: slice,
        dstates: State,
        found: Named,
        into: State,
        *,
        add: bool,
        x: Array | None = None,
        route: str = "whole",
    ) -> None:
        """Of some steps, to `found`, and to these steps of `into` and `x`."""
        before = tuple(s[some] for s in into)
        # What is to be added to is the parameters' gradients; each step's state has its own.
        if add:
            for s in before:
                s[:] = 0
        out = grads_of({**found, "state": as_given(before)})
        if x is not None:
            out.x = x[some]
        request = Request(out, add, present(out), route=route)
        self.backend.backward_steps(self.steps(some), tuple(d[some] for d in dstates), request)
