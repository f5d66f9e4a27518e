"""A limit on what a call keeps: met, as long as possible, or an error that names the least."""

from __future__ import annotations

from functools import partial

import bptt
import numpy as np
import pytest
from bptt.backends.native import NativeBackend
from bptt.budget import WHOLE, Budget, budget_for
from bptt.states import as_tuple

native = pytest.mark.skipif(NativeBackend().missing() is not None, reason="no compiled module")

MIB = 1 << 20
SIZES = (49_152, 4, 96, 224)  # T, B, I, H


def held(steps: int, state: int = 1, saved: int = 4):
    """Bytes of a pass whose steps take so many."""

    def of(budget: Budget) -> int:
        if budget == WHOLE:
            return steps * (state + saved)
        segments = -(-steps // budget.segment_steps)
        group = budget.group_segments or segments
        borders = group + (-(-segments // group))
        return budget.segment_steps * (state + saved) + borders * state

    return of


def test_a_pass_that_fits_is_kept_whole():
    assert budget_for(5000, 1000, 8, held(1000)) == WHOLE


@pytest.mark.parametrize("limit", [4000, 1000, 333])
def test_segments_are_as_long_as_the_limit_lets_them(limit):
    of = held(1000)
    budget = budget_for(limit, 1000, 8, of)
    assert budget.group_segments == 0
    assert budget.segment_steps % 8 == 0
    assert of(budget) <= limit < of(Budget(budget.segment_steps + 8))


def test_groups_serve_where_segments_alone_do_not():
    of = held(100_000)
    budget = budget_for(500, 100_000, 8, of)
    assert budget.group_segments > 1
    assert of(budget) <= 500


def test_a_limit_that_cannot_be_met_names_the_least_which_can():
    of = held(100_000)
    with pytest.raises(ValueError, match=r"memory_limit: expected at least (\d+) bytes") as error:
        budget_for(50, 100_000, 8, of)
    least = int(str(error.value).split("at least ")[1].split()[0])
    assert of(budget_for(least, 100_000, 8, of)) <= least
    with pytest.raises(ValueError, match="memory_limit"):
        budget_for(least - 1, 100_000, 8, of)


@native
@pytest.mark.parametrize("limit", [64 * MIB, 24 * MIB, 9 * MIB])
def test_the_plan_of_a_limited_call_stays_below_the_limit(limit):
    plan = bptt.plan("lstm", *SIZES, output_size=10, memory_limit=limit, threads=2)
    assert plan.scratch_nbytes <= limit
    assert 0 < plan.segment_steps < SIZES[0]
    assert "steps at a time" in str(plan)
    whole = bptt.plan("lstm", *SIZES, output_size=10, threads=2)
    assert whole.segment_steps == 0
    assert 1.1 < plan.seconds["total"] / whole.seconds["total"] < 1.6


@native
def test_a_million_steps_need_two_levels_under_two_mebibytes():
    plan = bptt.plan("lstm", 1_000_000, 1, 16, 64, output_size=10, memory_limit=2 * MIB, threads=1)
    assert plan.scratch_nbytes <= 2 * MIB
    assert plan.group_segments > 1


@native
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"memory_limit": 1}, r"memory_limit: expected at least \d+ bytes"),
        ({"memory_limit": 0}, "memory_limit: expected an integer of at least 1"),
        ({"memory_limit": "2"}, "memory_limit: expected an integer"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected an integer of at least 1"),
        ({"memory_limit": MIB, "checkpoint_every": 4}, "expected one of them, got both"),
        ({"checkpoint_every": 4, "output_size": None}, "expected output_size"),
    ],
)
def test_a_plan_refuses_budgets_that_are_none(keywords, message):
    with pytest.raises((ValueError, TypeError), match=message):
        bptt.plan("lstm", *SIZES, **{"output_size": 10, **keywords})


LENGTHS = [40, 23, 0, 7, 31]


def call(backend: str, cell: str = "lstm", **keywords):
    """Loss, gradients and last state of a ragged batch, the loss at every step."""
    rng = np.random.default_rng(5)
    params = bptt.init_params(cell, input_size=3, hidden_size=24, output_size=4, rng=1)
    x = rng.standard_normal((40, len(LENGTHS), 3)).astype(params.dtype)
    ids = rng.integers(0, 4, x.shape[:2])
    how = {"loss": "cross_entropy", "at": "all", "backend": backend, "return_state": True}
    return bptt.value_and_grad(cell, params, x, ids, **{**how, **keywords})


about_the_same = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("how", [{}, {"lengths": LENGTHS}, {"reverse": True, "lengths": LENGTHS}])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.parametrize("backend", ["native", "numba", "numpy"])
def test_a_budget_changes_no_result(backend, cell, how):
    if bptt.backends()[backend].available is False:
        pytest.skip(f"no {backend}")
    loss, grads, state = call(backend, cell, **how)
    for keywords in ({"checkpoint_every": 3}, {"checkpoint_every": 100}, {"memory_limit": 1 << 20}):
        again, found, last = call(backend, cell, **how, **keywords)
        same = np.testing.assert_array_equal if backend == "native" else about_the_same
        same(again, loss)
        for name, g in {**grads.arrays(), "x": grads.x}.items():
            same(getattr(found, name), g)
        for mine, theirs in zip(as_tuple(last), as_tuple(state), strict=True):
            same(mine, theirs)


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"memory_limit": 10}, r"memory_limit: expected at least \d+ bytes"),
        ({"memory_limit": 1 << 30, "truncate": 3}, "beside truncate or detach_every"),
        ({"checkpoint_every": 2.5}, "checkpoint_every: expected an integer"),
    ],
)
def test_a_call_refuses_budgets_that_are_none(backend, keywords, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(backend, **keywords)


@native
def test_a_limit_counts_the_copies_of_rows_that_are_moved() -> None:
    params = bptt.init_params("gru", input_size=32, hidden_size=16, output_size=3, rng=0)
    x, ids = np.ones((2, 9000, 32), params.dtype), np.zeros((2, 9000), int)
    how = {"loss": "cross_entropy", "at": "all", "batch_first": True}

    def least(backend: str) -> int:
        with pytest.raises(ValueError, match=r"expected at least \d+ bytes") as error:
            bptt.value_and_grad("gru", params, x, ids, **how, memory_limit=1, backend=backend)
        return int(str(error.value).split("at least ")[1].split()[0])

    assert least("numpy") > 3 * x.nbytes
    if bptt.backends()["native"].available:  # which has their index alone
        assert 8 * 2 * 9000 < least("native") < x.nbytes
        bptt.value_and_grad("gru", params, x, ids, **how, memory_limit=least("native"))
