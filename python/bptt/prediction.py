"""`predict`: the outputs of a network and its final state, without a gradient."""

from __future__ import annotations

from typing import NamedTuple, Union

import numpy as np

from . import memory, on_gpu, stacked
from .backends import Backend, for_rows, resolve
from .backends.protocol import Layer, State
from .cells import Cell, get_cell
from .checks import Array
from .holdings import is_small, moved_nbytes, prediction_nbytes
from .inputs import initial_state, layer_of, read_sequences
from .losses import read_step
from .params import Params
from .sequence_options import Flags, Integers, described
from .stack import Layers, is_stack
from .states import GivenState, as_given
from .stream import STEPS_AT_ONCE, stream

__all__ = ["Prediction", "predict"]


class Prediction(NamedTuple):
    """What `predict` returns.

    Attributes
    ----------
    outputs : (T, B, O) array, or (B, O) of one step
        O_t = W_o S_t + b_2: values, or the logits of classes.
    state : (B, H) array, or pair of them
        After the last step of x, as `predict`, `forward` and `value_and_grad` take it.
    """

    outputs: Array
    state: GivenState


def predict(
    cell: str | Cell,
    params: Params | Layers,
    x: Array,
    state: GivenState | None = None,
    *,
    at: Union[str, int] = "all",
    backend: str = "auto",
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
) -> Prediction:
    """The outputs of a recurrent layer with a linear readout, and its state after the last step.

    The states of all steps are not kept: beside its result a call needs memory for about a hundred
    steps; of a stack of layers, for the states of two of them.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
    params : Params, or list of layers
        With a readout ``w_ho`` (and, if wanted, ``b_o``): O_t = W_o S_t + b_2. A list is a stack,
        as in `value_and_grad`.
    x : (T, B, I) array
    state : (B, H) array, or pair of them, optional
        The initial state S_0, of an LSTM (h_0, c_0); zeros if not given. The state of an earlier
        call continues its sequences.
    at : {"all", "last"} or int
        The steps that are read out: every one, the last one of each sequence, or the one of that
        index (negative counts from the end of x).
    backend : {"auto", "native", "numba", "numpy"}
    lengths, batch_sizes, reset, reverse, batch_first
        What the sequences are: see `forward`. Outputs of steps that a sequence does not have are
        zero.

    Returns
    -------
    Prediction
        The pair ``(outputs, state)``: outputs (T, B, O), in the order of x, or (B, O) for one step.
        With T = 0 and ``at="all"`` these are of shape (0, B, O), and the state is a copy of the
        initial one.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.
    RuntimeError, ImportError
        If the backend is not available here.
    MemoryError
        If the outputs do not fit the memory; nothing has been touched then.

    Examples
    --------
    >>> import bptt, numpy as np
    >>> params = bptt.init_params("gru", input_size=2, hidden_size=8, output_size=3, rng=0)
    >>> x = np.ones((20, 4, 2), np.float32)
    >>> outputs, state = bptt.predict("gru", params, x)
    >>> outputs.shape, state.shape
    ((20, 4, 3), (4, 8))
    >>> first, state = bptt.predict("gru", params, x[:15])  # or in two parts
    >>> second, state = bptt.predict("gru", params, x[15:], state)
    >>> bool(np.all(np.concatenate([first, second]) == outputs))
    True
    """
    kind = get_cell(cell)
    how = described(lengths, batch_sizes, reset, reverse, batch_first)
    if on_gpu.is_on_gpu(backend, params, x):
        raise TypeError(
            "predict: computed on the host alone, from arrays there (.cpu() copies them): backend "
            "'cuda' computes forward, Tape.backward and value_and_grad, and nothing else"
        )
    if is_stack(params):
        return Prediction(*stacked.predict(kind, params, x, state, how, at=at, backend=backend))
    params, x, given, rows = read_sequences(kind, params, x, state, how)
    if params.w_ho is None:
        raise ValueError("params: predict needs the readout weights w_ho, got None")
    step = read_step(at, rows.steps)
    if at == "last" and step is None:
        raise ValueError('at: there are no steps (x has T = 0), got "last"')
    chosen = for_rows(resolve(backend, kind, x.dtype), rows.offsets)
    if not is_small(kind, params, rows):
        steps, batch = rows.extent
        read, at_once = steps if step is None else 1, min(steps, STEPS_AT_ONCE)
        beside = chosen.beside(kind, "minimal")
        needed = prediction_nbytes(kind, params, read, batch, at_once, beside)
        needed += moved_nbytes(params, rows, inputs=1)
        memory.require_memory(needed, f"predict over {rows.steps} steps")
    initial = initial_state(kind, params, rows.batch, given)
    layer = layer_of(kind, params, x, initial, rows)
    if step is None:
        outputs = np.empty((*rows.inner, len(params.w_ho)), x.dtype)
        final = tuple(s.copy() for s in layer.state)
        for place, y, after in stream(chosen, layer):
            final, outputs[place] = after, chosen.read_out(params, y)
        return Prediction(rows.scatter(outputs), as_given(rows.scatter_state(final)))
    sequence, source = rows.rows_at(None if at == "last" else step)
    y, final = _pick(chosen, layer, rows.place(source))
    outputs = np.zeros((rows.batch, len(params.w_ho)), x.dtype)
    outputs[sequence] = chosen.read_out(params, y)
    return Prediction(outputs, as_given(rows.scatter_state(final)))


def _pick(backend: Backend, layer: Layer, places: Array) -> tuple[Array, State]:
    """Some rows of y, (n, H), and the state after the last step."""
    hidden, final = layer.params.hidden_size, tuple(s.copy() for s in layer.state)
    picked, begin = np.empty((len(places), hidden), layer.x.dtype), 0
    for _, y, after in stream(backend, layer):
        final, rows = after, y.reshape(-1, hidden)
        here = (begin <= places) & (places < begin + len(rows))
        picked[here] = rows[places[here] - begin]
        begin += len(rows)
    return picked, final
