"""Packed rows: below the public functions, each row of a layer is the row computed alone.

Bits are compared where a backend promises them. A BLAS sums in another order for another number of
rows, and where `DenseRuns` cuts a sequence, the gradient that crosses the cut is rounded once more.
"""

from __future__ import annotations

from dataclasses import replace

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.backends.dense_runs import for_rows
from bptt.backends.protocol import ALL, Backend, Incoming, Layer, Record, Request, State, Trace
from bptt.grads import Grads
from bptt.losses import Objective
from bptt.states import as_tuple
from problems import Problem, each, make_problem

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

# Of falling length, two of them equal, and one without a step.
LENGTHS = [9, 6, 6, 3, 1, 0]
BATCH = len(LENGTHS)
ACTIVE = [sum(n > t for n in LENGTHS) for t in range(9)]
OFFSETS = np.concatenate([[0], np.cumsum(ACTIVE)])

PARAMS = frozenset(("w_ih", "w_hh", "b_ih", "b_hh"))


def problem(cell: str, dtype: str) -> Problem:
    return make_problem(cell, 9, BATCH, 4, 17, 3, dtype=dtype, seed=5)


def packed(array: np.ndarray) -> np.ndarray:
    """(N, ...) of padded (T, B, ...)."""
    return np.concatenate([array[t, :n] for t, n in enumerate(ACTIVE)])


def of_row(array: np.ndarray, row: int) -> np.ndarray:
    """The steps of one row of a packed array."""
    return array[OFFSETS[: LENGTHS[row]] + row]


def layer_of(p: Problem) -> Layer:
    kind, state = bptt.CELLS[p.cell], as_tuple(p.state)
    return Layer(kind, p.params, packed(p.x), state, OFFSETS)


def incoming_of(p: Problem) -> Incoming:
    dhistory = (p.dy, p.dc)[: len(as_tuple(p.state))]
    return Incoming(each(packed, dhistory), as_tuple(p.dstate))


def alone(p: Problem, row: int, backend: Backend) -> tuple[Layer, Record, Incoming]:
    """A dense layer of one row, its pass, and the gradients that come into it."""
    one, steps = p.row(row), LENGTHS[row]
    layer = Layer(bptt.CELLS[p.cell], p.params, one.x[:steps], as_tuple(one.state))
    dhistory = tuple(d[:steps] for d in (one.dy, one.dc)[: len(layer.state)])
    return layer, backend.forward(layer, "gates"), Incoming(dhistory, as_tuple(one.dstate))


def assert_same(found: np.ndarray, expected: np.ndarray, backend: str, what: str) -> None:
    assert found.shape == expected.shape, what
    assert found.dtype == expected.dtype, what
    if backend == "native" and (REGISTRY[backend].packed or "state of" in what):
        np.testing.assert_array_equal(found, expected, what)
    else:
        assert_near(found, expected, what)


