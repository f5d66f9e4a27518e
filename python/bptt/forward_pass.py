"""`forward`, which records a `Tape`."""

from __future__ import annotations

from . import checks, memory
from .backends import resolve
from .backends.protocol import SAVE, Layer
from .cells import Cell, get_cell
from .checks import Array
from .holdings import forward_nbytes
from .inputs import initial_state, read_inputs
from .params import Params
from .states import GivenState
from .tape import Tape, record_into

__all__ = ["forward"]


def forward(
    cell: str | Cell,
    params: Params,
    x: Array,
    state: GivenState | None = None,
    *,
    backend: str = "auto",
    save: str = "gates",
    out: Tape | None = None,
) -> Tape:
    """Run a recurrent layer over a batch of sequences and record what BPTT needs.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
        Elman cells S_t = f(W_x x_t + b_ih + W_s S_{t-1} + b_hh), with f the identity, tanh or
        max(0, .); or a gated one: ``bptt.CELLS[cell].equation``.
    params : Params
        A readout in it is ignored here.
    x : (T, B, I) array
        Time-major input, in the dtype of `params`.
    state : (B, H) array, or pair of them, optional
        The initial state S_0, of an LSTM (h_0, c_0); zeros if not given.
    backend : {"auto", "native", "numba", "numpy"}
        "auto" takes the first available one that knows the cell and the dtype; see
        `bptt.backends`.
    save : {"gates", "minimal"}
        What the tape keeps for `Tape.backward` beside the states: the gates of every step, or
        nothing, so that `backward` computes them again. Elman cells have no gates.
    out : Tape, optional
        A tape to record into and return, in place of a new one. It must have the same cell,
        backend, `save`, dtype and (T, B, H); what it held is overwritten. `state` may be its final
        ``state`` or a part of its ``y``, which is copied first; `x` and `params` must not share
        memory with it.

    Returns
    -------
    Tape
        With ``y``, the final ``state``, and ``backward``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value; `out` is then as it was.
    RuntimeError, ImportError
        If the backend is not available here; RuntimeError if `out` was released.
    MemoryError
        If the result does not fit the memory; nothing has been touched then.

    Notes
    -----
    If the pass does not end (Ctrl-C, or lack of memory), `out` is left released.
    """
    kind = get_cell(cell)
    params, x, given = read_inputs(kind, params, x, state)
    save = checks.choice("save", save, SAVE)
    chosen = resolve(backend, kind, x.dtype)
    if out is not None:
        return record_into(out, chosen, save, kind, params, x, given)
    steps, batch, _ = x.shape
    needed = forward_nbytes(kind, params, steps, batch, save, chosen.beside(kind, save))
    memory.require_memory(needed, f"the tape of {steps} steps")
    initial = initial_state(kind, params, batch, given)
    layer = Layer(kind, params.snapshot(), x, initial)
    return Tape(chosen, save, layer, chosen.forward(layer, save))
