"""`lag_gradients` and `lag_terms`: each term of the gradient's sum over lags, and its measures."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .. import checks
from ..cells import Cell
from ..checks import Array
from ..losses import At
from ..params import Params, Seed
from ..progress import watched
from ..states import GivenState
from .measures import Curves
from .question import Question, read_question
from .result import LagGradients, LagTerm
from .terms import AtOneStep, Term

__all__ = ["lag_gradients", "lag_terms"]


def lag_gradients(
    cell: str | Cell,
    params: Params,
    x: Array,
    target: Array | None = None,
    *,
    dy: Array | None = None,
    loss: str | None = None,
    at: At = "all",
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    max_lag: int | None = None,
    lags: Iterable[int] | None = None,
    route: str | None = None,
    terms: bool = False,
    sample: int | None = None,
    rng: Seed = 0,
    progress: bool = False,
) -> LagGradients:
    """The gradient of a recurrent layer, resolved by the lag t - k over which it came.

    The gradient of W is a sum over the steps t of the losses and the steps k <= t at which W was
    used. The term of a lag is the part with t - k = lag: the sum of ``delta_k dS_k/dW`` over all k,
    with ``delta_k = dL_t/dS_k`` of the loss at t = k + lag. Of an LSTM S_k is the pair (h, c), as
    2 H independent coordinates.

    With losses at many steps each lag takes a pass of its own, in which all k are computed at once
    at the rate of a matrix product; for a loss at one step, one sweep yields all lags.

    Parameters
    ----------
    cell, params, x, target, loss, at, reduction, state, backend
        As in `value_and_grad`; the loss is that of every step where no `at` says otherwise.
    dy : (T, B, H) array, optional
        The gradient with respect to the states, in place of a target and a loss.
    max_lag : int, optional
        The largest lag that is computed; T - 1 (or that of the loss's step) if not given.
    lags : iterable of int, optional
        The lags that are computed, sorted. Each term is exact, and `error` holds all larger lags,
        also those that were left out. Not together with `max_lag`.
    route : {"direct", "recurrent"}, optional
        For a gated cell, the terms along one route alone: "direct", by which the memory passes
        from step to step (``dc_t/dc_{t-1} = f_t`` of an LSTM, z_t of a GRU), or "recurrent", all
        that passes through the recurrent weights at least once. The terms of both add up to those
        of the whole. `error`, `cosine` and `share` are then relative to the total of the route.
    terms : bool
        Keep the terms themselves, of all lags; `lag_terms` holds one at a time.
    sample : int, optional
        Measure on so many sequences, at least 2, drawn without replacement, in place of all;
        `standard_error` says how accurate that is. It does not show a bias: where the gradients of
        the sequences disagree, the norm of their mean is larger over few sequences than over many.
    rng : seed or Generator
        For `sample`.
    progress : bool
        Show a bar (needs tqdm).

    Returns
    -------
    LagGradients

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.
    MemoryError
        If the work or the terms do not fit the memory.
    RuntimeError
        If the sums of the terms and the gradient disagree: a defect of this package.

    Notes
    -----
    Memory beyond the tape's is four to six arrays of T B H values, whatever the number of lags,
    and with a loss at several steps T numbers for each lag.
    Ctrl-C ends the work with a warning, and the lags that are done are returned (`complete` is
    False). A term that overflows ends the curves before it, with a warning (`overflow_lag`).

    Examples
    --------
    >>> import bptt, numpy as np
    >>> params = bptt.init_params("tanh", input_size=2, hidden_size=16, output_size=3, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((50, 4, 2)).astype("float32")
    >>> ids = np.zeros((50, 4), int)
    >>> lags = bptt.lag_gradients("tanh", params, x, ids, loss="cross_entropy", at="all")
    >>> lags.error["w_hh"].shape
    (50,)
    """
    question = read_question(
        cell,
        params,
        x,
        target,
        dy=dy,
        loss=loss,
        at=at,
        reduction=reduction,
        state=state,
        backend=backend,
        max_lag=max_lag,
        lags=lags,
        route=route,
        sample=sample,
        rng=rng,
    )
    if terms:
        _require_memory_for_terms(question)
    curves = Curves(question)
    group = question.groups[0]
    if isinstance(group, AtOneStep) and question.factor is None and not terms:
        count = curves.add_all(group)
        if count is not None:
            overflow = None if count == len(question.lags) else int(question.lags[count])
            _warn_of_overflow(overflow)
            return curves.result(True, overflow, None)
    kept: list[LagTerm] = []
    complete, overflow = True, None
    try:
        for parts in watched(question, progress, len(question.lags), "lags", "lag"):
            if not curves.add(parts):
                overflow = parts[0].lag
                _warn_of_overflow(overflow)
                break
            if terms:
                kept.append(kept_term(parts))
    except KeyboardInterrupt:
        if not curves.lags:
            raise
        complete = False
        warnings.warn(
            f"interrupted: {len(curves.lags)} of {len(question.lags)} lags are done",
            RuntimeWarning,
            stacklevel=2,
        )
    return curves.result(complete, overflow, kept if terms else None)


def lag_terms(
    cell: str | Cell, params: Params, x: Array, target: Array | None = None, **options: Any
) -> Iterator[LagTerm]:
    """The terms of `lag_gradients` one at a time, from the smallest lag on.

    Parameters
    ----------
    cell, params, x, target
        As in `lag_gradients`.
    **options
        Those of `lag_gradients`, but for `terms` and `progress`.

    Returns
    -------
    iterator of LagTerm
        Their arrays are the caller's.
    """
    unknown = options.keys() - inspect.signature(read_question).parameters.keys()
    if unknown:
        raise TypeError(f"lag_terms: unknown options: {', '.join(sorted(unknown))}")
    question = read_question(cell, params, x, target, **options)
    return (kept_term(parts) for parts in question)


def _require_memory_for_terms(question: Question) -> None:
    weights = sum(g.nbytes for g in question.groups[0].total.values())
    states = sum(d.nbytes for group in question.groups for d in group.total_dstates)
    per_lag = weights + states // (2 if question.step is None else question.steps)
    checks.require_memory(
        len(question.lags) * per_lag,
        f"the terms of {len(question.lags)} lags; bptt.lag_terms holds one at a time, and lags= "
        "takes fewer",
    )


def _warn_of_overflow(lag: int | None) -> None:
    if lag is not None:
        warnings.warn(
            f"the term of lag {lag} is not finite: it overflows, or comes from inf or nan",
            RuntimeWarning,
            stacklevel=3,
        )


def kept_term(parts: list[Term]) -> LagTerm:
    """The term of all sequences, in arrays of its own."""
    params = {name: np.sum([t.params[name] for t in parts], axis=0) for name in parts[0].params}
    dstates = tuple(
        np.concatenate(groups, axis=1) for groups in zip(*(t.dstates for t in parts), strict=True)
    )
    return LagTerm(parts[0].lag, params, dstates, parts[0].steps)
