"""What a peer provides."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..problem import Outputs, Problem

__all__ = ["WEIGHTS", "Peer", "Workload", "named"]

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


@dataclass(frozen=True)
class Workload:
    """A problem in a peer's own data types, ready to be run any number of times."""

    # Does all the work and returns when it is done: forward pass, then the gradients of x, state
    # and the arrays of `WEIGHTS`. Only this is timed.
    call: Callable[[], Any]
    # Turns what `call` returned into NumPy arrays by name, to check them.
    outputs: Callable[[Any], Outputs]


class Peer:
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
        return None if cell in self.cells else f"no {cell} cell is written for {self.name}"

    def version(self) -> str:
        """What runs, for the record."""
        raise NotImplementedError

    def prepare(self, problem: Problem, threads: int) -> Workload:
        """Convert the arrays, outside the time that is measured; use at most `threads`."""
        raise NotImplementedError


def named(y: Any, dx: Any, dstate: Any, dweights: Any) -> Outputs:
    """Outputs by name, of whatever kind of array; the gradients in the order of `WEIGHTS`."""
    arrays = {"y": y, "x": dx, **dict(zip(WEIGHTS, dweights, strict=True))}
    arrays.update(zip(("state", "c"), dstate, strict=False))
    return {name: np.asarray(array) for name, array in arrays.items()}
