"""`predict`: the outputs of a network and its final state, without a gradient."""

from __future__ import annotations

from typing import NamedTuple, Union

import numpy as np

from . import memory
from .backends import resolve
from .backends.protocol import Layer
from .cells import Cell, get_cell
from .checks import Array
from .holdings import prediction_nbytes
from .inputs import initial_state, read_inputs
from .losses import read_step
from .params import Params
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
    params: Params,
    x: Array,
    state: GivenState | None = None,
    *,
    at: Union[str, int] = "all",
    backend: str = "auto",
) -> Prediction:
    """The outputs of a recurrent layer with a linear readout, and its state after the last step.

    The states of all steps are not kept: beside its result a call needs memory for about a hundred
    steps.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
    params : Params
        With a readout ``w_ho`` (and, if wanted, ``b_o``): O_t = W_o S_t + b_2.
    x : (T, B, I) array
    state : (B, H) array, or pair of them, optional
        The initial state S_0, of an LSTM (h_0, c_0); zeros if not given. The state of an earlier
        call continues its sequences.
    at : {"all", "last"} or int
        The steps that are read out: every one, the last one, or the one of that index (negative
        counts from the end).
    backend : {"auto", "native", "numba", "numpy"}

    Returns
    -------
    Prediction
        The pair ``(outputs, state)``: outputs (T, B, O), or (B, O) for one step. With T = 0 and
        ``at="all"`` these are of shape (0, B, O), and the state is a copy of the initial one.

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
    params, x, given = read_inputs(kind, params, x, state)
    if params.w_ho is None:
        raise ValueError("params: predict needs the readout weights w_ho, got None")
    steps, batch, _ = x.shape
    step = read_step(at, steps)
    if at == "last" and step is None:
        raise ValueError('at: there are no steps (x has T = 0), got "last"')
    chosen = resolve(backend, kind, x.dtype)
    shape = (*((steps,) if step is None else ()), batch, len(params.w_ho))
    read, at_once = steps if step is None else 1, min(steps, STEPS_AT_ONCE)
    beside = chosen.beside(kind, "minimal")
    needed = prediction_nbytes(kind, params, read, batch, at_once, beside)
    memory.require_memory(needed, f"predict over {steps} steps")
    initial = initial_state(kind, params, batch, given)
    outputs, final = np.empty(shape, x.dtype), tuple(s.copy() for s in initial)
    for start, y, after in stream(chosen, Layer(kind, params, x, initial)):
        final = after
        if step is None:
            outputs[start : start + len(y)] = chosen.read_out(params, y)
        elif start <= step < start + len(y):
            outputs[:] = chosen.read_out(params, y[step - start])
    return Prediction(outputs, as_given(final))
