"""Norm, error, cosine and share of each term, of every parameter, of all together, and of delta."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..backends.protocol import State
from ..checks import Array
from .at_one_step import AtOneStep
from .lag_sum import LagSum
from .result import LagGradients, LagTerm
from .scalar import dot, squares_of, sum_of
from .terms import Term, Terms

__all__ = ["Curves"]


# Units of eps below which a sum of terms is nothing beside the total.
_ROUNDING = 16

# Scalar products of a term, of the rest beyond it, of the part up to it, and of the total:
# term·term, term·total, rest·rest, rest·total, part·part, total·total.
_PRODUCTS = 6

# By curve and then by key, (L,) each.
Found = dict[str, dict[str, Array]]


class Rows:
    """What is measured, by key: each parameter, sums of several, and delta.

    Of a stack the sums are those of each layer and that of all, and so is delta.
    """

    def __init__(self, names: Sequence[str], prefixes: Sequence[str]) -> None:
        layers = [prefix.removesuffix(".") for prefix in prefixes if prefix]
        self._of_layers = [
            [n for n, name in enumerate(names) if name.startswith(f"{layer}.")] for layer in layers
        ]
        self.states = 1 + len(layers)  # the last keys
        self.keys = [*names, *layers, "params", *(f"{layer}.state" for layer in layers), "state"]

    def of(self, params: Array, states: Array) -> Array:
        """(..., keys, n) of those of each parameter, and of each layer's states."""
        sums = [_sum(params[..., rows, :]) for rows in self._of_layers]
        of_all = [_sum(states)] if sums else []  # a layer's is that of all, where it is alone
        return np.concatenate([params, *sums, _sum(params), states, *of_all], axis=-2)


def _sum(rows: Array) -> Array:
    """(..., n, m) as (..., 1, m)."""
    total: Array = np.add.reduce(rows, axis=-2, keepdims=True)
    return total


class Curves:
    """The measures of all lags so far, and the lag at which they end since its term is not finite.

    Give it each lag by `add`, or all at once by `add_all`, and it makes the `result`.
    """

    def __init__(self, total: LagSum) -> None:
        self._sum = total
        self._total = sum_of([group.total for group in total.groups])
        self._rows = Rows(list(self._total), total.prefixes)
        self.lags: list[int] = []
        self.overflow_lag: int | None = None
        self._products: list[Array] = []  # (keys, 6) of each lag
        self._without: list[list[Array]] = []  # leaving out each group
        self._signal: list[Array] = []

    def add(self, parts: list[Term]) -> bool:
        """The next lag: its term for each group of sequences. False if that is not finite."""
        groups = self._sum.groups
        products = self._scaled(self._rows.of(*_products(parts, groups)), 1.0)
        if not np.isfinite(products[:, 0]).all():
            self.overflow_lag = parts[0].lag
            return False
        self.lags.append(parts[0].lag)
        self._products.append(products)
        if self._sum.step is None:
            self._signal.append(self._signal_of(parts))
        if self._sum.factor is not None:
            self._without.append([self._products_without(i, parts) for i in range(len(groups))])
        return True

    def _products_without(self, i: int, parts: list[Term]) -> Array:
        """With group `i` left out, and each of the others counting as much more."""
        groups = self._sum.groups
        others = _products(parts[:i] + parts[i + 1 :], groups[:i] + groups[i + 1 :])
        return self._scaled(self._rows.of(*others), len(groups) / (len(groups) - 1))

    def _scaled(self, products: Array, by: float) -> Array:
        """With each sequence counting `by` as much, for others that were left out.

        A sum of terms over sequences grows by this factor, and so does a sum of squares of delta,
        which the factor of the sample is in twice.
        """
        states = self._rows.states
        products[:-states] *= by**2
        products[-states:] *= by / (self._sum.factor or 1.0)
        return products

    def add_all(self) -> bool:
        """All lags, without their terms. False if there is no kernel for that.

        There is one for a loss at one step, in some backends, if all sequences are one group.
        """
        group = self._sum.groups[0]
        if not isinstance(group, AtOneStep) or self._sum.factor is not None:
            return False
        found = group.products()
        if found is None:
            return False
        totals = np.array(list(group.squares.values()))
        finite = np.isfinite(found[..., 0]).all(axis=1)  # the terms; their sum may overflow first
        count = len(found) if finite.all() else int(np.argmin(finite))
        if count < len(found):
            self.overflow_lag = int(self._sum.lags[count])
        lags = self._sum.lags[:count]
        self.lags = lags.tolist()
        params = np.concatenate(
            [found[:count], np.broadcast_to(totals[:, None], (count, len(totals), 1))], axis=2
        )
        steps = len(group.dy) - 1 - lags
        states = [
            _of_states(_squares_of_parts(state), steps)[:, None] for state in group.total_dstates
        ]
        self._products = list(self._rows.of(params, np.concatenate(states, axis=1)))
        return True

    def _signal_of(self, parts: list[Term]) -> Array:
        squares = np.zeros(self._sum.steps)
        for term in parts:
            for d in itertools.chain.from_iterable(term.dstates):
                squares[term.steps] += _squares_by_step(d)
        return np.sqrt(squares / (self._sum.factor or 1.0))

    def result(self, complete: bool, terms: list[LagTerm] | None) -> LagGradients:
        total, gap = self._sum, self._sum.gap()
        total.require_sum(gap, self._size())
        return LagGradients(
            cell=total.cell.name,
            route=total.route,
            lags=np.array(self.lags, np.int64),
            step=total.step,
            total={**self._total, **(total.readout if total.route is None else {})},
            loss=total.loss,
            steps=total.steps,
            check=self._relative(gap),
            overflow_lag=self.overflow_lag,
            complete=complete,
            standard_error=None if total.factor is None else self._standard_error(),
            terms=terms,
            every_signal=np.array(self._signal) if self._signal else None,
            **self._measures(self._products),
        )

    def _relative(self, gap: float) -> float:
        """`gap` over the norm of the total."""
        size = math.sqrt(sum(squares_of(self._total).values()))
        if size == 0:
            return math.inf if gap > 0 else 0.0
        return gap / size  # nan where it overflowed

    def _size(self) -> float:
        """Of what was added up, which may have cancelled: the norms of delta, times its inputs'."""
        groups, factor = self._sum.groups, self._sum.factor or 1.0
        deltas = sum(math.sqrt(products[-1, 0] * factor) for products in self._products)
        all_lags = math.sqrt(sum(sum(map(sum, group.dstates_squares)) for group in groups))
        return max(deltas, all_lags) * math.sqrt(sum(group.inputs_square for group in groups))

    def _measures(self, products: list[Array]) -> Found:
        """Norm, error, cosine and share, from the products of each lag."""
        keys, eps = self._rows.keys, float(np.finfo(self._sum.dtype).eps)
        of = np.array(products).reshape(-1, len(keys), _PRODUCTS).transpose(2, 1, 0)
        with np.errstate(all="ignore"):  # a total that overflowed: nan
            curves = _curves(*of, rounding=(_ROUNDING * eps) ** 2)
        return {
            name: dict(zip(keys, rows.astype(np.float64), strict=True))
            for name, rows in curves.items()
        }

    def _standard_error(self) -> Found:
        """By the jackknife over groups (Efron 1982): sqrt((G - 1) / G sum (v_i - mean)^2)."""
        groups = len(self._sum.groups)
        left_out = [self._measures([lag[i] for lag in self._without]) for i in range(groups)]
        factor = (groups - 1) / math.sqrt(groups)
        return {
            curve: {
                key: factor * np.std([of[curve][key] for of in left_out], axis=0)
                for key in left_out[0][curve]
            }
            for curve in left_out[0]
        }


