"""`check_gradients` passes what is right, and names the entry that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bptt
import numpy as np
import pytest
from bptt import gradient_check
from problems import AT, Problem, make_problem

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes


def check(p: Problem, at: str = "all", loss: str = "squared_error", **options: Any) -> Any:
    where, target = p.loss_at(at, loss)
    call = {"loss": loss, "at": where, "state": p.state, **options}
    return bptt.check_gradients(p.cell, p.params, p.x, target, **call)


@pytest.mark.parametrize("at", AT)
def test_right_gradients_pass(at: str, loss: str, cell: str, dtype: str, backend: str) -> None:
    p = make_problem(cell, 5, 2, 3, 4, 3, dtype=dtype, seed=5)
    found = check(p, at, loss, backend=backend, entries=8)
    assert found, str(found)
    assert found.error < found.tolerance
    assert str(found).startswith("passed: of ")


def test_every_entry_is_compared_if_wanted(cell: str) -> None:
    p = make_problem(cell, 4, 2, 3, 3, 2, seed=5)
    states = len(bptt.CELLS[cell].states) * p.dy[0].size
    size = p.x.size + states + sum(array.size for array in p.params.arrays().values())
    assert check(p, entries=None).checked == size


@pytest.mark.parametrize("name", ["x", "state[1]", "w_ih", "w_hh", "b_hh", "w_ho", "b_o"])
@pytest.mark.parametrize("wrong", [lambda v: v + 0.1, lambda v: np.nan * v], ids=["off", "nan"])
def test_a_wrong_entry_is_named(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = make_problem("lstm", 4, 2, 3, 3, 2, seed=5)
    right = gradient_check.value_and_grad

    def spoilt(*arguments: Any, **options: Any) -> tuple[float, bptt.Grads]:
        loss, grads = right(*arguments, **options)
        array = grads.state[1] if name == "state[1]" else getattr(grads, name)
        array.reshape(-1)[-1] = wrong(array.reshape(-1)[-1])
        return loss, grads

    monkeypatch.setattr(gradient_check, "value_and_grad", spoilt)
    found = check(p, entries=None)
    assert not found
    assert found.name == name
    array = p.state[1] if name == "state[1]" else getattr(p.params, name, p.x)
    assert found.index == tuple(n - 1 for n in array.shape)
    assert str(found).startswith("FAILED")


@pytest.mark.parametrize("steps", [30, 100, 300])
def test_gradients_that_have_faded_pass(steps: int, cell: str, dtype: str) -> None:
    """Far from the loss they are smaller than what rounding leaves of a difference."""
    p = make_problem(cell, steps, 2, 3, 4, 3, dtype=dtype, seed=5)
    found = check(p, "last", "cross_entropy", entries=6)
    assert found, str(found)


def test_a_large_loss_hides_small_entries() -> None:
    p = make_problem("tanh", 10, 2, 3, 4, 3, seed=5)
    p = replace(p, target=p.target + 1e4)
    found = check(p, reduction="sum", entries=20)
    assert found, str(found)


def test_a_state_may_be_a_list() -> None:
    p = make_problem("lstm", 4, 2, 3, 3, 2, seed=5)
    assert check(p, state=list(p.state), entries=5)


def test_nothing_of_the_caller_is_changed() -> None:
    p = make_problem("gru", 4, 2, 3, 3, 2, seed=5)
    arrays = {"x": p.x, "state": p.state, "target": p.target, **p.params.arrays()}
    before = {name: array.copy() for name, array in arrays.items()}
    check(p)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_the_state_may_be_absent(cell: str) -> None:
    p = replace(make_problem(cell, 4, 2, 3, 3, 2, seed=5), state=None)
    assert check(p, entries=10)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"entries": 0}, ValueError, r"^entries: expected an integer of at least 1, got 0"),
        ({"step": 0.0}, ValueError, r"^step: expected a number from 1e-10 to 0.01, got 0.0"),
        ({"step": 1e300}, ValueError, r"^step: expected a number from 1e-10 to 0.01, got 1e\+300"),
        ({"tolerance": -1.0}, ValueError, r"^tolerance: expected .* not negative, got -1.0"),
        ({"rng": "x"}, TypeError, r"^rng: expected None, an integer"),
        ({"loss": "hinge"}, ValueError, r"^loss: expected one of"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    p = make_problem("tanh", 4, 2, 3, 3, 2)
    call = {"loss": "squared_error", "at": "all", **options}
    with pytest.raises(error, match=words):
        bptt.check_gradients("tanh", p.params, p.x, p.target, **call)
