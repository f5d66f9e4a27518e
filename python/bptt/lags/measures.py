"""Norm, error, cosine and share of each term, of every parameter, of all together, and of delta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..checks import Array
from .question import Question
from .recorded import Named
from .result import LagGradients, LagTerm
from .terms import Term, Terms

__all__ = ["Curves"]

_SLICE = 1 << 16  # values that are widened to float64 at a time


class Products(NamedTuple):
    """Scalar products of a term, of the rest beyond it, and of the total."""

    term: float  # with itself
    term_total: float
    rest: float
    rest_total: float
    part: float  # of what is up to the term
    total: float

    def __add__(self, other: object) -> Products:
        assert isinstance(other, Products)
        return Products(*(a + b for a, b in zip(self, other, strict=True)))


class Measures(NamedTuple):
    """What is said of a term in the end."""

    norm: float
    error: float
    cosine: float
    share: float

    @classmethod
    def of(cls, p: Products) -> Measures:
        if p.total == 0:
            nothing = p.part == 0
            return cls(math.sqrt(p.term), 0.0 if p.rest == 0 else math.inf, float(nothing), 0.0)
        along = p.total - p.rest_total
        cosine = along / math.sqrt(p.part * p.total) if p.part > 0 else 0.0
        error = math.sqrt(p.rest / p.total)
        return cls(math.sqrt(p.term), error, min(cosine, 1.0), p.term_total / p.total)


class Curves:
    """The measures of all lags so far."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._total = _sum([group.total for group in question.groups])
        self._total_squares = {name: dot(g, g) for name, g in self._total.items()}
        self.lags: list[int] = []
        self._rows: list[dict[str, Measures]] = []
        self._without: list[list[dict[str, Measures]]] = []  # leaving out each group
        self._signal: list[Array] = []

    def add(self, parts: list[Term]) -> None:
        """The next lag: its term for each group of sequences."""
        groups = self._question.groups
        self.lags.append(parts[0].lag)
        self._rows.append(_measures(parts, groups))
        self._signal.append(self._signal_of(parts))
        if self._question.sampled:
            self._without.append(
                [
                    _measures(parts[:i] + parts[i + 1 :], groups[:i] + groups[i + 1 :])
                    for i in range(len(groups))
                ]
            )

    def _signal_of(self, parts: list[Term]) -> Array:
        squares = np.zeros(self._question.steps)
        for term in parts:
            for d in term.dstates:
                squares[term.steps] += [dot(step, step) for step in d]
        return np.sqrt(squares)

    def result(
        self, complete: bool, overflow_lag: int | None, terms: list[LagTerm] | None
    ) -> LagGradients:
        q = self._question
        return LagGradients(
            cell=q.cell.name,
            route=q.route,
            lags=np.array(self.lags, np.int64),
            signal=np.array(self._signal).reshape(-1, q.steps),
            total={**self._total, **(q.readout if q.route is None else {})},
            loss=q.loss,
            steps=q.steps,
            check=q.check(),
            overflow_lag=overflow_lag,
            complete=complete,
            standard_error=self._standard_error() if q.sampled else None,
            terms=terms,
            **_curves(self._rows, _keys(self._total)),
        )

    def _standard_error(self) -> dict[str, dict[str, Array]]:
        """By the jackknife over groups (Efron 1982): sqrt((G - 1) / G sum (v_i - mean)^2)."""
        groups = len(self._question.groups)
        keys = _keys(self._total)
        left_out = [_curves([lag[i] for lag in self._without], keys) for i in range(groups)]
        factor = (groups - 1) / math.sqrt(groups)
        return {
            curve: {
                key: factor * np.std([of[curve][key] for of in left_out], axis=0) for key in keys
            }
            for curve in Measures._fields
        }


def _keys(total: Named) -> list[str]:
    return [*total, "params", "state"]


def _curves(rows: list[dict[str, Measures]], keys: list[str]) -> dict[str, dict[str, Array]]:
    return {
        curve: {key: np.array([getattr(row[key], curve) for row in rows]) for key in keys}
        for curve in Measures._fields
    }


def _measures(parts: Sequence[Term], groups: Sequence[Terms]) -> dict[str, Measures]:
    """The measures of one lag, for the sequences of some groups."""
    term, rest = _sum([t.params for t in parts]), _sum([t.rest for t in parts])
    total = _sum([group.total for group in groups])
    found = {name: _products(term[name], rest[name], g) for name, g in total.items()}
    found["params"] = sum_of(list(found.values()))
    found["state"] = sum_of(
        [_state_products(t, group) for t, group in zip(parts, groups, strict=True)]
    )
    return {name: Measures.of(products) for name, products in found.items()}


def _products(term: Array, rest: Array, total: Array) -> Products:
    part = total - rest
    return Products(
        dot(term, term),
        dot(term, total),
        dot(rest, rest),
        dot(rest, total),
        dot(part, part),
        dot(total, total),
    )


def _state_products(term: Term, group: Terms) -> Products:
    """Of delta, as one vector over all steps; the total's other steps count where it does."""
    found = []
    for d, rest, total in zip(term.dstates, term.rest_dstates, group.total_dstates, strict=True):
        whole, near = dot(total, total), total[: len(rest)]
        cut, along = dot(rest, rest), dot(rest, near)
        found.append(
            Products(
                dot(d, d),
                dot(d, total[term.steps]),
                cut,
                along,
                max(whole - 2 * along + cut, 0.0),
                whole,
            )
        )
    return sum_of(found)


def sum_of(products: list[Products]) -> Products:
    total = products[0]
    for each in products[1:]:
        total = total + each
    return total


def _sum(named: Sequence[Named]) -> Named:
    if len(named) == 1:
        return dict(named[0])
    return {name: sum((each[name] for each in named[1:]), named[0][name]) for name in named[0]}


def dot(a: Array, b: Array) -> float:
    """The scalar product, in float64."""
    left, right = a.reshape(-1), b.reshape(-1)
    if left.dtype == np.float64:
        return float(np.dot(left, right))
    wide = (
        np.dot(left[i : i + _SLICE].astype(np.float64), right[i : i + _SLICE].astype(np.float64))
        for i in range(0, left.size, _SLICE)
    )
    return float(sum(wide))
