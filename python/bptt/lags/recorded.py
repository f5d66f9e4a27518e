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
from ..losses import Objective
from ..params import Params
from ..states import as_tuple

__all__ = ["Recorded", "without_recurrence"]

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
        return self._backward(params, self.x, self.initial, self._record, dstates, "params", trace)

    def pull_back(self, dstates: State, params: Params, *, weights: bool) -> tuple[Named, State]:
        """One step of BPTT of the first steps, as many as `dstates` (n, B, H) has, at once.

        Returns the parameters' gradients, summed over steps, none of them unless `weights`; and
        the gradient of the state before each step, (n, B, H).
        """
        n, batch, hidden = dstates[0].shape
        before, after, given = (
            tuple(a[:n].reshape(1, n * batch, hidden) for a in arrays)
            for arrays in (self.before, self.after, dstates)
        )
        saved = self._backend.as_rows(self._record.saved, slice(0, n))
        x = self.x[:n].reshape(1, n * batch, self.x.shape[2])
        initial = tuple(a[0] for a in before)
        record = Forward(after, initial, saved)
        wanted = "params" if weights else "state"
        found, states = self._backward(params, x, initial, record, given, wanted)
        return found, tuple(s.reshape(n, batch, hidden) for s in states)

    def _backward(
        self,
        params: Params,
        x: Array,
        initial: State,
        record: Forward,
        dhistory: State,
        wanted: str,
        trace: Trace | None = None,
    ) -> tuple[Named, State]:
        grads = self._backend.backward(
            self.cell, params, x, initial, record, dhistory, None, wanted=wanted, trace=trace
        )
        return {} if wanted == "state" else grads.arrays(), as_tuple(grads.state)


def without_recurrence(params: Params) -> Params:
    """`params` with W_s = 0: what a gradient takes then is the direct route of a gated cell."""
    return Params(params.w_ih, np.zeros_like(params.w_hh), params.b_ih, params.b_hh)
