"""tanh, sigmoid and exp of the kernels: error in ULP, and values at the edges, on each ISA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import bptt
import numpy as np
import pytest
from conftest import BACKENDS

mpmath = pytest.importorskip("mpmath")

pytestmark = [
    pytest.mark.skipif(
        "native" not in BACKENDS, reason=f"native backend {bptt.backends()['native']}"
    ),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]

Function = Callable[..., np.ndarray]


@pytest.fixture(params=bptt.info().isas)
def isa(request: pytest.FixtureRequest, core: object, keep_isa: None) -> str:
    core.select_isa(request.param)
    return request.param


@pytest.fixture
def tanh(core: object, isa: str) -> Function:
    return core.tanh


@pytest.fixture
def sigmoid(core: object, isa: str) -> Function:
    return core.sigmoid


@pytest.fixture
def exp(core: object, isa: str) -> Function:
    return core.exp


def every_nth_float32(n: int) -> Iterator[np.ndarray]:
    """Every nth finite float32 of both signs by bit pattern, in pieces."""
    finite = 0x7F800000
    for sign in (0, 0x80000000):
        for first in range(0, finite, finite // 8):
            last = min(first + finite // 8, finite)
            bits = np.arange(first, last, n, dtype=np.uint32) | np.uint32(sign)
            yield bits.view(np.float32)


def worst_ulp(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place of the correctly rounded result."""
    exact = np.asarray(exact, np.float64)
    rounded = exact.astype(found.dtype)
    finite = np.isfinite(rounded)
    assert np.array_equal(found[~finite], rounded[~finite])
    ulp = np.spacing(np.abs(rounded[finite])).astype(np.float64)
    return float(np.max(np.abs(found[finite].astype(np.float64) - exact[finite]) / ulp, initial=0))


def worst_ulp_mpmath(function: Function, exact: Callable, x: np.ndarray) -> tuple[float, float]:
    """The largest error in ULP of a float64 function, and where it is."""
    worst = (0.0, 0.0)
    with mpmath.workdps(40):
        for value, found in zip(x.tolist(), function(x).tolist(), strict=True):
            true = exact(mpmath.mpf(value))
            ulp = np.spacing(abs(float(true)))
            worst = max(worst, (float(abs(mpmath.mpf(found) - true) / mpmath.mpf(ulp)), value))
    return worst


# The stride is prime, so that all last bits and all lanes of a vector occur.
STRIDE = 97


def test_tanh_errs_by_two_ulp_at_most_in_float32(tanh: Function, isa: str) -> None:
    for x in every_nth_float32(STRIDE):
        error = worst_ulp(tanh(x, flush=False), np.tanh(x.astype(np.float64)))
        assert error <= 2.0, f"{error} ULP on {isa} between {x[0]} and {x[-1]}"


# Below, 1 + e^-x overflows, and sigmoid is 0 instead of a subnormal number.
LAST_SIGMOID = {"float32": -87.3, "float64": -708.3}


def exact_sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def test_sigmoid_errs_by_1_7_ulp_at_most_in_float32(sigmoid: Function, isa: str) -> None:
    for x in every_nth_float32(STRIDE):
        inside = x[x > LAST_SIGMOID["float32"]]
        error = worst_ulp(sigmoid(inside), exact_sigmoid(inside.astype(np.float64)))
        assert error <= 1.7, f"{error} ULP on {isa} between {x[0]} and {x[-1]}"


def test_exp_errs_by_1_1_ulp_at_most_in_float32(exp: Function, isa: str) -> None:
    for x in every_nth_float32(STRIDE):
        inside = x[(x > -87.3) & (x < 88.7)]
        error = worst_ulp(exp(inside), np.exp(inside.astype(np.float64)))
        assert error <= 1.1, f"{error} ULP on {isa}"


def float64_points(limit: float) -> np.ndarray:
    """Thousands of points: everywhere, near zero, where n of 2^n changes, at the end."""
    rng = np.random.default_rng(0)
    switches = (np.arange(1, 40) - 0.5) * np.log(2) / 2
    points = np.concatenate(
        [
            rng.uniform(0, limit, 1500),
            rng.uniform(0, 1, 1000),
            10.0 ** rng.uniform(-308, 0, 500),
            np.concatenate([switches * (1 + k * 2.0**-51) for k in range(-4, 5)]),
            limit * (1 + np.arange(-50, 50) * 1e-4),
            np.array([5e-324, 2.0**-1022, 2.0**-53, 2.0**-27, 0.3465, 0.3466, 0.5, 0.55, 1.0]),
        ]
    )
    return np.concatenate([points, -points])


def test_tanh_errs_by_2_1_ulp_at_most_in_float64(tanh: Function, isa: str) -> None:
    kept = partial(tanh, flush=False)  # some of the points are subnormal
    error, where = worst_ulp_mpmath(kept, mpmath.tanh, float64_points(19.1))
    assert error <= 2.1, f"{error} ULP on {isa} at {where!r}"


def test_sigmoid_errs_by_1_7_ulp_at_most_in_float64(sigmoid: Function, isa: str) -> None:
    x = float64_points(700.0)
    x = x[x > LAST_SIGMOID["float64"]]
    exact = lambda v: 1 / (1 + mpmath.exp(-v))  # noqa: E731
    error, where = worst_ulp_mpmath(sigmoid, exact, x)
    assert error <= 1.7, f"{error} ULP on {isa} at {where!r}"


