"""The data of one case, the answer that all peers must agree with, and what a peer is."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from math import ceil, inf, isnan, log2, sqrt
from typing import Any, NamedTuple

import bptt
import numpy as np
import numpy.typing as npt
from bptt.states import as_given, as_tuple

from .cases import Case
from .records import Row

Array = npt.NDArray[Any]
# y, and the gradients x, state (of an LSTM also c) and `WEIGHTS`: what all compute.
Outputs = dict[str, Array]
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


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

    @property
    def weights(self) -> list[Array]:
        """In the order of `WEIGHTS`."""
        return [getattr(self.params, name) for name in WEIGHTS]

    def row(self, work: str, unit: str = "ms") -> Row:
        """Of a task that does this with the problem."""
        return Row(self.case.family, work, f"{self.cell} {self.case.name}", unit=unit)

    def reference(self) -> Outputs:
        """The outputs in float64, by the NumPy backend."""
        x, dy, *state = (a.astype(np.float64) for a in (self.x, self.dy, *self.state))
        params = self.params.astype(np.float64)
        exact = replace(self, dtype="float64", params=params, x=x, dy=dy, state=tuple(state))
        return run_bptt(exact, "numpy")


class Workload(NamedTuple):
    """A problem in a peer's own data types, ready to be run any number of times."""

    # Does all the work and returns when it is done: forward pass, then the gradients. Only this is
    # timed.
    call: Callable[[], Any]
    # Turns what `call` returned into NumPy arrays by name, to check them.
    outputs: Callable[[Any], Outputs]


class Peer(ABC):
    """One way to compute the gradients."""

    name: str  # in tables and for --peers
    package: str  # what has to be installed for it
    is_own = False  # whether it is a backend of this package
    cells: tuple[str, ...] = ()  # what it computes
    threads: int | None = None  # its own number of threads, whatever --threads says

    def missing(self) -> str | None:
        """Why it cannot be used here; None if it can. Loads nothing heavy."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed (pip install {self.package})"
        return None

    def refuses(self, cell: str, dtype: str) -> str | None:
        """Why it does not compute `cell` in `dtype`; None if it does."""
        return None if cell in self.cells else f"{self.name} has no {cell} cell"

    def version(self) -> str:
        """What runs, for the record."""
        return metadata.version(self.package)

    def predicted(self, problem: Problem, threads: int) -> float | None:
        """Seconds that a call is said to take; None if nobody says so."""
        return None

    @abstractmethod
    def prepare(self, problem: Problem, threads: int) -> Workload:
        """Convert the arrays, outside the time that is measured; use at most `threads`."""


def make_problem(case: Case, cell: str, dtype: str, *, seed: int = 0) -> Problem:
    """Draw weights as PyTorch initialises them, and standard normal x, S_0 and dy."""
    rng = np.random.default_rng(seed)
    t, b, i, h = case.steps, case.batch, case.input_size, case.hidden_size
    params = bptt.init_params(cell, input_size=i, hidden_size=h, rng=rng, dtype=dtype)
    shapes = ((t, b, i), *((b, h) for _ in bptt.CELLS[cell].states), (t, b, h))
    x, *state, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return Problem(case, cell, dtype, params, x, tuple(state), dy)


def run_bptt(
    p: Problem,
    backend: str,
    tape: bptt.Tape | None = None,
    grads: bptt.Grads | None = None,
    save: str = "gates",
) -> Outputs:
    """Forward and backward through the public API, as a user calls it.

    Into the arrays of an earlier call if `tape` and `grads` are given, as a training loop may.
    """
    inputs = (p.cell, p.params, p.x, p.given_state)
    tape = bptt.forward(*inputs, backend=backend, save=save, out=tape)
    grads = tape.backward(p.dy, out=grads)
    states = dict(zip(("state", "c"), as_tuple(grads.state), strict=False))
    return {"y": tape.y, "x": grads.x, **states, **grads.arrays()}


def named(y: Any, dx: Any, dstate: Any, dweights: Any) -> Outputs:
    """Outputs by name, of whatever kind of array; the gradients in the order of `WEIGHTS`."""
    arrays = {"y": y, "x": dx, **dict(zip(WEIGHTS, dweights, strict=True))}
    arrays.update(zip(("state", "c"), dstate, strict=False))
    return {name: np.asarray(array) for name, array in arrays.items()}


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


def worst_output(got: Outputs, want: Outputs) -> tuple[str, float]:
    """The output with the largest ||got - want|| / ||want||, infinite if missing or misshapen."""
    errors = {name: _relative_error(got.get(name), array) for name, array in want.items()}
    return max(errors.items(), key=lambda item: item[1])


def _relative_error(got: Array | None, want: Array) -> float:
    if got is None or got.shape != want.shape:
        return inf
    error = float(np.linalg.norm((got - want).ravel()) / max(np.linalg.norm(want.ravel()), 1e-300))
    return inf if isnan(error) else error  # NaN would pass for a small one
