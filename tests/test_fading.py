"""The text's claim: far terms of the recurrent gradient fade or explode; W_o's gradient does not.

With W_x = I the gradient of x_k is the delta of step k itself, so the term of step k in W_s's
gradient, delta_k S_{k-1}^T, can be formed from what the public API returns.
"""

from __future__ import annotations

import bptt
import numpy as np
import pytest
from bptt.states import as_given

H = 6


def network(spectral_radius: float) -> bptt.Params:
    params = bptt.init_params(
        "linear",
        input_size=H,
        hidden_size=H,
        output_size=2,
        spectral_radius=spectral_radius,
        rng=0,
        dtype="float64",
    )
    params.w_ih = np.eye(H)
    return params


def terms_by_lag(backend: str, params: bptt.Params, x: np.ndarray) -> tuple[np.ndarray, bptt.Grads]:
    """(T, H, H): the terms of W_s's gradient, for a loss at the last step, nearest step first."""
    _, grads = bptt.value_and_grad(
        "linear", params, x, np.ones((1, 2)), loss="squared_error", at="last", backend=backend
    )
    y = bptt.forward("linear", params, x, backend=backend).y
    previous = np.concatenate([np.zeros((1, 1, H)), y[:-1]])
    terms = np.einsum("tbi,tbj->tij", grads.x, previous)
    return terms[::-1], grads


def test_terms_add_up_to_the_gradient(backend: str) -> None:
    x = np.random.default_rng(1).standard_normal((50, 1, H))
    terms, grads = terms_by_lag(backend, network(0.9), x)
    np.testing.assert_allclose(terms.sum(axis=0), grads.w_hh, rtol=0, atol=1e-13)


def test_below_one_far_terms_vanish_and_their_sum_does_not(backend: str) -> None:
    x = np.random.default_rng(1).standard_normal((200, 1, H))
    terms, grads = terms_by_lag(backend, network(0.8), x)
    norms = np.linalg.norm(terms, axis=(1, 2))
    assert norms[150:-1].max() < 1e-12 * norms[0]
    assert np.linalg.norm(grads.w_hh) > 0.5 * norms[0]
    # The nearest 30 terms are the gradient, to one percent.
    cut = terms[:30].sum(axis=0)
    assert np.linalg.norm(cut - grads.w_hh) < 0.01 * np.linalg.norm(grads.w_hh)


@pytest.mark.parametrize("spectral_radius", [0.8, 1.0, 1.1])
def test_a_delta_shrinks_or_grows_by_the_spectral_radius_each_step(
    backend: str, spectral_radius: float
) -> None:
    x = np.random.default_rng(1).standard_normal((100, 1, H))
    _, grads = terms_by_lag(backend, network(spectral_radius), x)
    norms = np.linalg.norm(grads.x[:, 0], axis=1)[::-1]
    # W_s is the radius times an orthogonal matrix, so this holds at each step, not on average.
    np.testing.assert_allclose(norms[1:] / norms[:-1], spectral_radius, rtol=1e-12)


def test_gradient_of_readout_does_not_depend_on_the_length_of_the_product(
    cell: str, backend: str
) -> None:
    """Given S_t, the steps that led there change W_s's gradient, and W_o's not at all."""
    gated = {"input_size": H, "hidden_size": H, "output_size": 2, "rng": 0, "dtype": "float64"}
    params = network(0.9) if bptt.CELLS[cell].gates == 1 else bptt.init_params(cell, **gated)
    x = np.random.default_rng(1).standard_normal((500, 3, H))
    tape = bptt.forward(cell, params, x, backend=backend)
    history = (tape.y, tape.c) if cell == "lstm" else (tape.y,)
    target = np.ones((3, 2))

    def readout_gradient(last_steps: int) -> bptt.Grads:
        state = as_given(tuple(states[-last_steps - 1] for states in history))
        _, grads = bptt.value_and_grad(
            cell,
            params,
            x[-last_steps:],
            target,
            loss="squared_error",
            at="last",
            state=state,
            backend=backend,
        )
        return grads

    short = readout_gradient(1)
    for last_steps in (2, 30, 499):
        long = readout_gradient(last_steps)
        np.testing.assert_allclose(long.w_ho, short.w_ho, rtol=1e-14)
        np.testing.assert_allclose(long.b_o, short.b_o, rtol=1e-14)
        assert np.linalg.norm(long.w_hh - short.w_hh) > 0.1 * np.linalg.norm(short.w_hh)


def test_gradient_of_readout_does_not_fade_with_distance(backend: str) -> None:
    """W_o's part in a loss at step t is as large at the far end of a sequence as at its start."""
    params = network(0.8)
    x = np.random.default_rng(1).standard_normal((300, 1, H))
    norms = {}
    for t in (5, 50, 299):
        _, grads = bptt.value_and_grad(
            "linear", params, x, np.ones((1, 2)), loss="squared_error", at=t, backend=backend
        )
        norms[t] = np.linalg.norm(grads.w_ho), np.linalg.norm(grads.x[0])
    assert norms[50][0] > 0.1 * norms[5][0]
    assert norms[299][0] > 0.1 * norms[5][0]
    # Beside it, what reaches the first input.
    assert norms[299][1] < 1e-20 * norms[5][1]