def test_exp_errs_by_1_1_ulp_at_most_in_float64(exp: Function, isa: str) -> None:
    x = float64_points(700.0)
    x = x[(x > -708) & (x < 709.7)]
    error, where = worst_ulp_mpmath(exp, mpmath.exp, x)
    assert error <= 1.1, f"{error} ULP on {isa} at {where!r}"


def test_tanh_is_odd_to_the_last_bit(tanh: Function, dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal(10_001).astype(dtype) * 5
    np.testing.assert_array_equal(tanh(-x), -tanh(x))


def test_tanh_keeps_the_sign_of_zero(tanh: Function, dtype: str) -> None:
    found = tanh(np.array([0.0, -0.0], dtype))
    np.testing.assert_array_equal(found, [0, 0])
    np.testing.assert_array_equal(np.signbit(found), [False, True])


def test_tanh_of_a_tiny_number_is_the_number(tanh: Function, dtype: str) -> None:
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, info.smallest_normal, info.eps / 16], dtype)
    np.testing.assert_array_equal(tanh(x, flush=False), x)
    np.testing.assert_array_equal(tanh(x), [0, *x[1:]])


def test_tanh_saturates_at_one_and_never_passes_it(tanh: Function, dtype: str) -> None:
    info = np.finfo(dtype)
    ends = np.array([25, 1e3, 1e30, info.max, np.inf], dtype)
    np.testing.assert_array_equal(tanh(ends), 1)
    np.testing.assert_array_equal(tanh(-ends), -1)
    x = np.linspace(0, 25, 1_000_001, dtype=dtype)
    assert tanh(x).max() == 1


def test_tanh_is_monotone_where_it_saturates(tanh: Function, dtype: str) -> None:
    start = {"float32": 8.0, "float64": 18.0}[dtype]
    x = np.linspace(start, start + 2, 1_000_001, dtype=dtype)
    assert (np.diff(tanh(x)) >= 0).all()


def test_sigmoid_is_a_half_at_zero_and_reaches_zero_and_one(sigmoid: Function, dtype: str) -> None:
    info = np.finfo(dtype)
    x = np.array([0.0, -0.0, 60, info.max, np.inf, -800, info.min, -np.inf], dtype)
    np.testing.assert_array_equal(sigmoid(x), [0.5, 0.5, 1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("center", [-80, -20, -5, 0, 5, 15])
def test_sigmoid_is_monotone_and_stays_within_zero_and_one(
    center: float, sigmoid: Function, dtype: str
) -> None:
    """Steps of neighbouring numbers may go down by what both may err; over many, it rises."""
    x = np.linspace(center - 4, center + 4, 100_001, dtype=dtype)
    y = sigmoid(x)
    assert y.min() >= 0
    assert y.max() <= 1
    ulp = np.spacing(y[1:])
    assert (np.diff(y) >= -3 * ulp).all()
    assert (np.diff(y[::100]) >= 0).all()


def test_exp_is_one_at_zero(exp: Function, dtype: str) -> None:
    np.testing.assert_array_equal(exp(np.array([0.0, -0.0], dtype)), 1)


def test_exp_overflows_to_infinity_and_underflows_to_zero(exp: Function, dtype: str) -> None:
    over, under = {"float32": (89.0, -104.5), "float64": (710.0, -746.0)}[dtype]
    info = np.finfo(dtype)
    np.testing.assert_array_equal(exp(np.array([over, info.max, np.inf], dtype)), np.inf)
    np.testing.assert_array_equal(exp(np.array([under, info.min, -np.inf], dtype)), 0)


def test_exp_is_finite_to_the_end_of_the_range(exp: Function, dtype: str) -> None:
    largest = np.nextafter(np.log(np.finfo(dtype).max), np.array(0, dtype), dtype=dtype)
    found = exp(np.array([largest], dtype))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, np.exp(largest.astype("longdouble")).astype(dtype), rtol=1e-6)


def test_exp_fades_into_subnormal_numbers_or_to_zero(exp: Function, dtype: str) -> None:
    first, last = {"float32": (-87.3, -103.0), "float64": (-708.4, -744.0)}[dtype]
    x = np.linspace(first, last, 1001, dtype=dtype)
    exact = np.exp(x.astype("longdouble")).astype(np.float64)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    found = exp(x, flush=False)
    error = np.abs(found.astype(np.float64) - exact)
    assert (error <= 1.5 * smallest + 1.5 * np.finfo(dtype).eps * exact).all()
    assert (np.diff(found) <= 0).all()
    flushed = exp(x)
    assert ((flushed == 0) | (flushed >= np.finfo(dtype).tiny)).all()


def test_nan_stays_nan(tanh: Function, sigmoid: Function, exp: Function, dtype: str) -> None:
    x = np.array([np.nan, 1.0, -np.nan, 0.0], dtype)
    for function in (tanh, sigmoid, exp):
        np.testing.assert_array_equal(np.isnan(function(x)), [True, False, True, False])


def test_a_value_does_not_depend_on_its_place(
    tanh: Function, sigmoid: Function, exp: Function, dtype: str
) -> None:
    """Whole vectors and the part of one at the end compute the same."""
    x = np.random.default_rng(0).standard_normal(67).astype(dtype) * 3
    for function in (tanh, sigmoid, exp):
        whole = function(x)
        for n in range(1, 67):
            np.testing.assert_array_equal(function(x[:n].copy()), whole[:n])