def assert_near(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    scale = np.max(np.abs(expected), initial=1.0)
    error = np.max(np.abs(found - expected), initial=0.0)
    assert error <= 100 * np.finfo(expected.dtype).eps * scale, what


@pytest.mark.parametrize("save", ["gates", "minimal"])
def test_every_row_is_the_row_alone(save: str, cell: str, dtype: str, backend: str) -> None:
    p, one = problem(cell, dtype), REGISTRY[backend]
    layer = layer_of(p)
    many = for_rows(one, OFFSETS)
    record = many.forward(layer, save)
    grads = many.backward(layer, record, incoming_of(p), ALL)
    sums = {name: np.zeros_like(g) for name, g in grads.arrays().items()}
    for row in range(BATCH):
        of_one, expected, incoming = alone(p, row, one)
        back = one.backward(of_one, expected, incoming, ALL)
        for states, s in zip(record.history, expected.history, strict=True):
            assert_same(of_row(states, row), s[:, 0], backend, f"the state of row {row}")
        for states, s in zip(record.state, expected.state, strict=True):
            assert_same(states[row], s[0], backend, f"the last state of row {row}")
        assert_same(of_row(grads.x, row), back.x[:, 0], backend, f"dx of row {row}")
        for d, s in zip(as_tuple(grads.state), as_tuple(back.state), strict=True):
            assert_same(d[row], s[0], backend, f"the gradient of S_0 of row {row}")
        for name, g in back.arrays().items():
            sums[name] += g
    for name, g in sums.items():
        assert_near(grads.arrays()[name], g, name)


def test_what_passes_by_is_that_of_the_row_alone(cell: str, dtype: str, backend: str) -> None:
    p, one = problem(cell, dtype), REGISTRY[backend]
    layer = layer_of(p)
    many = for_rows(one, OFFSETS)
    record = many.forward(layer, "gates")
    trace = Trace.empty(layer.cell, record.y)
    request = Request(wanted=PARAMS, trace=trace)
    many.backward(layer, record, incoming_of(p), request)
    assert trace.deltas is not None
    for row in range(BATCH):
        of_one, expected, incoming = alone(p, row, one)
        by_itself = Trace.empty(layer.cell, expected.y)
        one.backward(of_one, expected, incoming, Request(wanted=PARAMS, trace=by_itself))
        for found, d in zip(trace.dstates, by_itself.dstates, strict=True):
            assert_same(of_row(found, row), d[:, 0], backend, f"dstates of row {row}")
        assert by_itself.deltas is not None
        for found, d in zip(trace.deltas, by_itself.deltas, strict=True):
            assert_same(of_row(found, row), d[:, 0], backend, f"deltas of row {row}")


def filled(layer: Layer, value: float, *, readout: bool = False) -> Grads:
    named = layer.params.arrays()
    if not readout:
        named = {name: a for name, a in named.items() if name not in ("w_ho", "b_o")}
    state = tuple(np.full_like(s, value) for s in layer.state)
    return Grads(
        np.full_like(layer.x, value),
        state[0] if len(state) == 1 else state,
        **{name: np.full_like(a, value) for name, a in named.items()},
    )


def arrays(grads: Grads) -> tuple[np.ndarray, ...]:
    return (grads.x, *as_tuple(grads.state), *grads.arrays().values())


def test_gradients_go_into_given_arrays_or_are_added(cell: str, dtype: str, backend: str) -> None:
    p = problem(cell, dtype)
    layer = layer_of(p)
    many = for_rows(REGISTRY[backend], OFFSETS)
    record = many.forward(layer, "gates")
    fresh = many.backward(layer, record, incoming_of(p), ALL)
    for accumulate, before in ((False, 7.0), (True, 0.5)):
        out = filled(layer, before)
        request = Request(out, accumulate)
        assert many.backward(layer, record, incoming_of(p), request) is out
        for array, new in zip(arrays(out), arrays(fresh), strict=True):
            assert_near(array, new + (before if accumulate else 0), f"accumulate={accumulate}")


def test_a_pass_goes_into_the_arrays_of_another(cell: str, dtype: str, backend: str) -> None:
    p, q = problem(cell, dtype), make_problem(cell, 9, BATCH, 4, 17, 3, dtype=dtype, seed=6)
    layer, other = layer_of(p), layer_of(q)
    many = for_rows(REGISTRY[backend], OFFSETS)
    record = many.forward(other, "gates")
    again = many.forward(layer, "gates", record)
    fresh = many.forward(layer, "gates")
    assert again.y is record.y
    for found, new in zip(
        (*again.history, *again.state), (*fresh.history, *fresh.state), strict=True
    ):
        assert_same(found, new, backend, "states")
    found = many.backward(layer, again, incoming_of(p), ALL)
    expected = many.backward(layer, fresh, incoming_of(p), ALL)
    assert all(map(np.array_equal, arrays(found), arrays(expected)))


def test_the_fused_call_is_the_sum_over_rows(
    loss: str, cell: str, dtype: str, backend: str
) -> None:
    p, one = problem(cell, dtype), REGISTRY[backend]
    layer = layer_of(p)
    target = packed(p.ids if loss == "cross_entropy" else p.target)
    weights = packed(p.weights)
    weights[3:7] = 0  # selects: these targets are not read
    target[3:7] = -100
    many = for_rows(one, OFFSETS)
    last: State = tuple(map(np.empty_like, layer.state))
    objective = Objective(loss, target, None, weights, 0.25)
    value, grads = many.value_and_grad(layer, objective, ALL, last)
    total = 0.0
    sums = {name: np.zeros_like(g) for name, g in grads.arrays().items()}
    for row in range(BATCH):
        of_one, record, _ = alone(p, row, one)
        of_target, of_weights = (of_row(a, row)[:, None] for a in (target, weights))
        part = replace(objective, target=of_target, weights=of_weights)
        found, back = one.value_and_grad(of_one, part, ALL)
        total += found
        assert_near(of_row(grads.x, row), back.x[:, 0], f"dx of row {row}")
        for d, s in zip(as_tuple(grads.state), as_tuple(back.state), strict=True):
            assert_near(d[row], s[0], f"the gradient of S_0 of row {row}")
        for s, expected in zip(last, record.state, strict=True):
            assert_same(s[row], expected[0], backend, f"the last state of row {row}")
        for name, g in back.arrays().items():
            sums[name] += g
    assert value == pytest.approx(total, rel=1e-5)
    for name, g in sums.items():
        assert_near(grads.arrays()[name], g, name)
    out = filled(layer, 0.5, readout=True)
    assert many.value_and_grad(layer, objective, Request(out, True))[1] is out
    for array, new in zip(arrays(out), arrays(grads), strict=True):
        assert_near(array, new + array.dtype.type(0.5), "accumulated")
