"""Forward mode, norms of products of Jacobians, and Lyapunov exponents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from problems import Problem, make_problem

SHAPE = (7, 3, 2, 5)  # T, B, I, H
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


# --- Forward mode ------------------------------------------------------------------------------


def tangents(p: Problem, seed: int = 1) -> dict[str, Any]:
    """Arguments of ``Tape.jvp``: changes of everything."""
    rng = np.random.default_rng(seed)

    def like(array: np.ndarray) -> np.ndarray:
        return rng.standard_normal(array.shape).astype(array.dtype)

    return {
        "dx": like(p.x),
        "dstate": as_given(tuple(map(like, as_tuple(p.dstate)))),
        "dparams": {name: like(getattr(p.params, name)) for name in WEIGHTS},
    }


def changed(p: Problem, d: dict[str, Any], by: float) -> Problem:
    """`p` with all of its inputs changed by so much of `d`."""
    params = replace(
        p.params, **{n: getattr(p.params, n) + by * a for n, a in d["dparams"].items()}
    )
    pairs = zip(as_tuple(p.state), as_tuple(d["dstate"]), strict=True)
    state = as_given(tuple(s + by * ds for s, ds in pairs))
    return replace(p, params=params, x=p.x + by * d["dx"], state=state)


def run(p: Problem, backend: str, save: str = "gates") -> bptt.Tape:
    return bptt.forward(p.cell, p.params, p.x, p.state, backend=backend, save=save)


def inner(a: Any, b: Any) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(as_tuple(a), as_tuple(b), strict=True))


@pytest.mark.parametrize("save", ["gates", "minimal"])
@pytest.mark.parametrize("of", ["dx", "dstate", "dparams", "all"])
def test_forward_mode_is_the_adjoint_of_backward(
    of: str, save: str, cell: str, backend: str
) -> None:
    p = make_problem(cell, *SHAPE)
    tape, d = run(p, backend, save), tangents(p)
    dy, last = tape.jvp(**(d if of == "all" else {of: d[of]}))
    pushed = inner(dy, p.dy) + inner(last, p.dstate)
    grads = tape.backward(p.dy, p.dstate)
    pulled = {
        "dx": inner(d["dx"], grads.x),
        "dstate": inner(d["dstate"], grads.state),
        "dparams": sum(inner(a, getattr(grads, name)) for name, a in d["dparams"].items()),
    }
    pulled["all"] = sum(pulled.values())
    assert pushed == pytest.approx(pulled[of], rel=1e-12)


def test_forward_mode_is_what_differences_of_the_forward_pass_are(cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE)
    d, by = tangents(p), 1e-6
    dy, last = run(p, backend).jvp(**d)
    more, less = run(changed(p, d, by), backend), run(changed(p, d, -by), backend)
    np.testing.assert_allclose(dy, (more.y - less.y) / (2 * by), rtol=1e-7, atol=1e-7)
    for s, a, b in zip(*map(as_tuple, (last, more.state, less.state)), strict=True):
        np.testing.assert_allclose(s, (a - b) / (2 * by), rtol=1e-7, atol=1e-7)


def test_forward_mode_in_float32_is_that_in_float64_rounded(cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE)
    narrow = p.astype("float32")
    dy, _ = run(p, backend).jvp(**tangents(p))
    single, last = run(narrow, backend).jvp(**tangents(narrow))
    assert single.dtype == as_tuple(last)[0].dtype == np.float32
    np.testing.assert_allclose(single, dy, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3, 2, 5), (4, 0, 2, 5)])
def test_forward_mode_of_nothing_is_nothing(
    shape: tuple[int, ...], cell: str, backend: str
) -> None:
    p = make_problem(cell, *shape)
    d = tangents(p)
    dy, last = run(p, backend).jvp(**d)
    assert dy.shape == p.dy.shape
    if shape[0] == 0:
        for s, ds in zip(as_tuple(last), as_tuple(d["dstate"]), strict=True):
            np.testing.assert_array_equal(s, ds)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "dx, dstate, dparams: expected at least one"),
        ({"dx": np.zeros((7, 3, 4))}, ValueError, r"dx: expected shape \(7, 3, 2\) to match x"),
        ({"dx": np.zeros((7, 3, 2), "f4")}, TypeError, "dx: expected dtype float64"),
        ({"dstate": np.zeros((3, 4))}, ValueError, r"dstate: expected shape \(3, 5\)"),
        ({"dparams": [1]}, TypeError, "dparams: expected a mapping"),
        ({"dparams": {"w": np.zeros(1)}}, ValueError, "dparams: expected one of w_ih"),
        ({"dparams": {"b_ih": np.zeros(5)}}, ValueError, "dparams: the tape has no b_ih"),
        (
            {"dparams": {"w_hh": np.zeros((5, 4))}},
            ValueError,
            r"dparams\['w_hh'\]: expected shape \(5, 5\)",
        ),
    ],
)
def test_forward_mode_says_what_is_wrong(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    p = make_problem("tanh", *SHAPE, biases=())
    tape = run(p, "numpy")
    with pytest.raises(error, match=message):
        tape.jvp(**arguments)
