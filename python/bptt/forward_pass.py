"""`forward`, which records a `Tape`."""

from __future__ import annotations

from typing import Any, overload

from . import checks, memory, on_gpu, stacked
from .backends import Backend, for_rows, resolve
from .backends.protocol import SAVE, State
from .budget import WHOLE, read_budget
from .cells import Cell, get_cell
from .checkpoints import Kept, checkpointed, read_kept
from .checks import Array
from .holdings import forward_nbytes, is_small, moved_nbytes
from .inputs import initial_state, layer_of, places_for, read_sequences
from .params import Params
from .reused_tape import record_into
from .row_map import RowMap
from .sequence_options import Flags, Integers, described
from .stack import Layers, is_stack
from .stacked import StackTape
from .states import GivenState
from .tape import Tape

__all__ = ["forward"]


@overload
def forward(
    cell: str | Cell,
    params: Params,
    x: Array,
    state: GivenState | None = None,
    *,
    backend: str = "auto",
    save: str = "gates",
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    out: Tape | None = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    precision: str | None = None,
) -> Tape: ...


@overload
def forward(
    cell: str | Cell,
    params: Layers,
    x: Array,
    state: GivenState | None = None,
    *,
    backend: str = "auto",
    save: str = "gates",
    memory_limit: None = None,
    checkpoint_every: None = None,
    out: StackTape | None = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    precision: str | None = None,
) -> StackTape: ...


