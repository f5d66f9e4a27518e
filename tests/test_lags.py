"""The gradient by lag, against brute force: a copy of the weights for each step, and autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_tuple
from problems import Problem, make_problem

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)
torch.set_num_threads(1)

WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
SHAPE = (9, 3, 2, 5, 4)  # T, B, I, H, O
CLOSE = {"rtol": 1e-10, "atol": 1e-12}

State = tuple[Any, ...]


def step(cell: str, w: dict[str, Any], x: Any, state: State, cut: bool) -> State:
    """One step; with `cut`, what goes through W_s has no gradient: the direct route is left."""
    s = state[0].detach() if cut else state[0]
    i, h = x @ w["w_ih"].T + w["b_ih"], s @ w["w_hh"].T + w["b_hh"]
    if cell == "lstm":
        a_i, a_f, a_g, a_o = (i + h).chunk(4, -1)
        c = a_f.sigmoid() * state[1] + a_i.sigmoid() * a_g.tanh()
        return a_o.sigmoid() * c.tanh(), c
    if cell == "gru":
        (i_r, i_z, i_n), (h_r, h_z, h_n) = i.chunk(3, -1), h.chunk(3, -1)
        z = (i_z + h_z).sigmoid()
        return ((1 - z) * (i_n + (i_r + h_r).sigmoid() * h_n).tanh() + z * state[0],)
    if cell == "mgu":
        (i_f, i_n), (h_f, h_n) = i.chunk(2, -1), h.chunk(2, -1)
        f = (i_f + h_f).sigmoid()
        return ((1 - f) * (i_n + f * h_n).tanh() + f * state[0],)
    f = {"linear": lambda a: a, "tanh": torch.tanh, "relu": torch.relu}[cell]
    return (f(i + h),)


def brute_force(p: Problem, loss_of: Callable[[int, Any], Any], cut: bool = False) -> list[dict]:
    """The term of each lag: sum over t of the gradient of L_t in the weights of step t - lag.

    `loss_of` gives L_t from S_t, or None.
    """
    steps = len(p.x)
    copies = [
        {name: torch.tensor(getattr(p.params, name), requires_grad=True) for name in WEIGHTS}
        for _ in range(steps)
    ]
    state = tuple(torch.tensor(s) for s in as_tuple(p.state))
    states = []
    for w, x in zip(copies, torch.tensor(p.x), strict=True):
        state = step(p.cell, w, x, state, cut)
        states.append(state)
    terms = [{n: np.zeros_like(getattr(p.params, n)) for n in WEIGHTS} for _ in range(steps)]
    for t, (s, *_) in enumerate(states):
        loss = loss_of(t, s)
        if loss is None:
            continue
        wanted = [copies[k][name] for k in range(t + 1) for name in WEIGHTS]
        found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
        for n, g in enumerate(found):
            if g is not None:
                terms[t - n // 4][WEIGHTS[n % 4]] += g.numpy()
    return terms


def loss_of(p: Problem, loss: str, at: str) -> Callable[[int, Any], Any]:
    where, target = p.loss_at(at, loss)
    steps, batch, _ = p.x.shape
    weights = p.weights / p.weights.sum() if at == "weights" else np.full((steps, batch), 0.0)
    if at == "all":
        weights[:] = 1 / weights.size
    elif at != "weights":
        weights[-1 if at == "last" else where] = 1 / batch
        target = np.broadcast_to(target, (steps, *target.shape))

    def one(t: int, s: Any) -> Any:
        if not weights[t].any():
            return None
        o = s @ torch.tensor(p.params.w_ho).T + torch.tensor(p.params.b_o)
        y = torch.tensor(np.ascontiguousarray(target[t]))
        if loss == "squared_error":
            rows = (o - y).square().sum(-1) / 2
        else:
            rows = torch.nn.functional.cross_entropy(o, y, reduction="none")
        return (rows * torch.tensor(weights[t])).sum()

    return one


def lags_of(p: Problem, backend: str, loss: str, at: str, **options: Any) -> bptt.LagGradients:
    where, target = p.loss_at(at, loss)
    return bptt.lag_gradients(
        p.cell, p.params, p.x, target, loss=loss, at=where, state=p.state, backend=backend,
        terms=True, **options,
    )  # fmt: skip


def expect_measures(lags: bptt.LagGradients, terms: list[dict]) -> None:
    """Every curve follows from the terms alone."""
    for name in (*WEIGHTS, "params"):
        rows = np.array(
            [
                np.concatenate([t[n].ravel() for n in WEIGHTS])
                if name == "params"
                else t[name].ravel()
                for t in terms
            ]
        )
        total, part = rows.sum(axis=0), np.cumsum(rows, axis=0)
        size = np.linalg.norm(total)
        close = {"rtol": 1e-10, "atol": 1e-10}
        np.testing.assert_allclose(lags.norm[name], np.linalg.norm(rows, axis=1), **close)
        rest = np.linalg.norm(total - part, axis=1)
        np.testing.assert_allclose(lags.error[name], rest / size, **close)
        np.testing.assert_allclose(
            lags.cosine[name], part @ total / np.linalg.norm(part, axis=1) / size, **close
        )
        np.testing.assert_allclose(lags.share[name], rows @ total / size**2, **close)


@pytest.mark.parametrize("at", ["last", "all", "step", "weights"])
def test_every_lags_term_is_that_of_brute_force(
    at: str, loss: str, cell: str, backend: str
) -> None:
    p = make_problem(cell, *SHAPE, seed=4)
    expected = brute_force(p, loss_of(p, loss, at))
    lags = lags_of(p, backend, loss, at)
    expected = expected[: len(lags.lags)]
    for lag, terms in enumerate(expected):
        for name, term in terms.items():
            np.testing.assert_allclose(lags.terms[lag].params[name], term, **CLOSE, err_msg=name)
    expect_measures(lags, expected)
    total = p.value_and_grad(backend, loss, at)
    assert lags.loss == pytest.approx(total["loss"], rel=1e-12)
    for name, g in lags.total.items():
        np.testing.assert_allclose(g, total[name], rtol=1e-12, atol=1e-13, err_msg=name)
    assert lags.check < 1e-12
    assert sum(lags.share["params"]) == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize(
    "shape", [SHAPE, (20, 1, 8, 16, 3), (7, 33, 17, 65, 2), (40, 5, 300, 31, 2)]
)
@pytest.mark.parametrize("route", [None, "direct", "recurrent"])
def test_without_its_terms_a_lag_is_measured_the_same(
    route: str | None, shape: tuple[int, ...], cell: str, dtype: str, backend: str
) -> None:
    """The native backend has a kernel for it, where the loss is at one step."""
    if route and bptt.CELLS[cell].keeps is None:
        pytest.skip(f"{cell} has one route only")
    p = make_problem(cell, *shape, dtype=dtype, seed=5)
    for lags in (None, [0, 1, 3, 6]):
        options = {"loss": "cross_entropy", "at": "last", "route": route, "lags": lags}
        call = {"state": p.state, "backend": backend, **options}
        one = bptt.lag_gradients(cell, p.params, p.x, p.ids[-1], terms=True, **call)
        other = bptt.lag_gradients(cell, p.params, p.x, p.ids[-1], **call)
        close = (
            {"rtol": 1e-9, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-3, "atol": 1e-6}
        )
        np.testing.assert_allclose(one.signal, other.signal, **close)
        for curve in ("norm", "error", "cosine", "share"):
            for name, values in getattr(one, curve).items():
                np.testing.assert_allclose(
                    getattr(other, curve)[name],
                    values,
                    err_msg=f"{curve} of {name} of {p}",
                    **close,
                )
