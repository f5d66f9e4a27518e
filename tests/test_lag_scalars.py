"""The scalar products that measures of lags are made of, where NumPy computes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bptt.lags.scalar import dot


@pytest.mark.parametrize("count", [0, 1, 8191, 8192, 8193, 20000])
def test_products_by_pieces_are_those_of_float64(count: int) -> None:
    left, right = np.random.default_rng(count).standard_normal((2, count)).astype(np.float32)
    exact = math.fsum(left.astype(float) * right.astype(float))
    assert dot(left, right) == pytest.approx(exact, rel=1e-5, abs=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 8191, 8192, 8193, 20000])
def test_squares_that_float32_does_not_hold_are_summed_in_float64(count: int) -> None:
    huge = np.full(count, 1e25, np.float32)
    assert dot(huge, huge) == pytest.approx(count * float(huge[0]) ** 2)
