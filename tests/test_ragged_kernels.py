"""The compiled kernels on ragged batches: the bits of every row computed alone.

A layer whose rows end at different steps, packed one step after the other, is compared with the
same rows, each a batch of its own. What sums over rows is compared with the sum of theirs.
"""

from __future__ import annotations

import bptt
import numpy as np
import pytest
from bptt.backends.native import NativeBackend
from bptt.backends.protocol import ALL, Request, Trace
from bptt.losses import Objective
from bptt.states import as_tuple
from ragged import LENGTHS, Ragged, ragged

native = NativeBackend()
pytestmark = [
    pytest.mark.pairs,  # of cells, lengths and numbers of threads
    pytest.mark.skipif(native.missing() is not None, reason="no compiled module"),
]

SIZES = [(1, 1), (3, 7), (8, 16), (17, 33), (300, 65), (5, 257)]
LARGE = (700, 900)  # weights that threads share by units


class Sums:
    """Of the gradients of rows that each were a batch of their own."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        self.scales: dict[str, float] = {}

    def add(self, grads: bptt.Grads) -> None:
        for name, g in grads.arrays().items():
            self.sums[name] = self.sums.get(name, 0) + g.astype(np.float64)
            self.scales[name] = self.scales.get(name, 0) + float(np.max(np.abs(g), initial=0))

    def check(self, grads: bptt.Grads) -> None:
        for name, g in grads.arrays().items():
            error = np.max(np.abs(g - self.sums[name]), initial=0)
            assert error <= 64 * np.finfo(g.dtype).eps * self.scales[name], name


def check_against_rows(case: Ragged, save: str) -> None:
    record = native.forward(case.layer, save)
    grads = native.backward(case.layer, record, case.incoming, ALL)
    sums = Sums()
    for b, at in enumerate(case.rows):
        layer, incoming = case.row(b)
        one = native.forward(layer, save)
        found = native.backward(layer, one, incoming, ALL)
        for mine, alone in zip(record.history, one.history, strict=True):
            np.testing.assert_array_equal(mine[at], alone[:, 0])
        for mine, alone in zip(record.state, one.state, strict=True):
            np.testing.assert_array_equal(mine[b], alone[0])
        np.testing.assert_array_equal(grads.x[at], found.x[:, 0])
        for mine, alone in zip(as_tuple(grads.state), as_tuple(found.state), strict=True):
            np.testing.assert_array_equal(mine[b], alone[0])
        sums.add(found)
    sums.check(grads)


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = bptt.get_num_threads()
    bptt.set_num_threads(request.param)
    yield request.param
    bptt.set_num_threads(before)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_rows_of_a_ragged_batch_have_the_bits_of_rows_alone(cell, lengths, threads):
    for i, sizes in enumerate(SIZES):
        dtype, save = ("float32", "float64")[i % 2], ("gates", "minimal")[i // 2 % 2]
        check_against_rows(ragged(cell, lengths, sizes, dtype), save)


def test_large_weights_shared_by_units_keep_the_bits_of_rows(threads):
    check_against_rows(ragged("lstm", [4, 4, 3, 1], LARGE, "float32"), "gates")
    check_against_rows(ragged("gru", [6, 2, 2], (30, 420), "float64"), "minimal")


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_value_and_grad_of_a_ragged_batch_is_the_sum_of_its_rows(lengths, loss, threads):
    case = ragged("lstm", lengths, (17, 64), "float64")
    rng = np.random.default_rng(0)
    rows = len(case.layer.x)
    given = rng.standard_normal((rows, 3)) if loss == "squared_error" else rng.integers(0, 3, rows)
    weights = (rng.random(rows) < 0.5).astype(np.float64)
    objective = Objective(loss, given, None, weights, 0.5)
    last = tuple(map(np.empty_like, case.layer.state))
    value, grads = native.value_and_grad(case.layer, objective, ALL, last)
    total, sums = 0.0, Sums()
    for b, at in enumerate(case.rows):
        one = Objective(loss, given[at][:, None], None, weights[at][:, None], 0.5)
        end = tuple(np.empty_like(s[:1]) for s in last)
        alone, found = native.value_and_grad(case.row(b)[0], one, ALL, end)
        np.testing.assert_array_equal(grads.x[at], found.x[:, 0])
        for mine, theirs in zip(as_tuple(grads.state), as_tuple(found.state), strict=True):
            np.testing.assert_array_equal(mine[b], theirs[0])
        for mine, theirs in zip(last, end, strict=True):
            np.testing.assert_array_equal(mine[b], theirs[0])
        sums.add(found)
        total += alone
    sums.check(grads)
    assert value == pytest.approx(total, rel=1e-13)


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_what_passes_by_on_the_way_back_is_that_of_each_row(cell, threads):
    case = ragged(cell, LENGTHS["long and short"], (8, 24), "float32")
    record = native.forward(case.layer, "gates")
    trace = Trace.empty(case.layer.cell, record.y)
    native.backward(case.layer, record, case.incoming, Request(trace=trace))
    for b, at in enumerate(case.rows):
        layer, incoming = case.row(b)
        one = native.forward(layer, "gates")
        alone = Trace.empty(layer.cell, one.y)
        native.backward(layer, one, incoming, Request(trace=alone))
        np.testing.assert_array_equal(trace.deltas[:, at], alone.deltas[:, :, 0])
        for mine, theirs in zip(trace.dstates, alone.dstates, strict=True):
            np.testing.assert_array_equal(mine[at], theirs[:, 0])


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_bits_do_not_depend_on_threads_or_what_is_saved(cell):
    case = ragged(cell, LENGTHS["many"], (24, 64), "float32")
    before = bptt.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        bptt.set_num_threads(threads)
        for save in ("gates", "minimal"):
            record = native.forward(case.layer, save)
            found.append(native.backward(case.layer, record, case.incoming, ALL))
    bptt.set_num_threads(before)
    for grads in found[1:]:
        for name, g in found[0].arrays().items():
            np.testing.assert_array_equal(grads.arrays()[name], g)


def test_gradients_of_a_ragged_batch_are_added_to_what_is_there():
    case = ragged("gru", LENGTHS["some have no step"], (5, 9), "float64")
    record = native.forward(case.layer, "gates")
    once = native.backward(case.layer, record, case.incoming, ALL)
    twice = native.backward(case.layer, record, case.incoming, ALL)
    native.backward(case.layer, record, case.incoming, Request(twice, True))
    np.testing.assert_allclose(twice.x, 2 * once.x, rtol=1e-12)
    np.testing.assert_allclose(twice.state, 2 * once.state, rtol=1e-12)
    for name, g in once.arrays().items():
        np.testing.assert_allclose(twice.arrays()[name], 2 * g, rtol=1e-12, atol=1e-13)
