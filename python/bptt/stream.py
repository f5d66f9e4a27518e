"""A forward pass in blocks of steps, whose states are not kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .backends import Backend
from .backends.protocol import Layer, Record, State
from .checks import Array

__all__ = ["STEPS_AT_ONCE", "state_after", "stream"]

# So many states fit a cache, and are many enough for one call.
STEPS_AT_ONCE = 128


def stream(backend: Backend, layer: Layer) -> Iterator[tuple[int, Array, State]]:
    """Run through x (T, B, I): of each block of n steps the first, y (n, B, H), and the last state.

    y is valid until the next block is asked for.
    """
    into: Record | None = None
    state = layer.state
    for start in range(0, len(layer.x), STEPS_AT_ONCE):
        some = layer.x[start : start + STEPS_AT_ONCE]
        if into is not None:
            history = tuple(states[: len(some)] for states in into.history)
            into = Record(history, into.state, into.saved)
        into = backend.forward(replace(layer, x=some, state=state), "minimal", into)
        state = tuple(s.copy() for s in into.state)
        yield start, into.y, state


def state_after(backend: Backend, layer: Layer) -> State:
    """The state after all steps of x."""
    state = layer.state
    for _, _, last in stream(backend, layer):
        state = last
    return state