def _curves(
    term: Array,
    term_total: Array,
    rest: Array,
    rest_total: Array,
    part: Array,
    total: Array,
    *,
    rounding: float,
) -> dict[str, Array]:
    nothing = total == 0
    whole = np.where(nothing, 1, total)
    seen = ~(part <= rounding * total)  # also nan
    along = (total - rest_total) / np.sqrt(np.where(seen, part, 1) * whole)
    return {
        "norm": np.sqrt(term),
        "error": np.where(nothing & (rest > 0), np.inf, np.sqrt(rest / whole)),
        "cosine": np.where(seen, np.minimum(along, 1), nothing & (part == 0)),
        "share": np.where(nothing, 0, term_total / whole),
    }


def _products(parts: Sequence[Term], groups: Sequence[Terms]) -> tuple[Array, Array]:
    """(parameters, 6) and, of delta, (layers, 6) of one lag, for the sequences of some groups."""
    term, rest = sum_of([t.params for t in parts]), sum_of([t.rest for t in parts])
    total = sum_of([group.total for group in groups])
    squares = squares_of(total) if len(groups) > 1 else groups[0].squares
    of_params = np.array(
        [_of_arrays(term[name], rest[name], g, squares[name]) for name, g in total.items()]
    )
    of_states = np.sum(
        [_of_dstates(t, group) for t, group in zip(parts, groups, strict=True)], axis=0
    )
    return of_params, of_states


def _of_arrays(term: Array, rest: Array, total: Array, total_total: float) -> tuple[float, ...]:
    part = total - rest
    return (
        dot(term, term),
        dot(term, total),
        dot(rest, rest),
        dot(rest, total),
        dot(part, part),
        total_total,
    )


def _of_dstates(term: Term, group: Terms) -> Array:
    """(layers, 6) of delta, as one vector over all steps."""
    found = np.zeros((len(group.layers), _PRODUCTS))
    arrays = (term.dstates, term.rest_dstates, group.total_dstates, group.dstates_squares)
    for row, *of_layer in zip(found, *arrays, strict=True):
        for d, rest, total, whole in zip(*of_layer, strict=True):
            cut = dot(rest, rest)
            along = dot(rest, total[: len(rest)])
            part = max(whole - 2 * along + cut, 0.0)
            row += (dot(d, d), dot(d, total[term.steps]), cut, along, part, whole)
    return found


def _of_states(squares: Array, steps: Array) -> Array:
    """(L, 6) of delta where each lag has a step of its own, from ||delta||^2 of each step."""
    here, until = squares[steps], np.cumsum(squares)
    cut = until[steps] - here
    whole = np.full_like(here, until[-1])
    return np.stack([here, here, cut, cut, whole - cut, whole], axis=1)


def _squares_of_parts(state: State) -> Array:
    """(T,) float64, the square of the norm of each step of all parts (T, B, H)."""
    squares: Array = np.sum([_squares_by_step(d) for d in state], axis=0)
    return squares


def _squares_by_step(d: Array) -> Array:
    """The same of one part."""
    rows = d.reshape(len(d), -1)
    squares: Array = np.einsum("ij,ij->i", rows, rows)
    if not np.isfinite(squares).all():
        rows = rows.astype(np.float64)
        squares = np.einsum("ij,ij->i", rows, rows)
    return squares.astype(np.float64)
