"""A recorded forward pass that can be pulled back through time as a whole, or all steps at once.

    delta_k^(lag) = J_{k+1}^T delta_{k+1}^(lag - 1)        term(lag) = sum_k delta_k^(lag) · dS_k/dW

For one lag all k are independent of each other: they are the rows of a single step of BPTT, over
a batch of T times B. So `Recorded.pull_back` is one call of the backend's backward pass, for every
cell and backend, and no step in it waits for another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from .backends import Backend
from .backends.protocol import ALL, Incoming, Layer, Record, Request, State, Trace
from .cells import CELLS
from .checks import Array
from .grads import Grads
from .losses import Objective
from .params import Params
from .states import as_given, as_tuple

__all__ = ["Recorded", "without_recurrence"]

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

    def saved_as_rows(self, steps: slice) -> tuple[Array, ...]:
        """What was saved of some steps, as if they were rows of one."""
        return self.backend.as_rows(self._record.saved, steps)

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
        self.backend.backward(self.layer, self._record, incoming, Request(into, True))

    def readout_gradient(self, objective: Objective) -> tuple[float, Array, Named]:
        """The loss, dL/dS (T, B, H) of each state's own loss, and the readout's gradients.

        They are those of one step of a linear network without recurrence: W_x = W_o hands its
        outputs to a readout that is the identity. Where these are many, W_s = 1 and a state S.
        """
        p, hidden, outputs = self.params, self.params.hidden_size, self.params.output_size
        assert p.w_ho is not None
        assert outputs is not None
        at = slice(None) if objective.step is None else slice(objective.step, objective.step + 1)
        y = self.y[at]
        rows, flat = y.reshape(1, -1, hidden), _as_one_step(objective)
        few = 2 * outputs * outputs <= hidden * hidden
        one = np.eye(outputs if few else hidden, dtype=p.dtype)
        if few:
            network = Params(p.w_ho, np.zeros_like(one), p.b_o, w_ho=one)
            x, state = rows, np.zeros((rows.shape[1], outputs), p.dtype)
        else:
            network = Params(np.zeros((hidden, 1), p.dtype), one, w_ho=p.w_ho, b_o=p.b_o)
            x, state = np.zeros((1, rows.shape[1], 1), p.dtype), rows[0]
        linear = CELLS["linear"]
        layer = Layer(linear, network, x, (state,))
        loss, grads = self.backend.value_and_grad(layer, flat, ALL)
        of_state, w_ho, b_o = (
            (grads.x, grads.w_ih, grads.b_ih) if few else (grads.state, grads.w_ho, grads.b_o)
        )
        dy = of_state.reshape(y.shape)
        if objective.step is not None:
            dy = np.zeros_like(self.y)
            dy[at] = of_state.reshape(y.shape)
        found = {"w_ho": w_ho, "b_o": b_o}
        return loss, dy, {name: g for name, g in found.items() if g is not None}

    def sweep(
        self, incoming: Incoming, params: Params, trace: Trace | None = None
    ) -> tuple[Named, State]:
        """BPTT through all steps: the parameters' gradients, and that of S_0.

        `trace` is written to.
        """
        layer, request = replace(self.layer, params=params), Request(wanted="params", trace=trace)
        grads = self.backend.backward(layer, self._record, incoming, request)
        return grads.arrays(), as_tuple(grads.state)

    def lag_products(self, deltas: Array, totals: Named, lags: Array) -> tuple[Array, Named] | None:
        """``Backend.lag_products`` of this pass."""
        return self.backend.lag_products(self.layer, self.y, deltas, totals, lags)

    def pull_back(
        self, dstates: State, params: Params, *, weights: bool, into: State | None = None
    ) -> tuple[Named, State]:
        """One step of BPTT of the first steps, as many as `dstates` (n, B, H) has, at once.

        Returns the parameters' gradients, summed over steps, none of them unless `weights`; and
        the gradient of the state before each step, (n, B, H), in the first rows of `into` if that
        is given.
        """
        into = into or tuple(map(np.empty_like, dstates))
        found: Named = {}
        if weights:
            layer = (name for name in params.arrays() if name not in ("w_ho", "b_o"))
            found = {name: np.empty_like(getattr(params, name)) for name in layer}
        for steps in self._blocks(dstates, params):
            self._pull_back(steps, dstates, params, found, into, add=steps.start > 0)
        return found, tuple(s[: len(dstates[0])] for s in into)

    def add_step_gradients(self, dstates: State, into: Grads) -> None:
        """Add what each step's own inputs get from `dstates`, (T, B, H): x, W, b, and S_0."""
        layer = {name: g for name, g in into.arrays().items() if name not in ("w_ho", "b_o")}
        before = tuple(map(np.empty_like, dstates))
        for steps in self._blocks(dstates, self.params):
            self._pull_back(steps, dstates, self.params, layer, before, add=True, x=into.x)
        for target, s in zip(as_tuple(into.state), before, strict=True):
            target += s[0]

    def _blocks(self, dstates: State, params: Params) -> Iterator[slice]:
        """The steps of `dstates`, as many at a time as are good for the cache."""
        steps, batch, _ = dstates[0].shape
        at_once = max(steps, 1)
        if params.w_ih.nbytes + params.w_hh.nbytes > _LARGE_WEIGHTS:
            at_once = max(1, _ROWS_AT_ONCE // batch)
        return (slice(n, min(n + at_once, steps)) for n in range(0, steps, at_once))

    def _pull_back(
        self,
        steps: slice,
        dstates: State,
        params: Params,
        found: Named,
        into: State,
        *,
        add: bool,
        x: Array | None = None,
    ) -> None:
        """Of some steps, as the rows of one; to `found`, and to these steps of `into` and `x`."""

        def rows(arrays: State) -> State:
            return tuple(a[steps].reshape(1, -1, a.shape[2]) for a in arrays)

        before, after, given = rows(self.before), rows(self.after), rows(dstates)
        initial = tuple(a[0] for a in before)
        nothing = np.empty(0, self.x.dtype)
        weights = found or {"w_ih": nothing, "w_hh": nothing}
        state = as_given(tuple(a[0] for a in rows(into)))
        # What is to be added to is the parameters' gradients; each row of the state has its own.
        if add:
            for s in as_tuple(state):
                s[:] = 0
        self.backend.backward(
            Layer(self.cell, params, rows((self.x,))[0], initial),
            Record(after, initial, self.saved_as_rows(steps)),
            Incoming(given),
            Request(
                Grads(x=nothing if x is None else rows((x,))[0], state=state, **weights),
                add,
                "all" if x is not None else "params" if found else "state",
            ),
        )


def _as_one_step(objective: Objective) -> Objective:
    """The same loss with each (t, b) as a row of a single step."""
    target, weights = objective.target, objective.weights
    more = target.shape[2 if objective.step is None else 1 :]
    return replace(
        objective,
        target=target.reshape(1, -1, *more),
        step=None,
        weights=None if weights is None else weights.reshape(1, -1),
    )


def without_recurrence(params: Params) -> Params:
    """`params` with W_s = 0: what a gradient takes then is the direct route of a gated cell."""
    return Params(params.w_ih, np.zeros_like(params.w_hh), params.b_ih, params.b_hh)
