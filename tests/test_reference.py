"""The NumPy reference against central finite differences of the loss, written out a second time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from problems import AT, Problem, make_problem, parts
from tolerance import scales, tolerance

F = {"linear": lambda a: a, "tanh": np.tanh, "relu": lambda a: np.maximum(a, 0)}


def sigma(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def next_state(p: Problem, x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """One step of one sample: x (I,) and a state of vectors (H,)."""
    w, s = p.params, state[0]
    g_i, g_h = w.w_ih @ x + w.b_ih, w.w_hh @ s + w.b_hh
    if p.cell == "lstm":
        i, f, g, o = (g_i + g_h).reshape(4, -1)
        c = sigma(f) * state[1] + sigma(i) * np.tanh(g)
        return sigma(o) * np.tanh(c), c
    if p.cell == "gru":
        (i_r, i_z, i_n), (h_r, h_z, h_n) = g_i.reshape(3, -1), g_h.reshape(3, -1)
        z = sigma(i_z + h_z)
        return ((1 - z) * np.tanh(i_n + sigma(i_r + h_r) * h_n) + z * s,)
    if p.cell == "mgu":
        (i_f, i_n), (h_f, h_n) = g_i.reshape(2, -1), g_h.reshape(2, -1)
        f = sigma(i_f + h_f)
        return ((1 - f) * np.tanh(i_n + f * h_n) + f * s,)
    return (F[p.cell](g_i + g_h),)


extended_precision = pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps,
    reason="np.longdouble is no wider than float64 here",
)


def all_states(p: Problem) -> list[np.ndarray]:
    """Each part of the state, (T + 1, B, H), sample by sample, unit by unit of the text."""
    states = [as_tuple(p.state)]
    for x_t in p.x:
        rows = [next_state(p, x, tuple(s[n] for s in states[-1])) for n, x in enumerate(x_t)]
        states.append(tuple(map(np.array, zip(*rows, strict=True))))
    return [np.array(part) for part in zip(*states, strict=True)]


def states(p: Problem) -> np.ndarray:
    """S_0 ... S_T (T + 1, B, H)."""
    return all_states(p)[0]


def loss_of(p: Problem, loss: str, at: str, reduction: str) -> np.floating:
    """The loss in the dtype of `p`: a loop over every row that counts."""
    steps, batch, _ = p.x.shape
    S = states(p)[1:]
    total, count = p.x.dtype.type(0), p.x.dtype.type(0)
    step, _ = p.loss_at(at, loss)
    for t in range(steps):
        for n in range(batch):
            if at == "weights":
                weight = p.weights[t, n]
            else:
                weight = at == "all" or t == (steps - 1 if at == "last" else step % steps)
            o = p.params.w_ho @ S[t, n] + p.params.b_o
            if loss == "squared_error":
                row = ((p.target[t, n] - o) ** 2).sum() / 2
            else:
                row = np.log(np.exp(o).sum()) - o[p.ids[t, n]]
            total, count = total + weight * row, count + weight
    return total / count if reduction == "mean" else total


def assert_is_difference(found: dict, f: Callable[[Problem], np.floating], p: Problem) -> None:
    """Each gradient is (f(v + h) - f(v - h)) / 2h, for every entry v of its input.

    The difference is off by h^2 / 6 times a third derivative (below 100 here) and by a few dozen
    eps |f| / h, as f is a sum of a few dozen numbers.
    """
    h = p.x.dtype.type(1e-6)
    allowed = 2e-11 + 50 * np.finfo(p.x.dtype).eps * max(1, abs(f(p))) / h
    inputs = {"dx": p.x, **parts("dstate", p.state), **p.params.arrays()}
    assert found.keys() == inputs.keys()

    def moved(name: str, index: tuple[int, ...], by: np.floating) -> Problem:
        array = inputs[name].copy()
        array[index] += by
        if name == "dx":
            return replace(p, x=array)
        if name.startswith("dstate"):
            changed = {**parts("dstate", p.state), name: array}
            return replace(p, state=as_given(tuple(changed.values())))
        return replace(p, params=replace(p.params, **{name: array}))

    for name, array in inputs.items():
        for index in np.ndindex(array.shape):
            expected = (f(moved(name, index, h)) - f(moved(name, index, -h))) / (2 * h)
            error = abs(found[name][index] - expected)
            assert error <= allowed, f"{name}{list(index)} of {p}: {error:.3g} > {allowed:.3g}"


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("at", AT)
def test_value_and_grad_is_the_finite_difference(
    cell: str, loss: str, at: str, reduction: str
) -> None:
    p = make_problem(cell, steps=4, batch=2, inputs=3, hidden=3, outputs=3, seed=5)
    found = p.value_and_grad("numpy", loss, at, reduction)
    assert found.pop("loss") == pytest.approx(loss_of(p, loss, at, reduction), rel=1e-13)
    assert_is_difference(found, lambda q: loss_of(q, loss, at, reduction), p)


@extended_precision
@pytest.mark.parametrize("at", AT)
def test_value_and_grad_is_the_finite_difference_in_extended_precision(
    cell: str, loss: str, at: str
) -> None:
    p = make_problem(cell, 4, 2, 3, 3, 3, seed=5).astype(np.longdouble)
    found = p.value_and_grad("numpy", loss, at)
    assert found.pop("loss") == pytest.approx(float(loss_of(p, loss, at, "mean")), rel=1e-15)
    assert_is_difference(found, lambda q: loss_of(q, loss, at, "mean"), p)


@pytest.mark.parametrize(("dy", "dstate"), [(True, True), (True, False), (False, True)])
def test_backward_is_the_finite_difference(cell: str, dy: bool, dstate: bool) -> None:
    p = make_problem(cell, 4, 2, 3, 3, seed=5)
    p = replace(p, params=replace(p.params, w_ho=None, b_o=None))

    def scalar(q: Problem) -> np.floating:
        total = 0.0
        outside = (q.dy, q.dc)[: len(bptt.CELLS[p.cell].states)]
        for S, d, last in zip(all_states(q), outside, as_tuple(q.dstate), strict=True):
            total += dy * (d * S[1:]).sum() + dstate * (last * S[-1]).sum()
        return total

    found = p.forward_backward("numpy", dy=dy, dstate=dstate)
    for S, name, last in zip(all_states(p), ("y", "c"), ("last", "last.c"), strict=False):
        np.testing.assert_allclose(found.pop(name), S[1:], rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(found.pop(last), S[-1], rtol=1e-13, atol=1e-13)
    assert_is_difference(found, scalar, p)


def test_absent_biases_count_as_zero(cell: str) -> None:
    p = make_problem(cell, 4, 2, 3, 3, biases=(), seed=5)
    zero = np.zeros(3 * bptt.CELLS[cell].gates)
    q = replace(p, params=replace(p.params, b_ih=zero, b_hh=zero, b_o=zero[:3]))
    found, expected = (r.value_and_grad("numpy", "squared_error", "all") for r in (p, q))
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert expected.keys() - found.keys() == {"b_ih", "b_hh", "b_o"}


@pytest.mark.parametrize("dtype", ["float16", "longdouble"])
def test_the_reference_computes_in_the_dtype_of_its_inputs(cell: str, dtype: str) -> None:
    # A seed with no pre-activation near the kink of relu, by more than the rounding of float16.
    wide = make_problem(cell, 5, 3, 4, 6, dtype="float16", seed=3)
    p = wide.astype(dtype)
    found, expected = p.forward_backward("numpy"), wide.astype("float64").forward_backward("numpy")
    for name, scale in scales(p).items():
        assert found[name].dtype == np.dtype(dtype), name
        # Two results are compared; the coarser dtype decides.
        allowed = max(tolerance(p, d, scale) for d in (dtype, "float64"))
        error = np.abs(found[name].astype(np.longdouble) - expected[name]).max()
        assert error <= allowed, f"{name} of {p}: {error:.3g} > {allowed:.3g}"


@extended_precision
def test_the_last_bits_of_extended_precision_survive() -> None:
    """A float64 anywhere on the way would drop the 2^-60 of these numbers."""
    one, tiny = np.longdouble(1), np.longdouble(2) ** -60
    weight = np.array([[one]])
    params = bptt.Params(w_ih=weight, w_hh=weight, w_ho=weight, b_ih=np.array([tiny]))
    x = np.array([[[one]], [[one + tiny]]])
    loss, grads = bptt.value_and_grad(
        "linear", params, x, np.array([[tiny]]), loss="squared_error", at="last", backend="numpy"
    )
    error = 2 + 2 * tiny  # S_2 - tiny = (1 + tiny) + (1 + tiny) + tiny - tiny
    assert loss == 2
    assert grads.x.ravel().tolist() == [error, error]
    assert grads.b_ih[0] == 2 * error
    assert grads.w_ih[0, 0] == error * (2 + tiny)
