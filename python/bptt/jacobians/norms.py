"""`jacobian_norms`: the spectral norm of ``prod_j dS_j/dS_{j-1}`` over the distance.

Power iteration, in the form that forgets nothing of the powers before: with v_1 random,

    alpha_i u_i = J v_i - beta_i u_{i-1}        beta_{i+1} v_{i+1} = J^T u_i - alpha_i v_i

the largest singular value of the bidiagonal matrix of alpha and beta is the best that the vectors
(J^T J)^n v_1 yield (Golub and Kahan 1965, SIAM J. Numer. Anal. B 2(2)). J is never formed: J v is
forward mode through the steps, J^T u is BPTT. The products of all distances end at the same step,
so each step takes the vectors of all of them at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np

from .. import checks, memory
from ..backends import resolve
from ..backends.protocol import Layer, State
from ..cells import Cell, get_cell
from ..checks import Array
from ..holdings import norms_nbytes
from ..initial import Seed, generator_of
from ..inputs import initial_state, read_inputs
from ..linearized import Linearized, linearize
from ..params import Params
from ..recorded import Recorded
from ..states import GivenState
from .result import JacobianNorms

__all__ = ["jacobian_norms"]

_BETWEEN_CHECKS = 4  # iterations


def jacobian_norms(
    cell: str | Cell,
    params: Params,
    x: Array,
    state: GivenState | None = None,
    *,
    distances: Iterable[int] | None = None,
    at: str | int = "last",
    iterations: int = 100,
    tolerance: float = 1e-4,
    rng: Seed = 0,
    backend: str = "auto",
) -> JacobianNorms:
    """The spectral norm of dS_t/dS_{t-distance}, over the distance, of each sequence.

    It is the factor by which the norm of a small change of the state grows over so many steps at
    most, whatever its direction; and that of a gradient on its way back. Of an LSTM the state is
    (h, c), as 2 H independent coordinates.

    Parameters
    ----------
    cell, params, x, state, backend
        As in `bptt.forward`.
    distances : iterable of int, optional
        In steps, sorted, at least 1; all up to the initial state if not given.
    at : "last" or int
        The step t that the products end at; negative ones count from the end.
    iterations : int
        The most that are made, each of them a pass forward and one back.
    tolerance : float
        The iterations of a norm end when its relative residual is at most this: a singular value
        is then within this relative distance. Where the next singular value is farther away than
        that, the error of the norm is of the order of the square of the residual.
    rng : seed or Generator
        For the vectors to begin with.

    Returns
    -------
    JacobianNorms

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.
    MemoryError
        If the derivatives of all steps, or the vectors of all distances, do not fit the memory.

    Warns
    -----
    RuntimeWarning
        If `iterations` did not suffice; ``residual`` says for which norms.

    Notes
    -----
    The products are taken in float64 (the states and derivatives in the dtype of `params`): a norm
    below about 1e-308 is 0, and one above 1e308 is nan.

    Examples
    --------
    >>> import bptt, numpy as np
    >>> params = bptt.init_params("linear", input_size=1, hidden_size=8, spectral_radius=0.5, rng=0)
    >>> found = bptt.jacobian_norms("linear", params, np.zeros((3, 1, 1), "float32"))
    >>> found.norm.round(4).ravel().tolist()
    [0.5, 0.25, 0.125]
    """
    kind = get_cell(cell)
    params, x, given = read_inputs(kind, params, x, state)
    end = _read_step(at, len(x))
    wanted = _read_distances(distances, end)
    most = checks.size("iterations", iterations)
    small_enough = checks.non_negative("tolerance", tolerance)
    generator = generator_of(rng)
    chosen = resolve(backend, kind, x.dtype)
    first = end - wanted[-1]
    batch, beside = x.shape[1], chosen.beside(kind, "gates")
    needed = norms_nbytes(kind, params, int(wanted[-1]), batch, len(wanted), beside)
    memory.require_memory(needed, f"the Jacobians of {wanted[-1]} steps")
    initial = initial_state(kind, params, batch, given)
    if first > 0:
        before = Layer(kind, params, x[:first], initial)
        initial = chosen.forward(before, "minimal").state
    x = np.ascontiguousarray(x[first:end])
    recorded = Recorded(chosen, Layer(kind, params, x, initial))
    steps = linearize(recorded).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # such a norm is nan
        norm, residual = _norms(_Products(steps, wanted), generator, most, small_enough)
    late = int(np.count_nonzero(residual > small_enough))
    if late:
        warnings.warn(
            f"{late} of {norm.size} norms are not within the tolerance after {most} iterations",
            RuntimeWarning,
            stacklevel=2,
        )
    return JacobianNorms(kind.name, end - 1, wanted, norm, residual)


class _Products:
    """J of D distances, which end at the last of some steps: on vectors (D, B, P, H)."""

    def __init__(self, steps: Linearized, distances: Array) -> None:
        self._steps, self._distances = steps, distances

    def of(self, some: Array) -> _Products:
        """Those of some of the distances."""
        return _Products(self._steps, self._distances[some])

    @property
    def shape(self) -> tuple[int, ...]:
        parts, _, batch, _, hidden = self._steps.slopes.shape
        return (len(self._distances), batch, parts, hidden)

    def push(self, v: Array) -> Array:
        """J v"""
        v = v.copy()
        for t, far in self._far():
            v[far] = _stacked(self._steps.push(t, _parts(v[far])))
        return v

    def pull(self, u: Array) -> Array:
        """J^T u"""
        u = u.copy()
        for t, far in reversed(list(self._far())):
            u[far] = _stacked(self._steps.pull(t, _parts(u[far])))
        return u

    def _far(self) -> Iterable[tuple[int, slice]]:
        """Each step, and the distances that reach it, which are the last ones."""
        for t in range(self._steps.steps):
            nearest = np.searchsorted(self._distances, self._steps.steps - t)
            yield t, slice(int(nearest), None)


def _norms(
    products: _Products, generator: np.random.Generator, iterations: int, tolerance: float
) -> tuple[Array, Array]:
    """The norm and its relative residual, (D, B) each."""
    count, batch = products.shape[:2]
    norm, residual = np.zeros((count, batch)), np.zeros((count, batch))
    rows = np.arange(count)  # the distances that are not done
    v, _ = _normalized(generator.standard_normal(products.shape))
    u, beta = np.zeros_like(v), np.zeros((count, batch))
    bidiagonal = np.zeros((count, batch, 0, 0))
    for i in range(1, iterations + 1):
        u, alpha = _normalized(products.push(v) - beta[..., None, None] * u)
        bidiagonal = np.pad(bidiagonal, ((0, 0), (0, 0), (0, 1), (0, 1)))
        bidiagonal[..., -1, -1] = alpha
        if i > 1:
            bidiagonal[..., -2, -1] = beta
        v, beta = _normalized(products.pull(u) - alpha[..., None, None] * v)
        if i % _BETWEEN_CHECKS and i < iterations:
            continue
        norm[rows], residual[rows] = _largest(bidiagonal, beta)
        left = np.flatnonzero((residual[rows] > tolerance).any(axis=1))
        rows, products = rows[left], products.of(left)
        if not rows.size:
            break
        u, v, beta, bidiagonal = u[left], v[left], beta[left], bidiagonal[left]
    return norm, residual


def _largest(bidiagonal: Array, beta: Array) -> tuple[Array, Array]:
    """The largest singular value, and the residual ||J^T u - sigma v|| / sigma of its vectors."""
    finite = np.isfinite(bidiagonal.sum(axis=(-2, -1)))
    left, sigma, _ = np.linalg.svd(np.where(finite[..., None, None], bidiagonal, 0))
    largest = np.where(finite, sigma[..., 0], np.nan)
    rest = beta * np.abs(left[..., -1, 0])
    return largest, np.divide(rest, largest, out=np.zeros_like(rest), where=largest > 0)


def _normalized(vectors: Array) -> tuple[Array, Array]:
    """Each vector over its norm, and that: zero where it is zero."""
    most = np.abs(vectors).max(axis=(-2, -1), initial=0)
    scale = np.where(most > 0, most, 1)[..., None, None]  # squares of small numbers underflow
    scaled = vectors / scale
    size = np.sqrt(np.square(scaled).sum(axis=(-2, -1)))
    return scaled / np.where(size > 0, size, 1)[..., None, None], size * most


def _parts(vectors: Array) -> State:
    """(D, B, P, H) as a state."""
    return tuple(np.moveaxis(vectors, -2, 0))


def _stacked(state: State) -> Array:
    """And back."""
    return np.stack(state, axis=-2)


def _read_step(at: object, steps: int) -> int:
    """How many steps there are up to that of `at`."""
    if steps < 1:
        raise ValueError("x: expected one step at least, got none")
    if isinstance(at, str):
        if at != "last":
            raise ValueError(f"at: expected 'last' or the number of a step, got {at!r}")
        return steps
    step = checks.size("at", at, least=-steps)
    if step >= steps:
        raise ValueError(f"at: expected a step below {steps}, the steps of x, got {step}")
    return step % steps + 1


def _read_distances(distances: Iterable[int] | None, most: int) -> Array:
    if distances is None:
        return np.arange(1, most + 1)
    return np.array(checks.rising("distances", distances, 1, most, "the initial state"))
