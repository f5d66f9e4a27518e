"""NaN and infinity in data pass through as NumPy passes them: the same pattern on every backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bptt.states import as_tuple
from problems import AT, Problem, make_problem

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

# Where the value is put: an entry of one of the arrays.
PLACES = {
    "x": (1, 1, 0),
    "a later x": (4, 1, 0),
    "state": (1, 2),
    "dy": (2, 1, 3),
    "dstate": (1, 2),
    "target": (2, 1, 1),
    "w_ih": (3, 1),
    "w_hh": (3, 1),
    "b_ih": (3,),
    "w_ho": (1, 3),
    "b_o": (1,),
}


def with_value(p: Problem, place: str, value: float) -> Problem:
    name = place.split()[-1]
    is_param = name in p.params.arrays()
    given = getattr(p.params if is_param else p, name)
    array = as_tuple(given)[0].copy()
    array[PLACES[place]] = value
    if isinstance(given, tuple):
        array = (array, *given[1:])
    if is_param:
        return replace(p, params=replace(p.params, **{name: array}))
    return replace(p, **{name: array})


def pattern(value: object) -> np.ndarray:
    """NaN, inf and -inf as they are; 1 for every finite number."""
    array = np.asarray(value)
    return np.where(np.isfinite(array), 1, array)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", PLACES)
def test_nonfinite_values_pass_through_as_in_numpy(
    place: str, value: float, cell: str, dtype: str, compiled_backend: str
) -> None:
    # 17 units leave a part of a vector on every instruction set.
    p = with_value(make_problem(cell, 5, 3, 4, 17, 3, dtype=dtype), place, value)
    calls = {"forward and backward": lambda backend: p.forward_backward(backend)}
    for loss in ("squared_error", "cross_entropy"):
        for at in AT:
            calls[f"{loss} at {at}"] = lambda backend, loss=loss, at=at: p.value_and_grad(
                backend, loss, at
            )
        with_gaps = replace(p, weights=np.where(np.arange(5)[:, None] % 2, p.weights, 0))
        calls[f"{loss} at weights of 0"] = lambda backend, loss=loss, p=with_gaps: p.value_and_grad(
            backend, loss, "weights"
        )
    for call, run in calls.items():
        expected, found = run("numpy"), run(compiled_backend)
        for name in expected:
            np.testing.assert_array_equal(
                pattern(found[name]), pattern(expected[name]), err_msg=f"{name} of {call} of {p}"
            )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_nan_stays_in_its_row_and_its_future(cell: str, dtype: str, backend: str) -> None:
    p = with_value(make_problem(cell, 5, 3, 4, 17, dtype=dtype), "x", np.nan)
    y = p.forward_backward(backend)["y"]
    assert np.isfinite(y[0]).all()
    assert np.isfinite(y[:, [0, 2]]).all()
    assert np.isnan(y[1:, 1]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_nan_behind_the_step_of_the_loss_is_not_in_the_sum(cell: str, backend: str) -> None:
    p = with_value(make_problem(cell, 5, 3, 4, 17, 3), "a later x", np.nan)
    for name, result in p.value_and_grad(backend, "squared_error", "step").items():
        assert np.isfinite(result).all(), name
