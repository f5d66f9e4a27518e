"""`value_and_grad`: readout, loss and BPTT in one call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np

from . import checks, memory, on_gpu, stacked
from .backends import for_rows, resolve
from .backends.protocol import Request, Sizes
from .budget import WHOLE, Budget, budget_for, read_budget
from .cells import Cell, get_cell
from .checks import Array
from .grads import Grads, StackGrads
from .holdings import is_small, moved_nbytes, value_and_grad_nbytes
from .inputs import initial_state, layer_of, places_for, read_sequences
from .losses import At, make_objective
from .outputs import check_grads, from_layer, into_layer
from .params import Params
from .sequence_options import Flags, Integers, described
from .stack import Layers, is_stack
from .states import GivenState, as_given, by_part
from .stream import state_after
from .truncation import Truncation, read_truncation, truncated_value_and_grad
from .wanted import Wanted, read_per_row, read_wanted

__all__ = ["value_and_grad"]


@overload
def value_and_grad(
    cell: str | Cell,
    params: Params,
    x: Array,
    target: Array,
    *,
    loss: str,
    at: At,
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    out: Grads | None = None,
    accumulate: bool = False,
    truncate: int | None = None,
    detach_every: int | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    wanted: Wanted = None,
    per_row: str | None = None,
    return_state: Literal[False] = False,
    precision: str | None = None,
) -> tuple[float, Grads]: ...


@overload
def value_and_grad(
    cell: str | Cell,
    params: Params,
    x: Array,
    target: Array,
    *,
    loss: str,
    at: At,
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    out: Grads | None = None,
    accumulate: bool = False,
    truncate: int | None = None,
    detach_every: int | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    wanted: Wanted = None,
    per_row: str | None = None,
    return_state: Literal[True],
    precision: str | None = None,
) -> tuple[float, Grads, GivenState]: ...


@overload
def value_and_grad(
    cell: str | Cell,
    params: Layers,
    x: Array,
    target: Array,
    *,
    loss: str,
    at: At,
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    out: StackGrads | None = None,
    accumulate: bool = False,
    truncate: None = None,
    detach_every: None = None,
    wanted: Wanted = None,
    per_row: str | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    return_state: Literal[False] = False,
    precision: str | None = None,
) -> tuple[float, StackGrads]: ...


@overload
def value_and_grad(
    cell: str | Cell,
    params: Layers,
    x: Array,
    target: Array,
    *,
    loss: str,
    at: At,
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    out: StackGrads | None = None,
    accumulate: bool = False,
    truncate: None = None,
    detach_every: None = None,
    wanted: Wanted = None,
    per_row: str | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    return_state: Literal[True],
    precision: str | None = None,
) -> tuple[float, StackGrads, GivenState]: ...


def value_and_grad(
    cell: str | Cell,
    params: Params | Layers,
    x: Array,
    target: Array,
    *,
    loss: str,
    at: At,
    reduction: str = "mean",
    state: GivenState | None = None,
    backend: str = "auto",
    out: Any = None,
    accumulate: bool = False,
    truncate: int | None = None,
    detach_every: int | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    wanted: Wanted = None,
    per_row: str | None = None,
    return_state: bool = False,
    precision: str | None = None,
) -> tuple[Any, ...]:
    """The loss of a recurrent layer, or a stack of them, with a linear readout, and its gradient in
    every input.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
    params : Params, or list of layers
        With a readout ``w_ho`` (and, if wanted, ``b_o``): O_t = W_o S_t + b_2. A list is a stack,
        as in `forward`, with the readout on its top layer. In a pair (forward, reverse) each has
        the columns of W_o that read its state as its ``w_ho`` (O, H), and the forward one ``b_o``.
    x : (T, B, I) array
    target : array
        ``squared_error``: floats, (B, O) for a loss at one step, else (T, B, O).
        ``cross_entropy``: integer class ids in [0, O), (B,) or (T, B); any where the weight is 0.
        With all steps, the first axes are those of x.
    loss : {"squared_error", "cross_entropy"}
        ``squared_error`` is 1/2 sum_o (Y - O)^2; ``cross_entropy`` is -log softmax(O)[target].
    at : {"last", "all"}, int, or (T, B) array
        The steps whose loss counts: the last one of each sequence, every one, the one of that
        index (negative counts from the end of x), or every one with the given weights, in the dtype
        of `params`. Steps are those of x, also with `reverse`: then the step at 0 has seen its
        whole sequence. A sequence without the step has no term. A
        weight of 0 selects, it does not multiply: nothing of such a step's loss counts, whatever
        its target holds (NaN, or a class id of -100), and its outputs may overflow. The states are
        part of the recurrence all the same, so x is finite. Weights are finite; with "mean" they
        are also not negative.
    reduction : {"mean", "sum"}
        "sum" adds all terms; "mean" divides by their number (rows times loss steps, as far as
        sequences have them, or the sum of the weights).
    state : (B, H) array, or pair of them, optional
        The initial state S_0, of an LSTM (h_0, c_0); zeros if not given.
    backend : {"auto", "native", "numba", "numpy", "cuda"}
        As in `forward`.
    out : Grads, optional
        Written into and returned, in place of new arrays: the result of an earlier call, or
        ``Grads.zeros(params, T, B, cell=cell)``. It must have an array for x, each part of the
        state and each parameter that is present, and None for those that are not. Each array must
        be C-contiguous and writeable, have the dtype of `params` and the shape of what it is the
        gradient of, and share no memory with another of them or with an argument.
    accumulate : bool
        Add the gradients to what `out` holds, in all of its arrays.
    truncate : int, optional
        K, at least 0: the gradient of each step's loss reaches that step and the K steps before it,
        and none further back. S_0 enters at the first step, as x_0 does.
    detach_every : int, optional
        K, at least 1: cut time into segments of K steps (0 to K - 1, K to 2 K - 1, ...) and let no
        gradient pass from one segment into the one before. Not together with `truncate`;
        docs/truncation.md compares the two. Either goes with sequences of one length, without
        resets.
    memory_limit : int, optional
        Bytes that the call may hold beside its arguments and results. If the states of all steps
        are more, those of a segment of time are kept at a time, and the others computed again on
        the way back: about a third more time and, with "native", the same bits. `plan` tells both
        before, of a dense batch of one layer. A limit
        that cannot be met is a ValueError which names the least. A stack takes it if all its layers
        are in one direction.
    checkpoint_every : int, optional
        K: keep a state every K steps (of whole time blocks, so somewhat more) and compute those
        between again. Not together with `memory_limit`; neither goes with `truncate` or
        `detach_every`.
    lengths, batch_sizes, reset, reverse, batch_first
        What the sequences are: see `forward`. Beyond their lengths neither x nor a target or a
        weight is read, and the gradient of x is zero.
    wanted : str or tuple of str, optional
        The gradients to compute, by their names in `Grads`, or "params" for those of all
        parameters; all by default. Others are None in the result, take neither time nor memory
        (the backend numba computes most of them all the same), and are not touched in `out`,
        where they may be None. In a stack a parameter's name stands for those of all layers; there
        are also "layers[1]", "layers[1][0]" of a pair, and either with a name, "layers[1].w_ih".
        The way back ends at the lowest layer of which something is wanted; those below keep
        nothing.
    per_row : {"norm", "gradient"}, optional
        In place of the sum over the sequences, of each parameter's gradient the Frobenius norm
        of each sequence's part, (B,), or each one's part, (B, ...). Arrays of `out` have these
        shapes. ``"norm"`` goes not with `accumulate`, and neither goes with `truncate`,
        `detach_every`, `memory_limit` or a `reset` behind a sequence's first step.
    return_state : bool
        Return the state after the last step of x, too, also where the loss is read before: for a
        call that goes on from there.
    precision : {"tf32", "bfloat16", "float16"}, optional
        Of float32 arrays on a GPU: see `forward`.

    Returns
    -------
    loss : float
        Of this call alone.
    grads : Grads
        With respect to x, state and every parameter that is present; `out` if that was given.
    state : (B, H) array, or pair of them
        Only with ``return_state=True``. A new one, of the bits of ``forward(...).state``; the next
        call's gradient does not pass into this one.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value, among them an array of `out`,
        `accumulate` is set without `out`, or `wanted` is empty or has a name that is none of a
        gradient; nothing has been written then.
    RuntimeError, ImportError
        If the backend is not available here.
    MemoryError
        If the work does not fit the memory; nothing has been touched then.

    Notes
    -----
    Without rows (T = 0 or B = 0) there are no terms: the loss is 0 and so are the gradients.
    Ctrl-C during the call leaves `out` partly written.
    """
    kind = get_cell(cell)
    how = described(lengths, batch_sizes, reset, reverse, batch_first)
    if on_gpu.is_on_gpu(backend, params, x):
        on_gpu.expect_none(
            out=out,
            accumulate=accumulate,
            truncate=truncate,
            detach_every=detach_every,
            memory_limit=memory_limit,
            checkpoint_every=checkpoint_every,
            per_row=per_row,
        )
        return on_gpu.value_and_grad(
            kind,
            params,
            x,
            target,
            how,
            loss=loss,
            at=at,
            reduction=reduction,
            state=state,
            backend=backend,
            precision=precision,
            wanted=wanted,
            return_state=return_state,
        )
    on_gpu.expect_on_host(precision=precision)
    if is_stack(params):
        return stacked.value_and_grad(
            kind,
            params,
            x,
            target,
            how,
            loss=loss,
            at=at,
            reduction=reduction,
            state=state,
            backend=backend,
            out=out,
            accumulate=accumulate,
            truncate=truncate,
            detach_every=detach_every,
            wanted=wanted,
            per_row=per_row,
            memory_limit=memory_limit,
            checkpoint_every=checkpoint_every,
            return_state=return_state,
        )
    params, x, given, rows = read_sequences(kind, params, x, state, how)
    if params.w_ho is None:
        raise ValueError("params: value_and_grad needs the readout weights w_ho, got None")
    cut = read_truncation(truncate, detach_every, rows)
    limit, budget = read_budget(memory_limit, checkpoint_every)
    if cut is not None and (limit is not None or budget != WHOLE):
        raise ValueError(
            "memory_limit, checkpoint_every: expected neither beside truncate or detach_every"
        )
    names = read_wanted(wanted, readout=True)
    per_row = read_per_row(per_row, rows, accumulate=accumulate, truncated=cut is not None)
    if per_row is not None and limit is not None:
        raise ValueError("per_row: expected no memory_limit with it, but checkpoint_every")
    return_state = checks.boolean("return_state", return_state)
    objective = make_objective(params, rows, target, loss, at, reduction)
    chosen = for_rows(resolve(backend, kind, x.dtype), rows.offsets)
    steps, batch = rows.extent
    walked = steps if objective.step is None else objective.step + 1
    cuts = cut is not None and cut.cuts(walked, batch)
    places = None if cuts else places_for(chosen, rows)
    copied = 3 if places is None else 0
    if limit is not None:
        of_layer = walked if rows.offsets is None else len(rows.offsets) - 1
        sizes = Sizes(kind, params, of_layer, rows.inner_batch, rows.offsets, places is not None)
        moved = moved_nbytes(params, rows, inputs=copied)
        budget = budget_for(
            limit,
            of_layer,
            chosen.segment_grain(sizes),
            lambda tried: chosen.kept_nbytes(sizes, tried) + moved,
        )
    if not is_small(kind, params, rows):
        kept, histories = _kept(objective.step is None, walked, cut, budget)
        needed = value_and_grad_nbytes(
            kind,
            params,
            steps,
            batch,
            chosen.beside(kind, "gates"),
            kept=kept,
            read=kept if objective.step is None else 1,
            out=out is not None,
            wanted=names,
            per_row=per_row,
            histories=histories,
        )
        if per_row == "norm" and budget != WHOLE:  # the sums of all rows are held
            needed += batch * params.nbytes
        needed += moved_nbytes(params, rows, inputs=copied)
        memory.require_memory(needed, f"value_and_grad over {walked} steps")
    initial = initial_state(kind, params, rows.batch, given)
    if out is not None or accumulate is not False:
        read = {
            "x": x,
            **by_part("state", initial),
            "target": objective.target,
            "at": objective.weights,
        }
        check_grads(
            out,
            accumulate,
            params,
            initial,
            read,
            readout=True,
            wanted=names,
            per_row=per_row,
        )
    layer = layer_of(kind, params, x, initial, rows, places)
    last = tuple(map(np.empty_like, layer.state)) if return_state else None
    into = into_layer(rows, out, bool(accumulate), names, per_row, places)
    request = Request(into, bool(accumulate), names, per_row=per_row, budget=budget)
    if cut is not None and cuts:
        value, grads = truncated_value_and_grad(cut, chosen, layer, objective, request, last)
    else:
        value, grads = chosen.value_and_grad(layer, objective, request, last)
    grads = from_layer(rows, grads, out, bool(accumulate), per_row, places)
    if last is None:
        return float(value), grads
    if objective.step is not None:  # the steps behind it, which were not run
        layer = layer.own_rows()
        last = state_after(chosen, replace(layer, x=layer.x[walked:], state=last))
    return float(value), grads, as_given(rows.scatter_state(last))


def _kept(every_step: bool, walked: int, cut: Truncation | None, budget: Budget) -> tuple[int, int]:
    """How many of the steps that are walked through are kept at a time, and how many histories a
    truncation takes."""
    if budget != WHOLE:
        return min(walked, budget.segment_steps), 0
    if cut is None:
        return walked, 0
    if every_step:
        return cut.kept(walked), cut.histories
    return walked - cut.first(walked - 1), 0
