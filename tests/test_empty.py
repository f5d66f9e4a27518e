"""No steps or no rows: empty results, zero gradients, and the state passes through."""

from __future__ import annotations

import bptt
import numpy as np
import pytest
from problems import make_problem, parts

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

EMPTY = pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])


@EMPTY
def test_forward_and_backward_of_nothing(
    steps: int, batch: int, cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, steps, batch, 2, 5, dtype=dtype)
    found = p.forward_backward(backend)
    assert found["y"].shape == (steps, batch, 5)
    assert found["dx"].shape == (steps, batch, 2)
    for name, array in found.items():
        assert array.dtype == dtype, name
        if name in p.params.arrays():
            assert array.shape == getattr(p.params, name).shape
            assert not array.any(), name


def test_without_steps_the_state_and_its_gradient_pass_through(
    cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, 0, 3, 2, 5, dtype=dtype)
    found = p.forward_backward(backend)
    only_dy = p.forward_backward(backend, dstate=False)
    for name, array in parts("last", p.state).items():
        np.testing.assert_array_equal(found[name], array)
    for name, array in parts("dstate", p.dstate).items():
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(only_dy[name], np.zeros((3, 5)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("at", ["last", "all", "weights"])
@EMPTY
def test_the_loss_of_nothing_is_zero(
    steps: int, batch: int, at: str, reduction: str, loss: str, cell: str, backend: str
) -> None:
    p = make_problem(cell, steps, batch, 2, 5, 3)
    found = p.value_and_grad(backend, loss, at, reduction)
    assert found.pop("loss") == 0.0
    for name, array in found.items():
        assert not array.any(), name
    assert found["w_ho"].shape == (3, 5)
    assert found["dstate"].shape == (batch, 5)


def test_a_step_of_nothing_does_not_exist(backend: str) -> None:
    p = make_problem("tanh", 0, 3, 2, 5, 3)
    with pytest.raises(ValueError, match=r"^at: there are no steps .*T = 0.*got step 0"):
        bptt.value_and_grad(
            "tanh",
            p.params,
            p.x,
            np.zeros((3, 3)),
            loss="squared_error",
            at=0,
            backend=backend,
        )
