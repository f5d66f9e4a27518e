"""Class ids that another thread changes while a call reads them do no harm: their rows are NaN."""

from __future__ import annotations

import math

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.backends.protocol import ALL, Layer
from bptt.losses import make_objective
from bptt.row_map import dense_rows


@pytest.mark.parametrize("changed", [-1, 3, 2**40, -(2**40)])
def test_an_id_that_leaves_the_range_after_the_check_gives_nan(
    compiled_backend: str, changed: int
) -> None:
    params = bptt.init_params("tanh", input_size=2, hidden_size=5, output_size=3, rng=0)
    x, state = np.ones((4, 2, 2), np.float32), (np.zeros((2, 5), np.float32),)
    ids = np.array([0, 2])
    objective = make_objective(params, dense_rows(4, 2), ids, "cross_entropy", "last", "mean")
    objective.target[1] = changed  # as a data loader does that refills its buffer too early
    backend = REGISTRY[compiled_backend]
    layer = Layer(bptt.CELLS["tanh"], params, x, state)
    loss, grads = backend.value_and_grad(layer, objective, ALL)
    assert math.isnan(loss)
    assert np.isfinite(grads.x[:, 0]).all(), "the other row has nothing to do with it"
