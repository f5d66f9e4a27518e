"""A recorded forward pass that can be pulled back through time as a whole, or all steps at once.

    delta_k^(lag) = J_{k+1}^T delta_{k+1}^(lag - 1)        term(lag) = sum_k delta_k^(lag) · dS_k/dW

For one lag all k are independent of each other: they are the rows of a single step of BPTT, over
a batch of T times B. So `Recorded.pull_back` is one call of the backend's backward pass, for every
cell and backend, and no step in it waits for another.
"""

from __future__ import annotations

import numpy as np

from ..backends import Backend
from ..backends.protocol import Forward, State, Trace
from ..cells import CELLS, Cell
from ..checks import Array
from ..grads import Grads
from ..losses import Objective
from ..params import Params
from ..states import as_given, as_tuple

__all__ = ["Recorded", "without_recurrence"]

# Where the weights are larger than this, one step of very many rows would leave the cache between
# its products: so many are taken at once (LSTM, H = 256, 8192 rows: 1.16 to 0.86 of a sweep).
_LARGE_WEIGHTS = 1 << 20
_ROWS_AT_ONCE = 2048

Named = dict[str, Array]  # gradients, by the names of the parameters


class Recorded:
    """A forward pass over x (T, B, I), with S_0 in front of the history."""

    def __init__(
        self, cell: Cell, backend: Backend, params: Params, x: Array, state: State
    ) -> None:
        self.cell, self.params, self.x, self.initial = cell, params, x, state
        self._backend = backend
        steps, batch, _ = x.shape
        whole = tuple(np.empty((steps + 1, batch, s.shape[1]), x.dtype) for s in state)
        for states, s in zip(whole, state, strict=True):
            states[0] = s
        self.before = tuple(states[:-1] for states in whole)
        self.after = tuple(states[1:] for states in whole)
        record = backend.forward(cell, params, x, state, "gates")
        for states, s in zip(self.after, record.history, strict=True):
            states[:] = s
        self._record = Forward(self.after, record.state, record.saved)

    @property
    def y(self) -> Array:
        return self.after[0]

    def readout_gradient(self, objective: Objective) -> tuple[float, Array, Named]:
        """The loss, dL/dS (T, B, H) of each state's own loss, and the readout's gradients.

        They are those of one step of the identity network, whose Jacobian is one.
        """
        p, hidden = self.params, self.params.hidden_size
        identity = Params(
            np.zeros((hidden, 1), p.dtype), np.eye(hidden, dtype=p.dtype), w_ho=p.w_ho, b_o=p.b_o
        )
        at = slice(None) if objective.step is None else slice(objective.step, objective.step + 1)
        y = self.y[at]
        rows = y.reshape(-1, hidden)
        nothing = np.zeros((1, len(rows), 1), p.dtype)
        target = objective.target
        flat = target.reshape(1, len(rows), *target.shape[2 if objective.step is None else 1 :])
        weights = None if objective.weights is None else objective.weights.reshape(1, -1)
        one = Objective(objective.loss, flat, None, weights, objective.scale)
        loss, grads = self._backend.value_and_grad(CELLS["linear"], identity, nothing, (rows,), one)
        dy = np.zeros_like(self.y)
        dy[at] = grads.state.reshape(y.shape)
        readout = {name: g for name, g in grads.arrays().items() if name in ("w_ho", "b_o")}
        return loss, dy, readout

    def sweep(
        self, dstates: State, params: Params, trace: Trace | None = None
    ) -> tuple[Named, State]:
        """BPTT through all steps: the parameters' gradients, and that of S_0.

        `dstates` has what comes into each state from outside, (T, B, H); `trace` is written to.
        """
        grads = self._backend.backward(
            self.cell,
            params,
            self.x,
            self.initial,
            self._record,
            dstates,
            None,
            wanted="params",
            trace=trace,
        )
        return grads.arrays(), as_tuple(grads.state)

    def lag_products(self, deltas: Array, totals: Named, lags: Array) -> Array | None:
        """``Backend.lag_products`` of this pass."""
        return self._backend.lag_products(
            self.cell, self.params, self.x, self.initial, self.y, deltas, totals, lags
        )

    def pull_back(
        self, dstates: State, params: Params, *, weights: bool, into: State | None = None
    ) -> tuple[Named, State]:
        """One step of BPTT of the first steps, as many as `dstates` (n, B, H) has, at once.

        Returns the parameters' gradients, summed over steps, none of them unless `weights`; and
        the gradient of the state before each step, (n, B, H), in the first rows of `into` if that
        is given.
        """
        steps, batch, _ = dstates[0].shape
        at_once = steps
        if params.w_ih.nbytes + params.w_hh.nbytes > _LARGE_WEIGHTS:
            at_once = max(1, _ROWS_AT_ONCE // batch)
        into = into or tuple(map(np.empty_like, dstates))
        found: Named = {}
        if weights:
            layer = (name for name in params.arrays() if name not in ("w_ho", "b_o"))
            found = {name: np.empty_like(getattr(params, name)) for name in layer}
        for first in range(0, steps, at_once):
            some = slice(first, min(first + at_once, steps))
            self._pull_back(some, dstates, params, found, into, add=first > 0)
        return found, tuple(s[:steps] for s in into)

    def _pull_back(
        self, steps: slice, dstates: State, params: Params, found: Named, into: State, *, add: bool
    ) -> None:
        """Of some steps, as the rows of one; to `found`, and to these steps of `into`."""

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
        self._backend.backward(
            self.cell,
            params,
            rows((self.x,))[0],
            initial,
            Forward(after, initial, self._backend.as_rows(self._record.saved, steps)),
            given,
            None,
            Grads(x=nothing, state=state, **weights),
            add,
            wanted="params" if found else "state",
        )


def without_recurrence(params: Params) -> Params:
    """`params` with W_s = 0: what a gradient takes then is the direct route of a gated cell."""
    return Params(params.w_ih, np.zeros_like(params.w_hh), params.b_ih, params.b_hh)
