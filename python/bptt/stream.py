"""A forward pass in blocks of steps, whose states are not kept."""

from __future__ import annotations

from collections.abc import Iterator

from .backends import Backend
from .backends.protocol import Layer, Record, State
from .checks import Array

__all__ = ["STEPS_AT_ONCE", "state_after", "stream"]

# So many states fit a cache, and are many enough for one call.
STEPS_AT_ONCE = 128


def stream(backend: Backend, layer: Layer) -> Iterator[tuple[slice, Array, State]]:
    """Run through x (T, B, I): of each block of n steps its place in arrays of all steps, y
    (n, B, H), and the state after it.

    y is valid until the next block is asked for. Packed rows come as such.
    """
    into: Record | None = None
    state = layer.state
    for start in range(0, layer.steps, STEPS_AT_ONCE):
        stop = min(start + STEPS_AT_ONCE, layer.steps)
        some = layer.part(start, stop, state)
        if into is not None:  # no block has more rows than the one before
            history = tuple(states[: len(some.x)] for states in into.history)
            into = Record(history, into.state, into.saved)
        into = backend.forward(some, "minimal", into)
        state = tuple(s.copy() for s in into.state)
        yield layer.rows(start, stop), into.y, state


def state_after(backend: Backend, layer: Layer) -> State:
    """The state after all steps of x."""
    state = layer.state
    for _, _, last in stream(backend, layer):
        state = last
    return state
