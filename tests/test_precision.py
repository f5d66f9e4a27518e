"""No backend is less precise than plain NumPy: its error is at most twice NumPy's.

Errors are root mean squares over an array and over a few seeds, against the same computation in a
wider dtype, so that one unlucky rounding does not decide.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from problems import Problem, Result, make_problem

# (T, B, I, H, O): long sequences, long sums over units, long sums over rows.
FLOAT32_SHAPES = [(100, 17, 33, 129, 9), (31, 100, 129, 33, 17), (129, 33, 9, 8, 3)]
# np.longdouble has no BLAS.
FLOAT64_SHAPES = [(31, 7, 9, 33, 3), (33, 31, 17, 8, 2)]
SEEDS = range(3)


def forward_backward(p: Problem, backend: str) -> Result:
    return p.forward_backward(backend)


def value_and_grad(p: Problem, backend: str) -> Result:
    return p.value_and_grad(backend, "cross_entropy", "all")


@lru_cache(maxsize=8)
def squared_errors(
    cell: str, shape: tuple[int, ...], dtype: str, wider: str, backend: str
) -> dict[str, tuple[float, float]]:
    """By result: mean square of the error, and of the result itself."""
    totals: dict[str, np.ndarray] = {}
    for seed in SEEDS:
        p = make_problem(cell, *shape, dtype=dtype, seed=seed)
        for call in (forward_backward, value_and_grad):
            exact, found = call(p.astype(wider), "numpy"), call(p, backend)
            for name in exact:
                error = np.mean(np.square(found[name] - exact[name]))
                size = np.mean(np.square(exact[name]))
                key = f"{name} of {call.__name__}"
                totals[key] = totals.get(key, 0) + np.array([error, size])
    return {name: (float(e), float(s)) for name, (e, s) in totals.items()}


def check_twice_numpy(
    cell: str, shape: tuple[int, ...], dtype: str, wider: str, backend: str
) -> None:
    numpy_errors = squared_errors(cell, shape, dtype, wider, "numpy")
    found = squared_errors(cell, shape, dtype, wider, backend)
    worse = []
    for name, (error, size) in found.items():
        # An array that NumPy happens to get right to the last bit leaves half a unit of that bit,
        # and a loss, which is one float even of the wider reference, a whole one.
        floor = np.finfo(dtype).eps * (1 if name.startswith("loss") else 0.25)
        allowed = 2 * np.sqrt(numpy_errors[name][0]) + floor * np.sqrt(size)
        if np.sqrt(error) > allowed:
            worse.append(f"{name}: rms error {np.sqrt(error):.3g} > {allowed:.3g}")
    problem = f"make_problem({cell!r}, *{shape}, dtype={dtype!r}), seeds {list(SEEDS)}"
    assert not worse, f"more than twice NumPy's error for {problem}: {worse}"


@pytest.mark.parametrize("shape", FLOAT32_SHAPES)
def test_float32_error_is_at_most_twice_that_of_numpy(
    shape: tuple[int, ...], cell: str, compiled_backend: str
) -> None:
    check_twice_numpy(cell, shape, "float32", "float64", compiled_backend)


@pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps,
    reason="np.longdouble is no wider than float64 here",
)
@pytest.mark.parametrize("shape", FLOAT64_SHAPES)
def test_float64_error_is_at_most_twice_that_of_numpy(
    shape: tuple[int, ...], cell: str, compiled_backend: str
) -> None:
    check_twice_numpy(cell, shape, "float64", "longdouble", compiled_backend)
