"""The text's own example, docs/math.md section 1: three linear steps, evaluated term by term.

All numbers are small multiples of 1/2, so every product and sum below is exact in float32 and
float64 alike, and backends must return equal numbers, not close ones.
"""

from __future__ import annotations

from functools import reduce

import bptt
import numpy as np
import pytest
from problems import by_name

W_x = np.array([[1.0, -0.5], [0.5, 1.5], [-1.0, 0.5]])
W_s = np.array([[0.5, -1.0, 0.5], [1.0, 0.5, -0.5], [0.5, 0.5, -1.0]])
W_o = np.array([[1.0, -0.5, 0.5], [-1.5, 1.0, 0.5]])
b_ih = np.array([0.5, -1.0, 0.5])
b_hh = np.array([0.5, 0.5, 0.0])
b_1 = b_ih + b_hh
b_2 = np.array([0.5, -0.5])
S_0 = np.array([1.0, -1.0, 0.5])
# Index 0 is not used: the text counts steps from 1.
X = [None, np.array([1.0, 2.0]), np.array([-1.0, 0.5]), np.array([0.5, -1.5])]
Y = [None, np.array([1.0, 0.0]), np.array([-0.5, 1.5]), np.array([2.0, -1.0])]

I_H, I_O = np.eye(3), np.eye(2)
SHAPES = {
    "w_ih": W_x.shape,
    "w_hh": W_s.shape,
    "b_ih": b_ih.shape,
    "b_hh": b_hh.shape,
    "w_ho": W_o.shape,
    "b_o": b_2.shape,
    "dstate": (1, 3),
}


def states() -> list[np.ndarray]:
    """S_0 ... S_3."""
    S = [S_0]
    for t in (1, 2, 3):
        S.append(W_x @ X[t] + W_s @ S[t - 1] + b_1)
    return S


def product_of_jacobians(t: int, k: int) -> np.ndarray:
    """prod_{j=k+1..t} dS_j/dS_{j-1}, the latest step's Jacobian on the left."""
    jacobians = [W_s for j in range(t, k, -1)]
    return reduce(np.matmul, jacobians, I_H)


def gradient_of_one_loss(t: int) -> dict[str, np.ndarray]:
    """L_t and its derivative in every input, as sums of explicit products of Jacobians."""
    S = states()
    O_t = W_o @ S[t] + b_2
    dL_dO = O_t - Y[t]  # derivatives of a scalar are rows
    dL_dS = dL_dO @ W_o
    immediate = {  # the derivative of S_k with S_{k-1} held constant
        "w_ih": lambda k: np.kron(I_H, X[k]),
        "w_hh": lambda k: np.kron(I_H, S[k - 1]),
        "b_ih": lambda k: I_H,
        "b_hh": lambda k: I_H,
    }
    found = {
        name: sum(dL_dS @ product_of_jacobians(t, k) @ dS_dw(k) for k in range(1, t + 1))
        for name, dS_dw in immediate.items()
    }
    found["w_ho"] = dL_dO @ np.kron(I_O, S[t])
    found["b_o"] = dL_dO @ I_O
    found["dstate"] = dL_dS @ product_of_jacobians(t, 0)
    found = {name: gradient.reshape(SHAPES[name]) for name, gradient in found.items()}
    found["dx"] = np.zeros((3, 1, 2))
    for k in range(1, t + 1):
        found["dx"][k - 1, 0] = dL_dS @ product_of_jacobians(t, k) @ W_x
    found["loss"] = 0.5 * np.sum((Y[t] - O_t) ** 2)
    return found


def from_backend(backend: str, dtype: str, at: object, target: np.ndarray) -> dict[str, np.ndarray]:
    params = bptt.Params(W_x, W_s, b_ih, b_hh, W_o, b_2).astype(dtype)
    x = np.array(X[1:]).reshape(3, 1, 2).astype(dtype)
    loss, grads = bptt.value_and_grad(
        "linear",
        params,
        x,
        target.astype(dtype),
        loss="squared_error",
        at=at,
        reduction="sum",
        state=S_0.reshape(1, 3).astype(dtype),
        backend=backend,
    )
    return {"loss": loss, **by_name(grads)}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_loss_at_step_three_has_the_gradients_of_the_text(backend: str, dtype: str) -> None:
    found = from_backend(backend, dtype, "last", Y[3].reshape(1, 2))
    assert_equal(found, gradient_of_one_loss(3))


@pytest.mark.parametrize("t", [1, 2, 3])
def test_loss_at_any_step_has_the_gradients_of_the_text(backend: str, dtype: str, t: int) -> None:
    found = from_backend(backend, dtype, t - 1, Y[t].reshape(1, 2))
    assert_equal(found, gradient_of_one_loss(t))


def test_loss_at_all_steps_has_the_sum_of_the_gradients(backend: str, dtype: str) -> None:
    found = from_backend(backend, dtype, "all", np.array(Y[1:]).reshape(3, 1, 2))
    single = [gradient_of_one_loss(t) for t in (1, 2, 3)]
    assert_equal(found, {name: sum(loss[name] for loss in single) for name in single[0]})


def test_forward_visits_the_states_of_the_text(backend: str, dtype: str) -> None:
    params = bptt.Params(W_x, W_s, b_ih, b_hh).astype(dtype)
    x = np.array(X[1:]).reshape(3, 1, 2).astype(dtype)
    tape = bptt.forward("linear", params, x, S_0.reshape(1, 3).astype(dtype), backend=backend)
    np.testing.assert_array_equal(tape.y[:, 0], states()[1:])
    np.testing.assert_array_equal(tape.state[0], states()[3])


def test_every_jacobian_is_that_of_a_finite_difference() -> None:
    """Guards the formulas above: in a linear network a finite difference is exact."""
    step = np.array([0.5, -0.5, 1.0])
    S = states()
    moved = W_x @ X[3] + W_s @ (W_x @ X[2] + W_s @ (S[1] + step) + b_1) + b_1
    np.testing.assert_array_equal(moved - S[3], product_of_jacobians(3, 1) @ step)
    change = np.array([[0.5, 0.0, -0.5], [1.0, 0.5, 0.0], [0.0, -1.0, 0.5]])
    np.testing.assert_array_equal(change @ S[2], np.kron(I_H, S[2]) @ change.ravel())
