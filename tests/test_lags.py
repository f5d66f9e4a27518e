"""The gradient by lag, against brute force: a copy of the weights for each step, and autograd."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.lags.lag_sum import LagSum
from bptt.recorded import Recorded
from bptt.states import as_tuple
from problems import Problem, make_problem

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

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
                # Where a sum is nothing but rounding, its cosine is half of the digits.
                rounding = {"atol": 2 * np.finfo(dtype).eps ** 0.5} if curve == "cosine" else {}
                np.testing.assert_allclose(
                    getattr(other, curve)[name],
                    values,
                    err_msg=f"{curve} of {name} of {p}",
                    **{**close, **rounding},
                )


# --- routes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "mgu"])
@pytest.mark.parametrize("at", ["last", "all"])
def test_the_routes_are_those_of_brute_force_and_add_up(at: str, cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE, seed=6)
    expected = brute_force(p, loss_of(p, "squared_error", at), cut=True)
    found = {
        route: lags_of(p, backend, "squared_error", at, route=route)
        for route in (None, "direct", "recurrent")
    }
    for lag, terms in enumerate(expected):
        for name, term in terms.items():
            parts = {route: lags.terms[lag].params[name] for route, lags in found.items()}
            np.testing.assert_allclose(parts["direct"], term, **CLOSE, err_msg=name)
            whole = parts["direct"] + parts["recurrent"]
            np.testing.assert_allclose(whole, parts[None], **CLOSE, err_msg=name)
    assert not found["recurrent"].terms[0].params["w_hh"].any()
    expect_measures(found["direct"], expected)


def test_a_cell_without_a_direct_route_says_so(backend: str) -> None:
    p = make_problem("tanh", *SHAPE)
    with pytest.raises(ValueError, match=r"^route: cell 'tanh' has one route only, got 'direct'"):
        lags_of(p, backend, "squared_error", "all", route="direct")
    with pytest.raises(ValueError, match=r"^route: expected one of direct, recurrent"):
        lags_of(make_problem("gru", *SHAPE), backend, "squared_error", "all", route="both")


def test_with_the_forget_gate_open_the_direct_route_never_fades(dtype: str) -> None:
    """f = 1 and W_s = 0: dc_t/dc_{t-1} is the identity, and delta of c keeps its norm."""
    steps, hidden = 60, 5
    params = bptt.init_params(
        "lstm", input_size=2, hidden_size=hidden, output_size=3, rng=0, dtype=dtype
    )
    params.w_hh[:] = 0
    params.w_ih[hidden : 2 * hidden] = 0
    params.b_ih[hidden : 2 * hidden] = 100
    x = np.random.default_rng(0).standard_normal((steps, 4, 2)).astype(dtype)
    dy = np.zeros((steps, 4, hidden), dtype)
    dy[-1] = 1
    lags = bptt.lag_gradients("lstm", params, x, dy=dy, route="direct")
    norm = lags.norm["state"][1:]
    assert norm[0] > 0.1
    np.testing.assert_allclose(norm, norm[0], rtol=1e-6)


# --- which lags, of what ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, (30, 7, 2, 5, 4)])  # one block of the kernel, and two
def test_some_lags_are_what_they_are_among_all(
    cell: str, backend: str, shape: tuple[int, ...]
) -> None:
    p = make_problem(cell, *shape, seed=7)
    for at in ("all", "last"):
        every = lags_of(p, backend, "cross_entropy", at)
        for chosen in ([0], [1, 2, 5], [8], range(0, shape[0], 4)):
            some = lags_of(p, backend, "cross_entropy", at, lags=chosen)
            assert some.lags.tolist() == list(chosen)
            for curve in ("norm", "error", "cosine", "share"):
                for name, values in getattr(some, curve).items():
                    expected = getattr(every, curve)[name][list(chosen)]
                    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-10)
            np.testing.assert_allclose(some.signal, every.signal[list(chosen)], rtol=1e-9)
        few = lags_of(p, backend, "cross_entropy", at, max_lag=3)
        np.testing.assert_allclose(few.error["w_hh"], every.error["w_hh"][:4], rtol=1e-9)


def test_gradients_of_the_states_may_be_given(cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE, seed=8)
    _, target = p.loss_at("all", "squared_error")
    o = bptt.forward(cell, p.params, p.x, p.state).y @ p.params.w_ho.T + p.params.b_o
    dy = (o - target) @ p.params.w_ho / (p.x.shape[0] * p.x.shape[1])
    given = bptt.lag_gradients(cell, p.params, p.x, dy=dy, state=p.state, backend=backend)
    of_loss = lags_of(p, backend, "squared_error", "all")
    assert given.loss is None
    assert "w_ho" not in given.total
    for name in (*WEIGHTS, "params", "state"):
        np.testing.assert_allclose(given.norm[name], of_loss.norm[name], rtol=1e-10)


def test_delta_is_the_gradient_of_a_later_loss_in_the_state(backend: str) -> None:
    """By differences, of the loss at t = k + 2 in S_k."""
    p = make_problem("tanh", 6, 2, 2, 3, 2, seed=9)
    _, target = p.loss_at("all", "squared_error")
    (term,) = bptt.lag_terms(
        "tanh", p.params, p.x, target, loss="squared_error", at="all", reduction="sum",
        state=p.state, backend=backend, lags=[2],
    )  # fmt: skip
    assert term.steps == slice(0, 4)
    y = bptt.forward("tanh", p.params, p.x, p.state).y
    for k in range(4):
        for unit in range(3):
            losses = []
            for h in (1e-6, -1e-6):
                s = y[k].copy()
                s[:, unit] += h
                later = bptt.forward("tanh", p.params, p.x[k + 1 : k + 3], s).y[-1]
                o = later @ p.params.w_ho.T + p.params.b_o
                losses.append(((o - target[k + 2]) ** 2).sum(axis=1) / 2)
            slope = (losses[0] - losses[1]) / 2e-6
            np.testing.assert_allclose(term.dstates[0][k, :, unit], slope, rtol=1e-6, atol=1e-8)


def test_a_sample_is_near_the_whole_and_says_how_near() -> None:
    p = make_problem("gru", 12, 200, 3, 8, 4, seed=10)
    call = {"loss": "cross_entropy", "at": "all", "state": p.state}
    whole = bptt.lag_gradients("gru", p.params, p.x, p.ids, **call)
    far = []
    for seed in range(20):
        some = bptt.lag_gradients("gru", p.params, p.x, p.ids, sample=64, rng=seed, **call)
        error = some.standard_error["norm"]["state"]
        assert (error > 0).all()
        far.append(np.abs(some.norm["state"] - whole.norm["state"]) / error)
    # Half of normal errors lie within 0.67 deviations, nearly all within 3.
    assert 0.3 < np.median(far) < 1.5
    assert np.mean(np.array(far) < 3) > 0.9
    every = bptt.lag_gradients("gru", p.params, p.x, p.ids, sample=200, **call)
    np.testing.assert_allclose(every.error["w_hh"], whole.error["w_hh"], atol=1e-12)


# --- threads, time and memory -------------------------------------------------------------------


@pytest.mark.parametrize("at", ["last", "all"])
def test_threads_do_not_change_a_bit(
    at: str, cell: str, dtype: str, core: object, keep_num_threads: None
) -> None:
    p = make_problem(cell, 40, 33, 20, 65, 3, dtype=dtype)
    where, target = p.loss_at(at, "cross_entropy")
    call = {"loss": "cross_entropy", "at": where, "state": p.state, "lags": [0, 7, 39]}
    found, curves = [], []
    for threads in (1, 2, 3):
        bptt.set_num_threads(threads)
        found.append(list(bptt.lag_terms(cell, p.params, p.x, target, **call)))
        curves.append(bptt.lag_gradients(cell, p.params, p.x, target, **call))
    for terms in zip(*found, strict=True):
        for other in terms[1:]:
            for name, g in terms[0].params.items():
                np.testing.assert_array_equal(g, other.params[name], err_msg=name)
    for other in curves[1:]:
        for name, norm in curves[0].norm.items():
            np.testing.assert_array_equal(norm, other.norm[name], err_msg=name)


def test_many_lags_take_no_more_memory_than_few() -> None:
    p = make_problem("lstm", 60, 16, 32, 32, 3, dtype="float32")
    tape = bptt.forward("lstm", p.params, p.x)
    plain = tape.nbytes + tape.backward(p.dy).x.nbytes + p.dy.nbytes
    peaks = []
    for lags in ([0, 5], [0, 1, 2, 3, 5, 8, 13, 21, 34, 55]):
        tracemalloc.start()
        bptt.lag_gradients("lstm", p.params, p.x, p.ids, loss="cross_entropy", at="all", lags=lags)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    weights = p.params.nbytes
    assert peaks[1] < 1.05 * peaks[0] + weights
    assert peaks[1] < 2.5 * plain + 4 * weights


def test_ctrl_c_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, pull_back = [], Recorded.pull_back

    def interrupted(self: Recorded, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return pull_back(self, *arguments, **options)

    p = make_problem("tanh", *SHAPE)
    every = lags_of(p, "numpy", "cross_entropy", "all")
    monkeypatch.setattr(Recorded, "pull_back", interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted: 3 of 9 lags are done") as warned:
        some = lags_of(p, "numpy", "cross_entropy", "all")
    assert warned[0].filename == __file__
    assert not some.complete
    assert some.lags.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(some.norm["w_hh"], every.norm["w_hh"][:3])


# --- what is not ordinary -----------------------------------------------------------------------


def test_no_gradient_at_all_has_defined_measures(cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE)
    dy = np.zeros((9, 3, 5))
    for lags in (None, [0, 4]):
        found = bptt.lag_gradients(cell, p.params, p.x, dy=dy, backend=backend, lags=lags)
        for name in (*WEIGHTS, "params", "state"):
            for curve in (found.norm, found.error, found.share):
                assert not curve[name].any()
            assert (found.cosine[name] == 1).all()
        assert found.horizon() == 0
        assert np.isnan(found.half_life())


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.filterwarnings("ignore:.*(overflow|invalid value) encountered")
def test_an_exploding_term_is_reported(at: str, backend: str) -> None:
    params = bptt.init_params(
        "linear", input_size=1, hidden_size=4, output_size=2, rng=0, spectral_radius=100.0
    )
    x, ids = np.zeros((40, 2, 1), np.float32), np.zeros((40, 2), int)
    params.b_ih[:] = params.b_hh[:] = 0  # the states stay zero
    target = ids if at == "all" else ids[0]
    with pytest.warns(RuntimeWarning, match="the term of lag [0-9]+ is not finite") as warned:
        lags = bptt.lag_gradients(
            "linear", params, x, target, loss="cross_entropy", at=at, backend=backend
        )
    assert [w.filename for w in warned if "the term of lag" in str(w.message)] == [__file__]
    assert 15 <= lags.overflow_lag <= 21
    assert len(lags.lags) == lags.overflow_lag
    assert np.isfinite(lags.norm["state"]).all()


@pytest.mark.parametrize("at", ["last", "all"])
def test_a_total_that_cancels_is_no_error(at: str, dtype: str, backend: str) -> None:
    """x and -x, and a target that is odd: what each adds to the biases cancels."""
    params = bptt.init_params(
        "tanh", input_size=2, hidden_size=8, output_size=2, rng=0, dtype=dtype
    )
    for bias in (params.b_ih, params.b_hh, params.b_o):
        bias[:] = 0
    x = np.random.default_rng(0).standard_normal((30, 4, 2)).astype(dtype)
    x = np.concatenate([x, -x], axis=1)
    target = np.cumsum(x, axis=0)
    lags = bptt.lag_gradients(
        "tanh", params, x, target[-1] if at == "last" else target, loss="squared_error", at=at,
        backend=backend,
    )  # fmt: skip
    assert np.linalg.norm(lags.total["b_ih"]) < 1e-5 * np.linalg.norm(lags.total["w_hh"])
    assert lags.check < 20 * np.finfo(dtype).eps


def test_a_gradient_that_is_nothing_but_rounding_is_no_error(dtype: str, backend: str) -> None:
    """The same sequences with gradients that are opposite: every total cancels."""
    p = make_problem("tanh", 30, 5, 3, 9, dtype=dtype)
    x, dy = np.concatenate([p.x, p.x], axis=1), np.concatenate([p.dy, -p.dy], axis=1)
    lags = bptt.lag_gradients("tanh", p.params, x, dy=dy, backend=backend)
    assert np.linalg.norm(lags.total["w_hh"]) < 1e-3 * np.linalg.norm(lags.norm["state"])
    assert lags.check > 100 * np.finfo(dtype).eps  # relative to a total that is rounding itself


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("float32", 1e-8, 1e-5), ("float64", 1e-17, 1e-14)]
)
def test_check_is_how_far_the_summed_terms_are_from_the_gradient(
    dtype: str, low: float, high: float, at: str
) -> None:
    """Both computed here: the sum of the terms in float64, and the gradient of value_and_grad."""
    p = make_problem("lstm", 64, 16, 1, 32, 10, dtype=dtype, seed=3)
    where, target = p.loss_at(at, "cross_entropy")
    call = {"loss": "cross_entropy", "at": where, "state": p.state}
    lags = bptt.lag_gradients("lstm", p.params, p.x, target, terms=True, **call)
    _, grads = bptt.value_and_grad("lstm", p.params, p.x, target, **call)
    whole = np.concatenate([getattr(grads, name).ravel() for name in WEIGHTS]).astype("float64")
    summed = np.concatenate(
        [
            np.sum([t.params[name] for t in lags.terms], axis=0, dtype=float).ravel()
            for name in WEIGHTS
        ]
    )
    found = np.linalg.norm(summed - whole) / np.linalg.norm(whole)
    assert low < found < high
    assert low < lags.check < high
    assert low < bptt.lag_gradients("lstm", p.params, p.x, target, **call).check < high


@pytest.mark.parametrize("sample", [None, 2])
@pytest.mark.parametrize("at", ["last", "all"])
def test_check_is_relative_to_the_norm_of_the_total(
    at: str, sample: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = make_problem("lstm", *SHAPE, dtype="float32")
    left = staticmethod(lambda group: {name: 1e-5 * g for name, g in group.total.items()})
    monkeypatch.setattr(LagSum, "_left", left)
    where, target = p.loss_at(at, "cross_entropy")
    call = {"loss": "cross_entropy", "at": where, "sample": sample}
    lags = bptt.lag_gradients("lstm", p.params, p.x, target, **call)
    assert lags.check == pytest.approx(1e-5, rel=1e-4)


def test_check_of_a_gradient_that_is_zero_is_zero() -> None:
    p = make_problem("tanh", *SHAPE)
    assert bptt.lag_gradients("tanh", p.params, p.x, dy=np.zeros_like(p.dy)).check == 0


@pytest.mark.parametrize("at", ["last", "all"])
def test_terms_that_do_not_add_up_are_an_error(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check sees the terms themselves: each delta here is half of what it should be."""
    pull_back, sweep = Recorded.pull_back, Recorded.sweep

    def halved(self: Recorded, *arguments: Any, **options: Any) -> Any:
        found, before = pull_back(self, *arguments, **options)
        for d in before:
            d /= 2
        return found, before

    def shortened(self: Recorded, incoming: Any, trace: Any, *arguments: Any) -> Any:
        total = sweep(self, incoming, trace, *arguments)
        trace.deltas[:, 0] /= 2
        return total

    if at == "all":
        monkeypatch.setattr(Recorded, "pull_back", halved)
    else:
        monkeypatch.setattr(Recorded, "sweep", shortened)
    for backend in ("numpy", "auto"):
        for terms in (False, True):
            where, target = P.loss_at(at, "cross_entropy")
            with pytest.raises(RuntimeError, match="do not add up to the gradient"):
                bptt.lag_gradients(
                    "tanh", P.params, P.x, target, loss="cross_entropy", at=where,
                    backend=backend, terms=terms,
                )  # fmt: skip


