"""`lag_gradients` and `lag_terms`: each term of the gradient's sum over lags, and its measures."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..cells import Cell
from ..checks import Array
from ..params import Params
from ..progress import watched
from ..stack import Layers
from .lag_sum import LagSum
from .measures import Curves
from .options import Options, expect_options, shows
from .question import Question, read_question
from .result import LagGradients, LagTerm
from .terms import Term

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["lag_gradients", "lag_terms", "measured"]


@shows(Options, Question)
def lag_gradients(
    cell: str | Cell,
    params: Params | Layers,
    x: Array,
    target: Array | None = None,
    *,
    terms: bool = False,
    progress: bool = False,
    **options: Unpack[Options],
) -> LagGradients:
    """The gradient of a recurrent layer or a stack, by the lag t - k over which it came.

    The gradient of W is a sum over the steps t of the losses and the steps k <= t at which W was
    used. The term of a lag is the part with t - k = lag: the sum of ``delta_k dS_k/dW`` over all k,
    with ``delta_k = dL_t/dS_k`` of the loss at t = k + lag. Of an LSTM S_k is the pair (h, c), as
    2 H independent coordinates. In a stack, W of any layer was used at k, and delta_k takes every
    way from there to the loss: through later steps and through the layers above.

    With losses at many steps each lag takes a pass of its own, in which all k are computed at once
    at the rate of a matrix product; for a loss at one step, one sweep yields all lags.

    Parameters
    ----------
    cell, params, x, target, loss, at, reduction, state, backend
        As in `value_and_grad`; the loss is that of every step where no `at` says otherwise. A list
        of layers is a stack; each is in one direction, since a reverse one reads later steps, to
        which a loss has no lag.
    dy : (T, B, H) array, optional
        The gradient with respect to the states, of the top layer in a stack, in place of a target
        and a loss.
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
        From layer to layer, within a step, either goes through the weights.
    terms : bool
        Keep the terms themselves, of all lags; `lag_terms` holds one at a time.
    sample : int, optional
        Measure on so many sequences, at least 2, drawn without replacement, in place of all;
        `standard_error` says how accurate that is. It does not show a bias: where the gradients of
        the sequences disagree, the norm of their mean is larger over few sequences than over many.
    rng : seed or Generator
        For `sample`.
    lengths, batch_sizes, reset, reverse, batch_first
        What the sequences are: see `forward`. Lags are counted along each sequence as it is run
        through, and none reaches over a reset. Work is that of rows which are all as long as the
        longest one; several lengths with ``at="last"`` take that of a loss at every step.
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
    Memory beyond the tape's is four to six arrays of T B H values for each layer, whatever the
    number of lags, and with a loss at several steps T numbers for each lag.
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
    >>> layers = bptt.init_params("gru", input_size=2, hidden_size=16, output_size=3, layers=2)
    >>> lags = bptt.lag_gradients("gru", layers, x, ids, loss="cross_entropy", at="all")
    >>> lags.error["layers[0].w_hh"].shape
    (50,)
    """
    expect_options("lag_gradients", options, Options)
    question = Question(cell, params, x, target, **options)
    return measured(question, terms=terms, progress=progress)


@shows(Options, Question)
def lag_terms(
    cell: str | Cell,
    params: Params | Layers,
    x: Array,
    target: Array | None = None,
    **options: Unpack[Options],
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
    expect_options("lag_terms", options, Options)
    total = read_question(cell, params, x, target, **options)
    return map(functools.partial(_kept_term, total), total)


def measured(question: Question, *, terms: bool = False, progress: bool = False) -> LagGradients:
    """`lag_gradients`, whose caller the warnings point at."""
    total = question.read(terms=terms)
    curves, kept, complete = Curves(total), [], True
    if terms or not curves.add_all():
        try:
            for parts in watched(total, progress, len(total.lags), "lags", "lag"):
                if not curves.add(parts):
                    break
                if terms:
                    kept.append(_kept_term(total, parts))
        except KeyboardInterrupt:
            if not curves.lags:
                raise
            complete = False
            _warn(f"interrupted: {len(curves.lags)} of {len(total.lags)} lags are done")
    if curves.overflow_lag is not None:
        _warn(
            f"the term of lag {curves.overflow_lag} is not finite: it overflows, or comes from "
            "inf or nan"
        )
    return curves.result(complete, kept if terms else None)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _kept_term(total: LagSum, parts: list[Term]) -> LagTerm:
    """The term of all sequences, in arrays of its own."""
    params = {name: np.sum([t.params[name] for t in parts], axis=0) for name in parts[0].params}
    layers = [
        tuple(np.concatenate(groups, axis=1) for groups in zip(*of_groups, strict=True))
        for of_groups in zip(*(t.dstates for t in parts), strict=True)
    ]
    dstates = tuple(map(np.stack, zip(*layers, strict=True))) if total.is_stack else layers[0]
    return LagTerm(parts[0].lag, params, dstates, parts[0].steps)