def forward(
    cell: str | Cell,
    params: Params | Layers,
    x: Array,
    state: GivenState | None = None,
    *,
    backend: str = "auto",
    save: str = "gates",
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    out: Any = None,
    lengths: Integers | None = None,
    batch_sizes: Integers | None = None,
    reset: Flags | None = None,
    reverse: bool = False,
    batch_first: bool = False,
    precision: str | None = None,
) -> Tape | StackTape:
    """Run a recurrent layer, or a stack of them, over sequences and record what BPTT needs.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
        Elman cells S_t = f(W_x x_t + b_ih + W_s S_{t-1} + b_hh), with f the identity, tanh or
        max(0, .); or a gated one: ``bptt.CELLS[cell].equation``.
    params : Params, or list of layers
        A readout in it is ignored here. In a list or tuple, the lowest layer comes first; a pair
        (forward, reverse) of `Params` in it is a layer in both directions, whose y is (T, B, 2 H),
        and all have the same H.
    x : (T, B, I) array
        Time-major input, in the dtype of `params`; (B, T, I) with `batch_first`, and packed rows
        (N, I) with `batch_sizes`.
    state : (B, H) array, or pair of them, optional
        The initial state S_0, of an LSTM (h_0, c_0); zeros if not given. Of a stack (L*D, B, H), in
        PyTorch's order: layer by layer, and forward before reverse.
    backend : {"auto", "native", "numba", "numpy", "cuda"}
        "auto" takes the first available one that knows the cell and the dtype; see
        `bptt.backends`. "cuda" is for arrays that live on a GPU, as tensors of PyTorch or arrays of
        CuPy, and "auto" takes it there; those of the host are copied. What it returns and what it
        takes of the keywords: docs/cuda.md.
    save : {"gates", "minimal"}
        What the tape keeps for `Tape.backward` beside the states: the gates of every step, or
        nothing, so that `backward` computes them again. Elman cells have no gates.
    memory_limit : int, optional
        Bytes that the tape may keep beside ``y``, with what `Tape.backward` computes again at a
        time. If what `save` says is more, the tape keeps the state at borders of segments of time,
        and `backward` computes each segment again: about a quarter more time and, with "native",
        the same bits. Elman cells keep nothing beside y. A limit that cannot be met is a ValueError
        which names the least.
    checkpoint_every : int, optional
        K: keep a state every K steps (of whole sums of steps, so somewhat more) in place of what
        `save` says. Not together with `memory_limit`; neither goes with a stack, with `out`, or
        with `truncate` and `detach_every` of `backward`. The tape then has no ``c``.
    out : Tape, optional
        A tape to record into and return, in place of a new one. It must have the same cell,
        backend, `save`, dtype and (T, B, H); what it held is overwritten. `state` may be its final
        ``state`` or a part of its ``y``, which is copied first; `x` and `params` must not share
        memory with it. With a stack, a `StackTape` of as many layers and directions.
    lengths : (B,) integers, optional
        How many steps each sequence has, from 0 to T and in any order. Beyond them x is not read
        and y is zero; ``tape.state`` is the state after each sequence's own last step.
    batch_sizes : (T,) integers, optional
        How many rows of x (N, I) each step has, as PyTorch's PackedSequence holds them: rows are
        sorted by falling length, and y is (N, H). Not together with `lengths` or `batch_first`.
    reset : (T, B) bools, optional
        Where a sequence ends and another one begins: at such a step the state before it is zero,
        and no gradient passes. At the first step `state` is then not used. (B, T) with
        `batch_first`, (N,) with `batch_sizes`.
    reverse : bool
        Run each sequence from its last step to its first; y stays in the order of x. A `reset` then
        is about the step that is run through from a state of zeros.
    batch_first : bool
        x is (B, T, I) and y (B, T, H), and so are gradients.
    precision : {"tf32", "bfloat16", "float16"}, optional
        Of float32 arrays on a GPU: W_s, and the states and gradients that it is multiplied by at
        each step, are rounded to this format, and tensor cores sum their products in float32. All
        else stays float32: docs/cuda.md. Not given, all is computed in the dtype of the arrays.

    Returns
    -------
    Tape, or StackTape of a list of layers
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
    how = described(lengths, batch_sizes, reset, reverse, batch_first)
    if on_gpu.is_on_gpu(backend, params, x):
        on_gpu.expect_none(memory_limit=memory_limit, checkpoint_every=checkpoint_every, out=out)
        tape: Any = on_gpu.forward(
            kind, params, x, state, how, backend=backend, save=save, precision=precision
        )
        return tape  # type: ignore[no-any-return]
    on_gpu.expect_on_host(precision=precision)
    if is_stack(params):
        return stacked.forward(
            kind,
            params,
            x,
            state,
            how,
            backend=backend,
            save=save,
            out=out,
            memory_limit=memory_limit,
            checkpoint_every=checkpoint_every,
        )
    params, x, given, rows = read_sequences(kind, params, x, state, how)
    save = checks.choice("save", save, SAVE)
    chosen = for_rows(resolve(backend, kind, x.dtype), rows.offsets)
    limit, budget = read_budget(memory_limit, checkpoint_every)
    if out is not None and (limit is not None or budget != WHOLE):
        raise ValueError("memory_limit, checkpoint_every: expected neither beside out")
    if out is not None:
        return record_into(out, chosen, save, kind, params, x, given, rows)
    if limit is not None or budget != WHOLE:
        kept = read_kept(chosen, kind, params, rows, save, limit, budget)
        if kept.segments is not None:
            return _under_budget(chosen, kind, save, params, x, given, rows, kept)
    places = places_for(chosen, rows)
    if not is_small(kind, params, rows):
        needed = forward_nbytes(kind, params, *rows.extent, save, chosen.beside(kind, save))
        needed += moved_nbytes(
            params, rows, inputs=1 if places is None else 0, units=len(kind.states)
        )
        memory.require_memory(needed, f"the tape of {rows.steps} steps")
    initial = initial_state(kind, params, rows.batch, given)
    layer = layer_of(kind, params, x, initial, rows, places)
    return Tape(chosen, save, layer, chosen.forward(layer, save), rows)


def _under_budget(
    backend: Backend,
    cell: Cell,
    save: str,
    params: Params,
    x: Array,
    given: State | None,
    rows: RowMap,
    kept: Kept,
) -> Tape:
    """A tape that keeps the states at the borders of segments beside y."""
    assert kept.segments is not None
    y_alone = forward_nbytes(cell, params, *rows.extent, "minimal", backend.beside(cell, "minimal"))
    needed = y_alone + kept.nbytes + moved_nbytes(params, rows, inputs=1, units=1)
    memory.require_memory(needed, f"the tape of {rows.steps} steps")
    layer = layer_of(cell, params, x, initial_state(cell, params, rows.batch, given), rows)
    record, checkpoints = checkpointed(backend, layer, cell, rows, kept.segments)
    return Tape(backend, save, layer, record, rows, checkpoints)
