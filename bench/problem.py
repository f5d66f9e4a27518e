"""The data of one case, the same for every peer, and the answer they must agree with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf, log2, sqrt
from typing import Any

import bptt
import numpy as np
import numpy.typing as npt
from bptt.states import as_given, as_tuple

from .cases import Case

__all__ = ["Array", "Outputs", "Problem", "disagreement", "make_problem", "run_bptt", "tolerance"]

Array = npt.NDArray[Any]
# y, and the gradients x, state (of an LSTM also c), w_ih, w_hh, b_ih, b_hh: what all compute.
Outputs = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Problem:
    """Inputs in PyTorch's layout: dL/dy is given, the gradients of all the others are wanted."""

    case: Case
    cell: str
    dtype: str
    params: bptt.Params
    x: Array  # (T, B, I)
    state: tuple[Array, ...]  # (B, H) each: S_0, and of an LSTM c_0
    dy: Array  # (T, B, H)

    @cached_property  # a call of a few microseconds is timed with it
    def given_state(self) -> Any:
        """The state as `bptt.forward` takes it."""
        return as_given(self.state)

    def reference(self) -> Outputs:
        """The outputs in float64, by the NumPy backend."""
        x, dy, *state = (a.astype(np.float64) for a in (self.x, self.dy, *self.state))
        params = self.params.astype(np.float64)
        exact = replace(self, dtype="float64", params=params, x=x, dy=dy, state=tuple(state))
        return run_bptt(exact, "numpy")


def make_problem(case: Case, cell: str, dtype: str, *, seed: int = 0) -> Problem:
    """Draw weights as PyTorch initialises them, and standard normal x, S_0 and dy."""
    rng = np.random.default_rng(seed)
    t, b, i, h = case.steps, case.batch, case.input_size, case.hidden_size
    params = bptt.init_params(cell, input_size=i, hidden_size=h, rng=rng, dtype=dtype)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    x, state = normal(t, b, i), tuple(normal(b, h) for _ in bptt.CELLS[cell].states)
    return Problem(case, cell, dtype, params, x, state, normal(t, b, h))


def run_bptt(
    problem: Problem, backend: str, tape: bptt.Tape | None = None, grads: bptt.Grads | None = None
) -> Outputs:
    """Forward and backward through the public API, as a user calls it.

    Into the arrays of an earlier call if `tape` and `grads` are given, as a training loop may.
    """
    p = problem
    tape = bptt.forward(p.cell, p.params, p.x, p.given_state, backend=backend, out=tape)
    grads = tape.backward(p.dy, out=grads)
    states = dict(zip(("state", "c"), as_tuple(grads.state), strict=False))
    return {"y": tape.y, "x": grads.x, **states, **grads.arrays()}


def tolerance(problem: Problem) -> float:
    """How far a correct result may lie from the reference, as ||got - want|| / ||want||.

    A sum of n terms in any sensible order errs by about log2(n) eps; the recurrence, whose
    spectral radius is 0.58 with these weights, passes errors on about twice; 16 leaves room for
    both, and for the activation. With relu, a pre-activation nearer to zero than its own error
    may fall on either side: a share of entries as large as the error itself is then off by all
    of its size, which makes the square root of it in the norm.
    """
    case = problem.case
    longest_sum = max(case.steps * case.batch, case.input_size + case.hidden_size)
    error = 16 * ceil(log2(longest_sum + 1)) * float(np.finfo(problem.dtype).eps)
    return max(error, sqrt(error)) if problem.cell == "relu" else error


def disagreement(got: Outputs, want: Outputs) -> dict[str, float]:
    """||got - want|| / ||want|| for each output; infinite if it is missing or misshapen."""
    return {name: _relative_error(got.get(name), array) for name, array in want.items()}


def _relative_error(got: Array | None, want: Array) -> float:
    if got is None or got.shape != want.shape:
        return inf
    # NaN compares false to everything: an error of NaN must not pass for a small one.
    error = float(np.linalg.norm((got - want).ravel()) / max(np.linalg.norm(want.ravel()), 1e-300))
    return error if error == error else inf