def test_nothing_is_cut_beyond_the_last_lag(cell: str, dtype: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE, dtype=dtype)
    for at in ("last", "all"):
        for terms in (False, True):
            where, target = p.loss_at(at, "cross_entropy")
            lags = bptt.lag_gradients(
                cell, p.params, p.x, target, loss="cross_entropy", at=where, state=p.state,
                backend=backend, terms=terms,
            )  # fmt: skip
            for name, error in lags.error.items():
                assert error[-1] == 0, f"{name} at {at}, terms={terms}"


def test_a_loss_at_one_step_keeps_one_number_a_lag() -> None:
    params = bptt.init_params("tanh", input_size=1, hidden_size=2, output_size=2, rng=0)
    x = np.zeros((3000, 1, 1), np.float32)
    tracemalloc.start()
    lags = bptt.lag_gradients("tanh", params, x, np.zeros(1, int), loss="cross_entropy", at="last")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 3000**2 / 10
    assert lags.signal.shape == (3000, 3000)
    assert np.count_nonzero(lags.signal) <= 3000


def test_lags_that_do_not_fit_are_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    params = bptt.init_params("tanh", input_size=1, hidden_size=2, output_size=2, rng=0)
    monkeypatch.setattr("bptt.memory._available", lambda: 20 << 20)
    x = np.zeros((10_000, 1, 1), np.float32)
    with pytest.raises(MemoryError, match=r"^10000 lags of 10000 steps needs"):
        bptt.lag_gradients("tanh", params, x, np.zeros((10_000, 1), int), loss="cross_entropy")


