"""What a backward pass leaves behind of every step, and what it need not compute."""

from __future__ import annotations

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.backends.protocol import Incoming, Layer, Request, Trace
from bptt.grads import EVERYTHING
from bptt.states import as_tuple
from problems import Problem, make_problem

SHAPES = [(1, 1, 1, 1), (9, 3, 7, 17), (70, 1, 2, 64), (40, 33, 5, 65), (3, 129, 8, 31)]


def backward(p: Problem, backend: str, wanted: frozenset[str], trace: Trace | None) -> bptt.Grads:
    chosen, state = REGISTRY[backend], as_tuple(p.state)
    layer = Layer(bptt.CELLS[p.cell], p.params, p.x, state)
    incoming = Incoming((p.dy, p.dc)[: len(state)], as_tuple(p.dstate))
    request = Request(wanted=wanted, trace=trace)
    return chosen.backward(layer, chosen.forward(layer, "gates"), incoming, request)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_deltas_and_state_gradients_are_those_of_the_reference(
    threads: int, shape: tuple[int, ...], cell: str, compiled_backend: str, keep_num_threads: None
) -> None:
    bptt.set_num_threads(threads)
    p = make_problem(cell, *shape)
    found, expected = (Trace.empty(bptt.CELLS[cell], p.dy) for _ in range(2))
    for array in (found.deltas, *found.dstates):
        array[:] = np.nan
    backward(p, compiled_backend, EVERYTHING, found)
    backward(p, "numpy", EVERYTHING, expected)
    close = {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(found.deltas, expected.deltas, **close)
    for one, other in zip(found.dstates, expected.dstates, strict=True):
        np.testing.assert_allclose(one, other, **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_wanted_alone_is_what_it_is_among_all(
    shape: tuple[int, ...], cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    whole = backward(p, backend, EVERYTHING, None)
    params = backward(p, backend, EVERYTHING - {"x"}, None)
    state = backward(p, backend, frozenset({"state"}), None)
    for name, g in whole.arrays().items():
        np.testing.assert_array_equal(getattr(params, name), g, err_msg=name)
    for other in (params, state):
        for one, part in zip(as_tuple(other.state), as_tuple(whole.state), strict=True):
            np.testing.assert_array_equal(one, part)
