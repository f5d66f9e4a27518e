"""Segments that are computed again: the bits of a call that keeps all states."""

from __future__ import annotations

import bptt
import numpy as np
import pytest
from bptt.backends import resolve
from bptt.backends.native import NativeBackend
from bptt.backends.protocol import ALL, Request
from bptt.budget import Budget
from bptt.cells import get_cell
from bptt.losses import Objective
from bptt.states import as_tuple, by_part
from ragged import LENGTHS, ragged

pytestmark = pytest.mark.pairs  # of cells, batches and numbers of threads

native = NativeBackend()
compiled = pytest.mark.skipif(native.missing() is not None, reason="no compiled module")

SHAPES = [(1, 1), (17, 33), (24, 64), (300, 65)]
CUTS = [(1, 0), (1, 2), (40, 0), (100, 2), (10_000, 0)]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("cell", ["relu", "lstm", "gru"])
@pytest.mark.parametrize("step", [None, 0, 7, 16])
def test_backends_without_kernels_for_segments_take_them_one_by_one(backend, cell, step):
    chosen = resolve(backend, get_cell(cell), np.dtype("float64"))
    layer = ragged(cell, [17] * 3, (4, 5), "float64").as_dense()
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 3, (17, 3) if step is None else 3)
    weights = None if step is not None else rng.random((17, 3))
    objective = Objective("cross_entropy", ids, step, weights, 0.5)
    last = tuple(map(np.empty_like, layer.state))
    loss, whole = chosen.value_and_grad(layer, objective, ALL, last)
    for steps in (1, 5, 16, 40):
        end = tuple(map(np.empty_like, layer.state))
        request = Request(budget=Budget(steps))
        again, grads = chosen.value_and_grad(layer, objective, request, end)
        assert again == pytest.approx(loss, rel=1e-13)
        arrays = {**whole.arrays(), "x": whole.x, **by_part("state", as_tuple(whole.state))}
        found = {**grads.arrays(), "x": grads.x, **by_part("state", as_tuple(grads.state))}
        for name, g in arrays.items():
            np.testing.assert_allclose(found[name], g, rtol=1e-11, atol=1e-13, err_msg=name)
        for mine, theirs in zip(end, last, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-13)


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = bptt.get_num_threads()
    bptt.set_num_threads(request.param)
    yield request.param
    bptt.set_num_threads(before)


@compiled
@pytest.mark.parametrize("batch", ["dense", "one", "many", "one long"])
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_segments_have_the_bits_of_all_steps_at_once(cell, batch, threads):
    lengths = [260] * 5 if batch == "dense" else LENGTHS[batch]
    if batch == "one":
        lengths = [600]
    rng = np.random.default_rng(3)
    for i, sizes in enumerate(SHAPES):
        case = ragged(cell, lengths, sizes, ("float32", "float64")[i % 2])
        layer = case.layer
        if batch == "dense" or batch == "one":
            layer = case.as_dense()
        shape = layer.x.shape[:-1]
        objective = Objective("cross_entropy", rng.integers(0, 3, shape), None, None, 0.5)
        last = tuple(map(np.empty_like, layer.state))
        loss, whole = native.value_and_grad(layer, objective, ALL, last)
        for steps, group in CUTS:
            end = tuple(map(np.empty_like, layer.state))
            request = Request(budget=Budget(steps, group))
            again, grads = native.value_and_grad(layer, objective, request, end)
            assert again == loss
            np.testing.assert_array_equal(grads.x, whole.x)
            for mine, all_at_once in zip(
                (*as_tuple(grads.state), *end), (*as_tuple(whole.state), *last), strict=True
            ):
                np.testing.assert_array_equal(mine, all_at_once)
            for name, g in whole.arrays().items():
                np.testing.assert_array_equal(grads.arrays()[name], g)
