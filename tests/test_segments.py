"""Segments that are computed again: the bits of a call that keeps all states."""

from __future__ import annotations

import bptt
import numpy as np
import pytest
from bptt.backends.native import NativeBackend
from bptt.backends.protocol import ALL, Request
from bptt.losses import Objective
from bptt.states import as_tuple
from ragged import LENGTHS, ragged

native = NativeBackend()
pytestmark = pytest.mark.skipif(native.missing() is not None, reason="no compiled module")

SHAPES = [(1, 1), (17, 33), (24, 64), (300, 65)]
CUTS = [(1, 0), (1, 2), (40, 0), (100, 2), (10_000, 0)]


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = bptt.get_num_threads()
    bptt.set_num_threads(request.param)
    yield request.param
    bptt.set_num_threads(before)


@pytest.mark.parametrize("batch", ["dense", "one", "many", "one long"])
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_segments_have_the_bits_of_all_steps_at_once(cell, batch, threads):
    lengths = [700] * 5 if batch == "dense" else LENGTHS[batch]
    if batch == "one":
        lengths = [1500]
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
            request = Request(segment_steps=steps, group_segments=group)
            again, grads = native.value_and_grad(layer, objective, request, end)
            assert again == loss
            np.testing.assert_array_equal(grads.x, whole.x)
            for mine, all_at_once in zip(
                (*as_tuple(grads.state), *end), (*as_tuple(whole.state), *last), strict=True
            ):
                np.testing.assert_array_equal(mine, all_at_once)
            for name, g in whole.arrays().items():
                np.testing.assert_array_equal(grads.arrays()[name], g)