def test_half_life_of_a_linear_network_is_that_of_its_radius() -> None:
    params = bptt.init_params(
        "linear", input_size=1, hidden_size=8, output_size=2, rng=0, spectral_radius=0.8,
        dtype="float64",
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((50, 3, 1))
    lags = bptt.lag_gradients(
        "linear", params, x, np.zeros(3, int), loss="cross_entropy", at="last"
    )
    half_life = np.log(0.5) / np.log(0.8)
    assert lags.half_life() == pytest.approx(half_life)
    lags.norm["state"][11:] *= 1e-3
    assert lags.half_life() < half_life * 0.9
    assert lags.half_life(max_lag=10) == pytest.approx(half_life)
    assert np.isnan(lags.half_life(max_lag=0))
    with pytest.raises(ValueError, match="max_lag: "):
        lags.half_life(max_lag=-1)
    assert lags.horizon(1.0) == 0
    assert 0 < lags.horizon(0.05) < lags.horizon(0.01)


def test_a_result_is_saved_as_json_and_drawn(tmp_path: Path) -> None:
    p = make_problem("lstm", *SHAPE)
    lags = lags_of(p, "auto", "squared_error", "all")
    lags.save(tmp_path / "lags.json")
    read = json.loads((tmp_path / "lags.json").read_text())
    assert read["error"]["w_hh"] == lags.error["w_hh"].tolist()
    assert read["cell"] == "lstm"
    pytest.importorskip("matplotlib")
    lags.plot().savefig(tmp_path / "lags.png")
    assert (tmp_path / "lags.png").stat().st_size > 1000


def assert_curves_equal(found: Any, expected: Any) -> None:
    for curve in ("norm", "error", "cosine", "share"):
        of, wanted = getattr(found, curve), getattr(expected, curve)
        assert of.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(of[name], array)
            assert of[name].dtype == array.dtype


@pytest.mark.parametrize(
    "options", [{"at": "all"}, {"at": "last"}, {"at": "all", "lags": [0, 2, 5], "sample": 3}]
)
def test_what_was_saved_is_loaded(options: dict[str, Any], tmp_path: Path) -> None:
    p = make_problem("gru", *SHAPE)
    lags = lags_of(p, "auto", "cross_entropy", **options)
    lags.save(tmp_path / "lags.json")
    found = bptt.LagGradients.load(tmp_path / "lags.json")
    assert_curves_equal(found, lags)
    np.testing.assert_array_equal(found.lags, lags.lags)
    np.testing.assert_array_equal(found.signal, lags.signal)
    assert (found.horizon(), found.half_life()) == (lags.horizon(), lags.half_life())
    assert (found.total, found.terms) == ({}, None)
    assert found.to_dict() == lags.to_dict()
    assert repr(found) == repr(lags)


def test_a_result_without_a_finite_term_is_loaded(tmp_path: Path) -> None:
    p = make_problem("tanh", *SHAPE)
    p.params.w_ih[:] = np.nan
    with pytest.warns(RuntimeWarning, match="lag 0"):
        lags = lags_of(p, "auto", "squared_error", "all")
    lags.save(tmp_path / "lags.json")
    found = bptt.LagGradients.load(tmp_path / "lags.json")
    assert (found.overflow_lag, found.lags.size, found.signal.shape) == (0, 0, lags.signal.shape)
    assert np.isnan(found.loss)


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ('{"cell": ', "Expecting value"),
        ("", "Expecting value"),
        ("[1]", "expected a dictionary, got list"),
        ("{}", "'cell' is missing"),
        ({"norm": {"w_hh": [1.0]}}, r"norm of 'w_hh' has shape \(1,\), lags \(9,\)"),
        ({"share": [1.0]}, "has no attribute"),
        ({"lags": ["one"]}, "one"),
        ({"signal": [1.0]}, "reshape"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_no_result_was_saved_to_is_refused(
    replaced: str | dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "lags.json"
    if isinstance(replaced, dict):
        found = lags_of(make_problem("tanh", *SHAPE), "auto", "squared_error", "all").to_dict()
        replaced = json.dumps({**found, **replaced})
    path.write_text(replaced)
    with pytest.raises(ValueError, match=f"^path: '.*lags.json' is not what .* wrote: .*{words}"):
        bptt.LagGradients.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"^path: '.*lags.json' is no text in UTF-8"):
        bptt.LagGradients.load(path)
    with pytest.raises(FileNotFoundError):
        bptt.LagGradients.load(tmp_path / "nothing.json")


P = make_problem("tanh", *SHAPE)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"max_lag": 9}, ValueError, "max_lag: expected at most 8, the first step, got 9"),
        ({"max_lag": -1}, ValueError, "max_lag: expected"),
        ({"max_lag": 1.5}, TypeError, "max_lag: expected"),
        ({"lags": [3, 1]}, ValueError, r"lags: expected them sorted .*got \[3, 1\]"),
        ({"lags": [1, 1]}, ValueError, "lags: expected them sorted and each of them once"),
        ({"lags": [-1, 2]}, ValueError, "lags: expected"),
        ({"lags": [0, 9]}, ValueError, "lags: expected at most 8"),
        ({"lags": []}, ValueError, "lags: expected one at least"),
        ({"lags": 3}, TypeError, "lags: expected a sequence of integers, got int"),
        ({"lags": [0], "max_lag": 2}, ValueError, "lags: expected either lags or max_lag"),
        ({"at": np.zeros((9, 3))}, ValueError, "at: expected"),
        ({"target": None}, TypeError, "target: expected it, or dy"),
        ({"loss": None}, TypeError, "loss: expected it, or dy"),
        ({"dy": P.dy}, ValueError, "target: expected None beside dy"),
        ({"dy": P.dy[1:], "target": None, "loss": None}, ValueError, "dy: expected shape"),
        ({"sample": 1}, ValueError, "sample: expected"),
        ({"sample": 4}, ValueError, "sample: expected at most 3"),
        ({"x": P.x[:0]}, ValueError, "x: expected at least one step"),
    ],
)
def test_wrong_arguments_are_named(
    changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    call = {"x": P.x, "target": P.ids, "loss": "cross_entropy", "at": "all"} | changed
    with pytest.raises(error, match=f"^{words}"):
        bptt.lag_gradients("tanh", P.params, **call)


def test_an_unknown_option_of_the_terms_is_named() -> None:
    with pytest.raises(TypeError, match=r"^lag_terms: unknown options: lagz"):
        bptt.lag_terms("tanh", P.params, P.x, dy=P.dy, lagz=[1])


def test_terms_that_do_not_fit_are_refused_with_the_alternative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = make_problem("tanh", 400, 2, 2, 400, dtype="float32")
    monkeypatch.setattr("bptt.memory._available", lambda: 20 << 20)
    with pytest.raises(MemoryError, match=r"terms of 400 lags; bptt.lag_terms holds one at a time"):
        bptt.lag_gradients("tanh", p.params, p.x, dy=p.dy, terms=True)
