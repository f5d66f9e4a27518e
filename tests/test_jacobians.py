"""Forward mode, norms of products of Jacobians, and Lyapunov exponents."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
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


@pytest.fixture
def leaky() -> Iterator[str]:
    """A cell whose two states both go straight on, also into each other."""

    @bptt.cell(gates=("a",), states=("h", "c"), saved=("s",), name="leaky")
    def leak(sums: Any, state: Any) -> Any:
        h, c = state
        s = np.tanh(sums[0] + 0.3 * c)
        return (0.5 * h + s, 0.9 * c - 0.2 * h + s * s), (s,)

    @leak.derivative
    def leak(saved: Any, before: Any, state: Any, dstate: Any) -> Any:
        s = saved[0]
        da = (dstate[0] + 2 * s * dstate[1]) * (1 - s * s)
        return (da,), (0.5 * dstate[0] - 0.2 * dstate[1], 0.3 * da + 0.9 * dstate[1])

    yield leak.name
    del bptt.CELLS[leak.name]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_states_that_go_straight_into_each_other_do_so_in_forward_mode(
    leaky: str, backend: str
) -> None:
    if not bptt.backends()[backend].available:
        pytest.skip(f"no backend {backend}")
    p = make_problem(leaky, *SHAPE)
    tape, d = run(p, backend), tangents(p)
    dy, last = tape.jvp(dstate=d["dstate"])
    pulled = inner(d["dstate"], tape.backward(p.dy, p.dstate).state)
    assert inner(dy, p.dy) + inner(last, p.dstate) == pytest.approx(pulled, rel=1e-12)
    np.testing.assert_allclose(norms(p, backend).norm, dense_norms(p, 7), rtol=1e-6)


def test_a_released_tape_has_no_forward_mode() -> None:
    p = make_problem("tanh", *SHAPE)
    tape = run(p, "numpy")
    tape.release()
    with pytest.raises(RuntimeError, match="the tape was released"):
        tape.jvp(p.x)


def test_forward_mode_leaves_its_arguments_as_they_were(cell: str) -> None:
    p = make_problem(cell, *SHAPE)
    tape, d, copy = run(p, "auto"), tangents(p), tangents(p)
    y = tape.y.copy()
    tape.jvp(**d)
    np.testing.assert_array_equal(tape.y, y)
    np.testing.assert_array_equal(d["dx"], copy["dx"])
    for s, kept in zip(as_tuple(d["dstate"]), as_tuple(copy["dstate"]), strict=True):
        np.testing.assert_array_equal(s, kept)


# --- Norms of products -------------------------------------------------------------------------


def dense_jacobians(p: Problem) -> np.ndarray:
    """dS_t/dS_{t-1} of every step and sequence, (T, B, N, N), a row at a time by BPTT of a step."""
    steps, batch, _ = p.x.shape
    hidden, parts = p.params.hidden_size, len(as_tuple(p.state))
    size = parts * hidden
    found = np.empty((steps, batch, size, size))
    state = p.state
    for t in range(steps):
        tape = bptt.forward(p.cell, p.params, p.x[t : t + 1], state, backend="numpy")
        for row in range(size):
            one = np.zeros((batch, size))
            one[:, row] = 1
            grads = tape.backward(dstate=as_given(tuple(np.split(one, parts, axis=1))))
            found[t, :, row] = np.concatenate(as_tuple(grads.state), axis=1)
        state = tape.state
    return found


def dense_norms(p: Problem, end: int) -> np.ndarray:
    """(end, B): of the products that end at step `end` - 1, by singular values."""
    jacobians = dense_jacobians(p)
    product, found = np.eye(jacobians.shape[-1]), []
    for j in reversed(jacobians[:end]):
        product = product @ j
        found.append(np.linalg.norm(product, 2, axis=(-2, -1)))
    return np.array(found)


def norms(p: Problem, backend: str = "auto", **options: Any) -> bptt.JacobianNorms:
    return bptt.jacobian_norms(p.cell, p.params, p.x, p.state, backend=backend, **options)


def test_norms_are_the_largest_singular_values_of_dense_products(cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE)
    found = norms(p, backend)
    np.testing.assert_array_equal(found.distances, np.arange(1, 8))
    np.testing.assert_allclose(found.norm, dense_norms(p, 7), rtol=1e-6)
    assert found.residual.max() <= 1e-4


@pytest.mark.parametrize(("at", "end"), [(4, 5), (-1, 7), (0, 1)])
def test_norms_end_at_the_step_that_is_asked_for(at: int, end: int) -> None:
    p = make_problem("lstm", *SHAPE)
    found = norms(p, at=at)
    assert found.at == end - 1
    np.testing.assert_allclose(found.norm, dense_norms(p, end), rtol=1e-6)


def test_norms_of_some_distances_are_those_of_all_at_these(cell: str) -> None:
    p = make_problem(cell, 30, 2, 2, 17)
    every = norms(p, tolerance=1e-8)
    some = norms(p, distances=[2, 3, 11], tolerance=1e-8)
    np.testing.assert_allclose(some.norm, every.norm[[1, 2, 10]], rtol=1e-10)


def test_norms_of_an_orthogonal_recurrence_are_powers_of_its_radius() -> None:
    params = bptt.init_params("linear", input_size=1, hidden_size=33, spectral_radius=0.1, rng=0)
    found = bptt.jacobian_norms("linear", params, np.zeros((200, 1, 1), "f4"))
    # far below what float32 holds: the products are in float64
    np.testing.assert_allclose(found.norm[:, 0], 0.1 ** np.arange(1.0, 201), rtol=1e-4)


def test_norms_in_float32_are_those_in_float64_rounded(cell: str) -> None:
    p = make_problem(cell, *SHAPE)
    np.testing.assert_allclose(norms(p.astype("float32")).norm, norms(p).norm, rtol=1e-4)


def test_norms_that_need_more_iterations_say_so() -> None:
    p = make_problem("tanh", 3, 2, 2, 100)
    with pytest.warns(RuntimeWarning, match="6 of 6 norms are not within the tolerance after 3"):
        found = norms(p, iterations=3, tolerance=1e-9)
    assert (found.residual > 1e-9).all()


def test_norms_of_no_sequences_are_none() -> None:
    assert norms(make_problem("lstm", 4, 0, 2, 5)).norm.shape == (4, 0)


def test_a_norm_that_overflows_is_nan() -> None:
    params = bptt.init_params("linear", input_size=1, hidden_size=4, spectral_radius=1e30, rng=0)
    found = bptt.jacobian_norms("linear", params, np.zeros((12, 1, 1), "f4"))
    np.testing.assert_allclose(found.norm[:9, 0], 1e30 ** np.arange(1.0, 10), rtol=1e-4)
    assert np.isnan(found.norm[-1, 0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"distances": []}, ValueError, "distances: expected one at least"),
        ({"distances": [2, 1]}, ValueError, "distances: expected them sorted"),
        ({"distances": [8]}, ValueError, "distances: expected at most 7, the initial state, got 8"),
        ({"distances": [0]}, ValueError, "distances: expected an integer of at least 1, got 0"),
        ({"distances": 3}, TypeError, "distances: expected a sequence of integers, got int"),
        ({"at": "first"}, ValueError, "at: expected 'last' or the number of a step"),
        ({"at": 7}, ValueError, "at: expected a step below 7"),
        ({"at": 1.5}, TypeError, "at: expected an integer, got float"),
        ({"iterations": 0}, ValueError, "iterations: expected an integer of at least 1"),
        ({"tolerance": -1}, ValueError, "tolerance: expected a finite number that is not negative"),
        ({"rng": "a"}, TypeError, "rng: expected None, an integer"),
        ({"backend": "abacus"}, ValueError, "backend: "),
    ],
)
def test_norms_say_what_is_wrong(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        norms(make_problem("tanh", *SHAPE), **options)


# --- Lyapunov exponents ------------------------------------------------------------------------


def exponents(p: Problem, backend: str = "auto", **options: Any) -> bptt.LyapunovExponents:
    return bptt.lyapunov_exponents(p.cell, p.params, p.x, p.state, backend=backend, **options)


def test_exponents_of_the_linear_cell_are_logs_of_the_moduli_of_its_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    moduli, basis = np.array([1.2, 0.9, 0.5, 0.1]), rng.standard_normal((4, 4))
    w_hh = basis @ np.diag(moduli) @ np.linalg.inv(basis)
    params = bptt.Params(np.ones((4, 1)), w_hh)
    found = bptt.lyapunov_exponents("linear", params, np.zeros((2000, 1, 1)), skip=200)
    np.testing.assert_allclose(found.exponents, np.log(moduli), atol=1e-10)
    assert found.entropy_rate == pytest.approx(np.log(1.2), abs=1e-10)
    expected = 2 + np.log(1.2 * 0.9) / -np.log(0.5)
    assert found.dimension == pytest.approx(expected, abs=1e-9)
    assert (found.standard_error < 1e-10).all()


def test_exponents_of_complex_pairs_are_logs_of_their_moduli_too() -> None:
    params = bptt.init_params(
        "linear", input_size=1, hidden_size=9, rng=0, dtype="float64", bias=False
    )
    found = bptt.lyapunov_exponents("linear", params, np.zeros((4000, 1, 1)))
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(params.w_hh))))[::-1]
    np.testing.assert_allclose(found.exponents, expected, atol=2e-3)


def test_exponents_are_those_of_dense_products(cell: str, backend: str) -> None:
    p = make_problem(cell, 12, 2, 2, 9)
    jacobians = dense_jacobians(p)
    found = exponents(p, backend, skip=0)
    # The determinant of the product of all steps is what all exponents add up to.
    logs = np.linalg.slogdet(jacobians)[1].sum(axis=0) / 12
    np.testing.assert_allclose(found.by_sequence.sum(axis=1), logs, rtol=1e-9)
    one = exponents(p, backend, k=1, skip=0, rng=3)
    v = np.linalg.qr(np.random.default_rng(3).standard_normal((2, jacobians.shape[-1], 1)))[0]
    for j in jacobians:
        v = j @ v
    grown = np.log(np.linalg.norm(v[..., 0], axis=1)) / 12
    np.testing.assert_allclose(one.by_sequence[:, 0], grown, rtol=1e-9)


def test_exponents_do_not_depend_on_the_interval(cell: str) -> None:
    if cell == "relu":
        pytest.skip("relu's exponents are -inf where units are off")
    p = make_problem(cell, 120, 2, 2, 6)
    often, seldom = (exponents(p, skip=24, interval=n) for n in (1, 4))
    np.testing.assert_allclose(seldom.exponents, often.exponents, rtol=1e-6, atol=1e-8)


def test_exponents_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    p = make_problem("lstm", 50, 2, 2, 6)
    whole = exponents(p, interval=3)
    monkeypatch.setattr("bptt.jacobians.lyapunov._BLOCK_NBYTES", 20_000)
    np.testing.assert_allclose(exponents(p, interval=3).running, whole.running, rtol=1e-10)


def test_exponents_in_float32_are_those_in_float64_rounded(cell: str) -> None:
    p = make_problem(cell, 60, 2, 2, 6)
    np.testing.assert_allclose(
        exponents(p.astype("float32"), k=3).exponents, exponents(p, k=3).exponents, atol=1e-4
    )


def test_a_state_that_is_lost_at_once_has_minus_infinity() -> None:
    p = make_problem("relu", 40, 1, 2, 8)
    found = exponents(p)
    assert found.exponents[-1] == -np.inf
    assert np.isfinite(found.exponents[0])
    assert np.isfinite(found.dimension)


def test_the_mean_up_to_the_last_step_is_the_result() -> None:
    p = make_problem("gru", 700, 2, 2, 5)
    found = exponents(p, skip=100)
    np.testing.assert_array_equal(found.running[-1], found.exponents)
    np.testing.assert_allclose(found.by_sequence.mean(axis=0), found.exponents, rtol=1e-12)
    assert found.steps[-1] == 700
    assert len(found.steps) == 200
    assert found.complete


def test_the_standard_error_is_how_far_repetitions_scatter() -> None:
    params = bptt.init_params("tanh", input_size=2, hidden_size=12, rng=0, dtype="float64")
    x = np.random.default_rng(1).standard_normal((400, 40, 2))
    together = bptt.lyapunov_exponents("tanh", params, x, k=2)
    scatter = together.by_sequence.std(axis=0, ddof=1)
    np.testing.assert_allclose(together.standard_error, scatter / np.sqrt(40), rtol=1e-12)
    alone = bptt.lyapunov_exponents("tanh", params, x[:, :1], k=2)  # from spans of time
    assert (alone.standard_error / scatter > 0.4).all()
    assert (alone.standard_error / scatter < 2.5).all()


def test_memory_does_not_grow_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bptt.jacobians.lyapunov._BLOCK_NBYTES", 1_000_000)
    params = bptt.init_params("gru", input_size=1, hidden_size=64, rng=0)

    def peak(steps: int) -> int:
        x = np.zeros((steps, 1, 1), "f4")
        tracemalloc.start()
        bptt.lyapunov_exponents("gru", params, x, k=2)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(800)
    # The curve over the steps, of a few numbers each, is all that grows.
    assert peak(3200) < 1.3 * peak(800)


def test_progress_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    p = make_problem("tanh", 20, 2, 2, 5)
    exponents(p)
    assert capsys.readouterr().err == ""
    exponents(p, progress=True)
    assert "lyapunov: 100%" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    p = make_problem("tanh", 50, 2, 2, 6)
    qr, calls = np.linalg.qr, []

    def interrupted(a: np.ndarray) -> Any:
        calls.append(a)
        if len(calls) > 31:  # the first is that of the tangents to begin with
            raise KeyboardInterrupt
        return qr(a)

    whole = exponents(p, skip=10)
    monkeypatch.setattr(np.linalg, "qr", interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted: 20 of 40 intervals are done"):
        found = exponents(p, skip=10)
    assert not found.complete
    assert found.steps[-1] == 30
    np.testing.assert_array_equal(found.exponents, whole.running[19])


def test_the_largest_exponent_crosses_zero_at_the_onset_of_chaos() -> None:
    """Sompolinsky, Crisanti and Sommers 1988: at a gain of 1; in between, docs/chaos.py."""
    rng, hidden = np.random.default_rng(0), 200
    w = rng.standard_normal((hidden, hidden)) / np.sqrt(hidden)
    state = rng.standard_normal((2, hidden))
    x = np.zeros((400, 2, 1))
    largest = [
        bptt.lyapunov_exponents(
            "tanh", bptt.Params(np.zeros((hidden, 1)), g * w), x, state, k=1, skip=100
        ).exponents[0]
        for g in (0.7, 1.5)
    ]
    radius = np.abs(np.linalg.eigvals(w)).max()
    assert largest[0] == pytest.approx(np.log(0.7 * radius), abs=0.01)  # comes to rest
    assert largest[1] > 0.02


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k: expected an integer of at least 1, got 0"),
        ({"k": 6}, ValueError, "k: expected at most 5, the size of the state, got 6"),
        ({"skip": -1}, ValueError, "skip: expected an integer of at least 0"),
        ({"skip": 7}, ValueError, "skip, interval: expected at most the 7 steps of x, got 7 and 1"),
        ({"interval": 0}, ValueError, "interval: expected an integer of at least 1"),
        (
            {"interval": 8},
            ValueError,
            "skip, interval: expected at most the 7 steps of x, got 0 and 8",
        ),
        ({"rng": -1}, ValueError, "rng: expected None, an integer of at least 0"),
    ],
)
def test_exponents_say_what_is_wrong(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        exponents(make_problem("tanh", *SHAPE), **options)


def test_exponents_of_no_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="x: expected one sequence at least, got none"):
        exponents(make_problem("tanh", 4, 0, 2, 5))


def test_results_are_drawn() -> None:
    pytest.importorskip("matplotlib")
    p = make_problem("lstm", *SHAPE)
    assert len(norms(p).plot().axes) == 1
    assert len(exponents(p).plot().axes) == 2
