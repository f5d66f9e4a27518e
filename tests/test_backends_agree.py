"""Every backend computes what the reference computes in float64, at every awkward size.

``SHAPES`` pairs each size with each other in all of (T, B, I, H, O): 11 is prime, so the rows
(i, j, i + j, i + 2j, i + 3j) mod 11 form an orthogonal array, and two dimensions of any choice meet
in each of their 121 combinations once.
"""

from __future__ import annotations

from functools import lru_cache

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import AT, BIASES, LOSSES, Problem, Result, make_problem
from tolerance import assert_close, output_scales, scales, tolerance

every_case = pytest.mark.full_product

SIZES = (1, 2, 3, 7, 8, 9, 17, 31, 33, 100, 129)
SHAPES = [
    tuple(SIZES[k % 11] for k in (i, j, i + j, i + 2 * j, i + 3 * j))
    for i in range(11)
    for j in range(11)
]
assert len(set(SHAPES)) == 121


@pytest.fixture(params=SIZES)
def steps(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(params=AT)
def at(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["mean", "sum"])
def reduction(request: pytest.FixtureRequest) -> str:
    return request.param


# Backends come last in every signature, so that they meet the same problem one after the other.
cached = lru_cache(maxsize=16)


@cached
def expected_forward_backward(p: Problem, dy: bool, dstate: bool) -> tuple[Result, Result]:
    """What the reference computes in float64, and its scales."""
    return p.astype("float64").forward_backward("numpy", dy=dy, dstate=dstate), scales(p)


@cached
def expected_value_and_grad(
    p: Problem, loss: str, at: str, reduction: str
) -> tuple[Result, Result]:
    """The same of ``value_and_grad``."""
    wide = p.astype("float64")
    y = bptt.forward(p.cell, wide.params, wide.x, wide.state, backend="numpy").y
    do, loss_scale = output_scales(p, y, loss, at, reduction)
    scale = {"loss": loss_scale, **scales(p, do)}
    return wide.value_and_grad("numpy", loss, at, reduction), scale


def check_forward_backward(
    p: Problem, dtype: str, backend: str, dy: bool = True, dstate: bool = True
) -> None:
    expected, scale = expected_forward_backward(p, dy, dstate)
    found = p.forward_backward(backend, dy=dy, dstate=dstate)
    assert_close(found, expected, scale, p, dtype)


def check_value_and_grad(
    p: Problem, dtype: str, backend: str, loss: str, at: str, reduction: str = "mean"
) -> None:
    expected, scale = expected_value_and_grad(p, loss, at, reduction)
    found = p.value_and_grad(backend, loss, at, reduction)
    assert type(found["loss"]) is float, p
    assert_close(found, expected, scale, p, dtype)


@cached
def problem(cell: str, seed: int, dtype: str) -> Problem:
    """The problem of ``SHAPES[seed]``."""
    return make_problem(cell, *SHAPES[seed], dtype=dtype, seed=seed)


def test_forward_and_backward_agree(steps: int, cell: str, dtype: str, backend: str) -> None:
    for seed, shape in enumerate(SHAPES):
        if shape[0] == steps:
            check_forward_backward(problem(cell, seed, dtype), dtype, backend)


def test_value_and_grad_agrees(
    at: str, reduction: str, cell: str, dtype: str, loss: str, backend: str
) -> None:
    # The twenty combinations of loss, `at` and `reduction` share the shapes out among them.
    first = 4 * AT.index(at) + 2 * (reduction == "sum") + (loss == "cross_entropy")
    for seed in range(first, len(SHAPES), 20):
        check_value_and_grad(problem(cell, seed, dtype), dtype, backend, loss, at, reduction)


@every_case
@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("biases", [(), ("b_ih",), ("b_hh",), ("b_ih", "b_hh"), ("b_o",)])
def test_each_bias_and_the_state_may_be_absent(
    biases: tuple[str, ...], with_state: bool, cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, 9, 3, 7, 17, 2, dtype=dtype, biases=biases, with_state=with_state)
    check_forward_backward(p, dtype, backend)
    check_value_and_grad(p, dtype, backend, "squared_error", "all")
    grads = p.value_and_grad(backend, "squared_error", "all")
    assert {name for name in BIASES if name in grads} == set(biases)


@every_case
@pytest.mark.parametrize(("dy", "dstate"), [(True, False), (False, True)])
def test_either_incoming_gradient_may_be_absent(
    dy: bool, dstate: bool, cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, 17, 9, 3, 33, dtype=dtype)
    check_forward_backward(p, dtype, backend, dy, dstate)


@every_case
def test_backward_may_run_again(cell: str, dtype: str, backend: str) -> None:
    p = make_problem(cell, 9, 3, 7, 17, dtype=dtype)
    tape = bptt.forward(cell, p.params, p.x, p.state, backend=backend)
    first, other, again = tape.backward(p.dy), tape.backward(None, p.dstate), tape.backward(p.dy)
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.w_hh, again.w_hh)
    assert not np.array_equal(first.x, other.x)


@every_case
def test_value_and_grad_is_forward_readout_and_backward(
    cell: str, dtype: str, backend: str
) -> None:
    """The fused call agrees with the same backend's parts, put together in NumPy."""
    p = make_problem(cell, 31, 7, 9, 33, 3, dtype=dtype)
    w = p.params
    tape = bptt.forward(cell, w, p.x, p.state, backend=backend)
    do = tape.y @ w.w_ho.T + w.b_o - p.target
    grads = tape.backward(do @ w.w_ho)
    fused = p.value_and_grad(backend, "squared_error", "all", "sum")
    scale = scales(p, output_scales(p, tape.y, "squared_error", "all", "sum")[0])
    for name in ("dx", "w_ih", "w_hh", "b_ih"):
        parts = grads.x if name == "dx" else getattr(grads, name)
        error = np.abs(fused[name] - parts).max()
        assert error <= tolerance(p, dtype, scale[name]), f"{name} of {p}"
    assert fused["loss"] == pytest.approx(float((do * do).sum() / 2), rel=1e-5)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cell=st.sampled_from(list(bptt.CELLS)),
    dtype=st.sampled_from(["float32", "float64"]),
    shape=st.tuples(*[st.integers(1, 40)] * 4, st.integers(1, 20)),
    biases=st.sets(st.sampled_from(BIASES)).map(lambda names: tuple(sorted(names))),
    with_state=st.booleans(),
    incoming=st.sampled_from([(True, True), (True, False), (False, True)]),
    loss=st.sampled_from(LOSSES),
    at=st.sampled_from(AT),
    reduction=st.sampled_from(["mean", "sum"]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_combination_agrees(
    backend: str,
    keep_num_threads: None,
    cell: str,
    dtype: str,
    shape: tuple[int, ...],
    biases: tuple[str, ...],
    with_state: bool,
    incoming: tuple[bool, bool],
    loss: str,
    at: str,
    reduction: str,
    threads: int,
    seed: int,
) -> None:
    if not REGISTRY[backend].supports(bptt.CELLS[cell], np.dtype(dtype)):
        cell = "tanh"  # what every backend computes
    bptt.set_num_threads(threads)
    options = {"dtype": dtype, "seed": seed, "biases": biases, "with_state": with_state}
    p = make_problem(cell, *shape, **options)
    check_forward_backward(p, dtype, backend, *incoming)
    check_value_and_grad(p, dtype, backend, loss, at, reduction)
