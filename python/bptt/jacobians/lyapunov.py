"""`lyapunov_exponents`: the rates at which small changes of the state grow, by QR.

An orthonormal set of tangents Q is carried through the steps and made orthonormal again,

    J_t Q_{t-1} = Q_t R_t        lambda_i = lim 1/t sum_t log |R_t[i, i]|

(Benettin, Galgani, Giorgilli, Strelcyn 1980, Meccanica 15; Geist, Parlitz, Lauterborn 1990, Prog.
Theor. Phys. 83(5)).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator

import numpy as np

from .. import checks, memory
from ..backends import Backend, resolve
from ..backends.protocol import Layer, State
from ..cells import Cell, get_cell
from ..checks import Array
from ..holdings import linearized_nbytes, states_nbytes, tangents_nbytes
from ..initial import Seed, generator_of
from ..inputs import initial_state, read_inputs
from ..linearized import Linearized, linearize
from ..params import Params
from ..progress import watched
from ..recorded import Recorded
from ..states import GivenState
from .result import LyapunovExponents

__all__ = ["lyapunov_exponents"]

_BLOCK_NBYTES = 1 << 26  # of the derivatives of the steps that are held at once
_POINTS = 200  # of `running`
_LEAST_SPANS = 10  # that the standard error is taken from


def lyapunov_exponents(
    cell: str | Cell,
    params: Params,
    x: Array,
    state: GivenState | None = None,
    *,
    k: int | None = None,
    skip: int | None = None,
    interval: int = 1,
    backend: str = "auto",
    rng: Seed = 0,
    progress: bool = False,
) -> LyapunovExponents:
    """The leading Lyapunov exponents of a recurrent layer along x, or all of them.

    Parameters
    ----------
    cell, params, x, state, backend
        As in `bptt.forward`. For a network without input let x be zeros, and give a `state` that
        is not zero, or the network may stay at rest.
    k : int, optional
        How many exponents, from the largest on; all if not given: H, or 2 H for an LSTM.
    skip : int, optional
        The first steps, which do not count: states and tangents approach the attractor meanwhile.
        T // 10 if not given.
    interval : int
        Steps between one QR decomposition and the next. Within an interval all tangents turn
        towards the direction of the largest exponent, and rounding hides the others if it is too
        long: ``(lambda_1 - lambda_k) * interval`` should stay well below -log(eps), 36 in float64
        and 16 in float32.
    rng : seed or Generator
        For the tangents to begin with.
    progress : bool
        Show a bar (needs tqdm).

    Returns
    -------
    LyapunovExponents

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value, or T is less than
        ``skip + interval``.
    MemoryError
        If the tangents do not fit the memory.

    Notes
    -----
    Where a tangent grows, within an interval, by less than eps times the factor of the largest
    exponent, rounding hides by how much, and its exponent is -inf: it cannot be told from one that
    is lost at once, as behind a relu that is off. Apart from x, memory does not grow with T. Ctrl-C
    ends the work with a warning, and the exponents from the steps until then are returned
    (`complete` is False).

    Examples
    --------
    >>> import bptt, numpy as np
    >>> params = bptt.init_params("linear", input_size=1, hidden_size=8, spectral_radius=0.5, rng=0)
    >>> found = bptt.lyapunov_exponents("linear", params, np.zeros((50, 1, 1), "float32"), k=2)
    >>> bool(abs(found.exponents - np.log(0.5)).max() < 1e-5)
    True
    """
    kind = get_cell(cell)
    params, x, given = read_inputs(kind, params, x, state)
    steps, batch, _ = x.shape
    if batch < 1:
        raise ValueError("x: expected one sequence at least, got none")
    size = len(kind.states) * params.hidden_size
    count = _read_count(k, size)
    growth = _read_intervals(skip, interval, steps)
    generator = generator_of(rng)
    chosen = resolve(backend, kind, x.dtype)
    memory.require_memory(tangents_nbytes(kind, params, batch, count), f"{count} tangents")
    initial = initial_state(kind, params, batch, given)
    tangents = _orthonormal(generator.standard_normal((batch, size, count)))[0].astype(x.dtype)
    passed = _steps(kind, chosen, params, x[: growth.steps], initial)
    complete = True
    try:
        _carry(tangents, watched(passed, progress, growth.steps, "lyapunov", "step"), growth)
    except KeyboardInterrupt:
        if growth.done < 1:
            raise
        complete = False
        warnings.warn(
            f"interrupted: {growth.done} of {growth.intervals} intervals are done",
            RuntimeWarning,
            stacklevel=2,
        )
    return growth.result(kind.name, size, complete)


def _read_count(k: object, size: int) -> int:
    """How many exponents."""
    count = size if k is None else checks.size("k", k)
    if count > size:
        raise ValueError(f"k: expected at most {size}, the size of the state, got {count}")
    return count


def _read_intervals(skip: object, interval: object, steps: int) -> _Growth:
    """The intervals of so many steps that count, after those that are skipped."""
    left_out = steps // 10 if skip is None else checks.size("skip", skip, least=0)
    every = checks.size("interval", interval)
    intervals = (steps - left_out) // every
    if intervals < 1:
        raise ValueError(
            f"skip, interval: expected at most the {steps} steps of x, got {left_out} and {every}"
        )
    return _Growth(left_out, every, intervals)


def _carry(tangents: Array, steps: Iterable[tuple[int, int, Linearized]], growth: _Growth) -> None:
    """Carry the tangents through the steps, and hand over how they grow in each interval."""
    for t, step, passed in steps:
        tangents = _push(passed, step, tangents)
        if growth.ends(t + 1):
            tangents, logs = _orthonormal(tangents)
            growth.add(t + 1, logs)


def _steps(
    cell: Cell, backend: Backend, params: Params, x: Array, state: State
) -> Iterator[tuple[int, int, Linearized]]:
    """Each step t, with the block of steps it lies in and where in it, one block at a time."""
    batch = x.shape[1]
    per_step = linearized_nbytes(cell, params, 1, batch) + states_nbytes(cell, params, 1, batch)
    at_once = max(1, _BLOCK_NBYTES // per_step)
    for first in range(0, len(x), at_once):
        block = x[first : first + at_once]
        recorded = Recorded(backend, Layer(cell, params, block, state))
        passed = linearize(recorded)
        state = tuple(s[-1].copy() for s in recorded.after)
        for step in range(len(block)):
            yield first + step, step, passed


def _push(passed: Linearized, step: int, tangents: Array) -> Array:
    """J_t Q, of the columns of Q (B, N, k)."""
    parts = np.split(np.moveaxis(tangents, 2, 0), len(passed.slopes), axis=2)
    pushed = np.concatenate(passed.push(step, tuple(parts)), axis=2)
    return np.moveaxis(pushed, 0, 2)


def _orthonormal(tangents: Array) -> tuple[Array, Array]:
    """Q (B, N, k), and log |R[i, i]| (B, k)."""
    q, r = np.linalg.qr(tangents.astype(np.float64, copy=False))
    factors = np.abs(np.diagonal(r, axis1=1, axis2=2))
    lost = factors <= np.finfo(tangents.dtype).eps * factors.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return q.astype(tangents.dtype, copy=False), np.log(np.where(lost, 0, factors))


class _Growth:
    """The sum of log |R[i, i]| over intervals, remembered at some of them."""

    def __init__(self, skip: int, interval: int, intervals: int) -> None:
        self.skip, self.intervals, self.done = skip, intervals, 0
        self.steps = skip + intervals * interval
        self._interval = interval
        self._sum: Array | float = 0.0
        self._last = skip
        points = np.linspace(1, intervals, min(intervals, _POINTS)).astype(int)
        self._points = set(points.tolist())
        self._at: list[int] = []
        self._sums: list[Array] = []

    def ends(self, step: int) -> bool:
        """Whether an interval ends after so many steps, also among those that are skipped."""
        return (step - self.skip) % self._interval == 0

    def add(self, step: int, logs: Array) -> None:
        """Of the interval that ends after so many steps."""
        if step <= self.skip:
            return
        self._sum, self._last, self.done = self._sum + logs, step, self.done + 1
        if self.done in self._points:
            self._remember()

    def _remember(self) -> None:
        self._sums.append(np.asarray(self._sum))
        self._at.append(self._last)

    def result(self, cell: str, size: int, complete: bool) -> LyapunovExponents:
        if self._at[-1:] != [self._last]:
            self._remember()
        sums, steps = np.stack(self._sums), np.array(self._at)
        running = sums.mean(axis=1) / (steps - self.skip)[:, None]
        order = np.argsort(-running[-1], kind="stable")
        by_sequence = sums[-1] / (steps[-1] - self.skip)
        return LyapunovExponents(
            cell,
            size,
            running[-1][order],
            self._standard_error(sums, steps)[order],
            steps,
            running[:, order],
            by_sequence[:, order],
            complete,
        )

    def _standard_error(self, sums: Array, steps: Array) -> Array:
        """From the spread of the means over spans of time, of every sequence."""
        batch = sums.shape[1]
        spans = min(math.ceil(_LEAST_SPANS / batch), len(steps))
        ends = np.linspace(0, len(steps), spans + 1).astype(int)
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])[ends]
        length = np.diff(np.concatenate([[self.skip], steps])[ends])
        with np.errstate(invalid="ignore"):  # -inf less itself
            means = np.diff(sums, axis=0) / length[:, None, None]
            means = means.reshape(spans * batch, -1)
            if len(means) < 2:
                return np.full(means.shape[1], np.nan)
            error: Array = means.std(axis=0, ddof=1) / math.sqrt(len(means))
        return error
