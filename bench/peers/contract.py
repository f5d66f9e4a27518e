"""What a peer provides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..problem import Outputs, Problem

__all__ = ["Peer", "Workload"]


@dataclass(frozen=True)
class Workload:
    """A problem in a peer's own data types, ready to be run any number of times.

    Attributes
    ----------
    call : callable
        Does all the work and returns when it is done: forward pass, then the gradients of x,
        state, w_ih, w_hh, b_ih and b_hh. Only this is timed.
    outputs : callable
        Turns what `call` returned into NumPy arrays by name, to check them.
    """

    call: Callable[[], Any]
    outputs: Callable[[Any], Outputs]


class Peer(Protocol):
    """One way to compute the gradients.

    Attributes
    ----------
    name : str
        Its name in tables and for ``--peers``.
    is_own : bool
        Whether it is a backend of this package.
    """

    name: str
    is_own: bool

    def missing(self) -> str | None:
        """Why it cannot be used here; None if it can. Loads nothing heavy."""

    def refuses(self, cell: str, dtype: str) -> str | None:
        """Why it does not compute `cell` in `dtype`; None if it does."""

    def version(self) -> str:
        """What runs, for the record."""

    def prepare(self, problem: Problem, threads: int) -> Workload:
        """Convert the arrays, outside the time that is measured; use at most `threads`."""
