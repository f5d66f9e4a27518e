"""`as_one_step`: steps that are each for itself, as the rows of a pass of one step.

    dS_{t-1} = W_s^T da_t + ...        da_t = f'(a_t) dS_t        for all t at once: T = 1, T·B rows

No step waits for another, so a backend's own BPTT takes all of them at once.
"""

from __future__ import annotations

from dataclasses import replace

from ..checks import Array
from ..grads import Grads
from ..states import as_given, as_tuple
from .protocol import Incoming, Layer, Record, Request, State, Steps, Trace

__all__ = ["as_one_step"]


def as_one_step(
    steps: Steps, saved: tuple[Array, ...], dstates: State, request: Request
) -> tuple[Layer, Record, Incoming, Request]:
    """The arguments of ``Backend.backward``; `saved` is ``Steps.saved`` with its rows in one."""
    before, after, given = map(_rows, (steps.before, steps.after, dstates))
    (x,) = _rows((steps.x,))
    initial = tuple(s[0] for s in before)
    return (
        Layer(steps.cell, steps.params, x, initial),
        Record(after, initial, saved),
        Incoming(given),
        replace(request, out=_out(request), trace=_trace(request.trace)),
    )


def _out(request: Request) -> Grads:
    out = request.out
    assert out is not None
    state = as_given(tuple(s[0] for s in _rows(as_tuple(out.state))))
    return replace(out, x=None if out.x is None else _rows((out.x,))[0], state=state)


def _trace(trace: Trace | None) -> Trace | None:
    if trace is None:
        return None
    deltas = trace.deltas
    if deltas is not None:
        deltas = deltas.reshape(len(deltas), 1, -1, deltas.shape[-1])
    return Trace(deltas, _rows(trace.dstates))


def _rows(arrays: State) -> State:
    """(T, B, K) as (1, T B, K): the same memory."""
    return tuple(a.reshape(1, -1, a.shape[-1]) for a in arrays)
