"""What a backend provides; `data` has what it receives and returns."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..budget import Budget
from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..holdings import Beside
from ..losses import Objective
from ..params import Params
from .data import (
    ALL,
    ROUTES,
    SAVE,
    Incoming,
    Layer,
    Record,
    Request,
    Sizes,
    State,
    Steps,
    Trace,
)

__all__ = [
    "ALL",
    "ROUTES",
    "SAVE",
    "Backend",
    "Incoming",
    "Layer",
    "Parts",
    "Record",
    "Request",
    "Sizes",
    "State",
    "Stepping",
    "Steps",
    "Trace",
]


class Stepping(Protocol):
    """A layer that is fed step by step: a copy of its weights, and the state after the last call.

    A call during another one raises RuntimeError; one that does not end leaves the state as it was.
    """

    @property
    def nbytes(self) -> int:
        """Bytes held."""

    def try_run(self, x: object, out: object) -> Array | None:
        """`run` of whatever the caller passed, `out` None for a new array: as fast as can be.

        None, and nothing has happened, if they have to be checked or converted.
        """

    def run(self, x: Array, y: Array) -> Array:
        """Run through x (B, I) or (T, B, I); return `y` (B, H) or (T, B, H), written."""

    def state(self) -> State:
        """A copy of the state."""

    def assign(self, rows: Array, state: State | None) -> None:
        """Give some rows (R,) int64 another state (R, H), or zero."""


class Parts(Protocol):
    """A pass that is made part by part; see ``Backend.parts``."""

    def forward(self, start: int, part: Layer, save: str) -> Record:
        """Run through a part whose first step is `start`; its record is valid until the next one.

        Parts may come in any order, and again.
        """

    def backward(
        self,
        start: int,
        part: Layer,
        record: Record,
        incoming: Incoming,
        dx: Array | None,
        objective: Objective | None = None,
    ) -> None:
        """Pull back through a part, after those behind it; `dx` is where its gradient of x goes.

        The record is that of the last pass forward. ``incoming.state`` is that of the state after
        the whole pass. An objective is in place of ``incoming.history``, with the targets and
        weights of the part's rows; the step of a loss at one counts from the start of the pass.
        """

    def end(self) -> tuple[float, Grads]:
        """After the part at step 0: the loss, and what was asked for but x."""


class Backend(Protocol):
    """One implementation of every cell: forward pass, BPTT, and both fused with a loss.

    Attributes
    ----------
    name : str
        The name that users pass as ``backend=``.
    error : type
        The exception for "not available": ImportError where a missing package is the reason.
    packed : bool
        Whether it takes layers with offsets; if not, `dense_runs` computes these with it.
    places : bool
        Whether `forward`, `backward` and `value_and_grad` take layers with places.
    one_saved : bool
        Whether ``Record.saved`` of a gated cell is one array, (T, B, saved, H).
    """

    @property
    def name(self) -> str: ...

    @property
    def error(self) -> type[Exception]: ...

    @property
    def packed(self) -> bool: ...

    @property
    def places(self) -> bool: ...

    @property
    def one_saved(self) -> bool: ...

    def missing(self) -> str | None:
        """Why the backend cannot be used here and what to do about it; None if it can.

        Raises
        ------
        ValueError
            If an environment variable asks of it what cannot be; "auto" must not pass over that.
        """

    def description(self) -> str:
        """What it runs on, in a few words, once it is known to be available."""

    def supports(self, cell: Cell, dtype: np.dtype[Any]) -> bool:
        """Whether it computes `cell` in `dtype`, if it is available."""

    def beside(self, cell: Cell, save: str) -> Beside:
        """What its passes hold that another backend need not."""

    def forward(self, layer: Layer, save: str, out: Record | None = None) -> Record:
        """Run the recurrence over x from the initial state.

        `save` is one of `SAVE`. `out` gives arrays to write to, those of a pass that saved the
        same, apart from all that is read.
        """

    def stepping(self, layer: Layer) -> Stepping | None:
        """Those of `layer` from its state, whose x is empty; None if `forward` is as good."""

    def backward(self, layer: Layer, record: Record, incoming: Incoming, request: Request) -> Grads:
        """Pull the incoming gradients back through time."""

    def backward_steps(self, steps: Steps, dstates: State, request: Request) -> None:
        """Pull the gradients of the states after some steps back through these steps alone.

        `dstates` (T, B, H) are those of each part. All steps are computed at once; weight gradients
        are summed over them. They go to ``request.out``, whose `state` is (T, B, H): the gradient
        of the state before each step. The gates of the steps were saved.
        """

    def steps_of(self, saved: tuple[Array, ...], steps: slice) -> tuple[Array, ...]:
        """``Record.saved`` of some steps."""

    def lag_products(
        self, layer: Layer, y: Array, deltas: Array, totals: dict[str, Array], lags: Array
    ) -> tuple[Array, dict[str, Array]] | None:
        """Of a loss at the last step, scalar products of each of `lags`, for each of `totals`.

        Returns (L, parameters, 5) float64: of the lag's term with itself and with the total, of the
        sum of all larger lags with itself and with the total, and of the total less that sum with
        itself; and the sum of the terms of all lags. None if the backend has no kernel for them.
        """

    def read_out(self, params: Params, y: Array) -> Array:
        """The outputs W_o S + b_2 (..., O) of states y (..., H)."""

    def readout_gradient(
        self, layer: Layer, y: Array, objective: Objective
    ) -> tuple[float, Array, dict[str, Array]]:
        """The loss of the readout of states y (T, B, H) of `layer`, and its gradients.

        They are dL/dS of each state's own loss, (T, B, H) or (B, H) of a loss at one step; and
        those of w_ho and, if there is one, of b_o. `value_and_grad` sums the latter and the loss in
        the same order.
        """

    def kept_nbytes(self, sizes: Sizes, budget: Budget) -> int:
        """Bytes that `value_and_grad` holds beside its arguments and results."""

    def segment_grain(self, sizes: Sizes) -> int:
        """Steps of which segments have multiples."""

    def part_borders(self, sizes: Sizes, per_row: str | None) -> Array:
        """The steps at which `parts` of a pass may begin or end, 0 and T among them."""

    def parts_nbytes(
        self, sizes: Sizes, most_rows: int, most_steps: int, per_row: str | None
    ) -> tuple[int, int]:
        """Bytes that `parts` hold beside arguments and results: all the time, and in a call."""

    def parts(self, sizes: Sizes, most_rows: int, request: Request) -> Parts:
        """The passes of a layer, part by part, of which none has more rows than that.

        ``request.out`` has all that is wanted but x; without a readout in `sizes` there is none of
        its gradients.
        """

    def value_and_grad(
        self, layer: Layer, objective: Objective, request: Request, last: State | None = None
    ) -> tuple[float, Grads]:
        """The loss of the readout, and all gradients.

        `last` gives arrays (B, H) for the state after the last step, or after the only one whose
        loss counts.
        """
