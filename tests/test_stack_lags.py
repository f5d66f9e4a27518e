"""The lags of a stack: a use of a weight at k, in whatever layer, for a loss at t = k + lag.

Against brute force: a copy of each layer's weights for each step, and autograd.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.recorded import Recorded
from bptt.states import as_given, as_tuple

pytestmark = pytest.mark.pairs

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)
torch.set_num_threads(1)

T, B, I, H, O = 7, 3, 2, 4, 3  # noqa: E741
STEP = {"tanh": torch.rnn_tanh_cell, "gru": torch.gru_cell, "lstm": torch.lstm_cell}
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
LENGTHS = [3, 7, 5]
CELL = pytest.mark.parametrize("cell", STEP)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((T, B, I))
IDS = RNG.integers(0, O, (T, B))
WEIGHT_OF_LOSS = RNG.random((T, B)) * (RNG.random((T, B)) < 0.6)

Terms = list[dict[str, np.ndarray]]


def draw(cell: str, layers: int, dtype: str = "float64") -> list[bptt.Params]:
    return bptt.init_params(
        cell, input_size=I, hidden_size=H, output_size=O, layers=layers, rng=1, dtype=dtype
    )


def states(cell: str, layers: int) -> Any:
    rng = np.random.default_rng(2)
    return as_given(tuple(rng.standard_normal((layers, B, H)) for _ in bptt.CELLS[cell].states))


def brute_force(
    cell: str,
    params: list[bptt.Params],
    state: Any,
    weights: np.ndarray,
    *,
    x: np.ndarray = X,
    ids: np.ndarray = IDS,
    reset: np.ndarray | None = None,
    direct: bool = False,
) -> tuple[Terms, list[np.ndarray]]:
    """Of each lag the terms, by name, and delta of h (L, T, B, H), zero where it has none.

    The loss is the cross-entropy, times `weights` (T, B). With `direct`, what goes through W_s has
    no gradient.
    """
    copies = [
        [{n: torch.tensor(getattr(p, n), requires_grad=True) for n in WEIGHTS} for p in params]
        for _ in range(len(x))
    ]
    given = as_tuple(state)
    last = [tuple(torch.tensor(part[k]) for part in given) for k in range(len(params))]
    hidden: list[list[Any]] = []
    for t, of_step in enumerate(copies):
        y, of_layers = torch.tensor(x[t]), []
        for k, w in enumerate(of_step):
            s = last[k]
            if reset is not None:
                s = tuple(part * torch.tensor(~reset[t])[:, None] for part in s)
            before = (s[0].detach() if direct else s[0], *s[1:])
            after = STEP[cell](y, before if len(s) > 1 else before[0], *(w[n] for n in WEIGHTS))
            # Clones: what comes later reads each part of the state for itself.
            last[k] = tuple(part.clone() for part in (after if len(s) > 1 else (after,)))
            y = last[k][0]
            of_layers.append(y)
        hidden.append(of_layers)
    top = params[-1]
    terms: Terms = [
        {
            f"layers[{n}].{name}": np.zeros(getattr(p, name).shape)
            for n, p in enumerate(params)
            for name in WEIGHTS
        }
        for _ in x
    ]
    deltas = [np.zeros((len(params), *x.shape[:2], H)) for _ in x]
    for t, of_layers in enumerate(hidden):
        if not weights[t].any():
            continue
        o = of_layers[-1] @ torch.tensor(top.w_ho).T + torch.tensor(top.b_o)
        rows = torch.nn.functional.cross_entropy(o, torch.tensor(ids[t]), reduction="none")
        loss = (rows * torch.tensor(weights[t])).sum()
        for k in range(t + 1):
            names = [(n, name) for n in range(len(params)) for name in WEIGHTS]
            wanted = [copies[k][n][name] for n, name in names] + hidden[k]
            found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
            found = [
                np.zeros(v.shape) if g is None else g for v, g in zip(wanted, found, strict=True)
            ]
            for (n, name), g in zip(names, found, strict=False):
                terms[t - k][f"layers[{n}].{name}"] += np.asarray(g)
            deltas[t - k][:, k] = np.stack([np.asarray(g) for g in found[len(names) :]])
    return terms, deltas


def loss_weights(at: Any, lengths: Any = None) -> np.ndarray:
    """(T, B) of the mean that `at` says."""
    steps = np.arange(T)[:, None]
    ends = np.full(B, T) if lengths is None else np.array(lengths)
    if isinstance(at, np.ndarray):
        weights = at * (steps < ends)
    else:
        weights = {"all": steps < ends, "last": steps == ends - 1}.get(at, steps == at) * 1.0
        weights = np.broadcast_to(weights, (T, B))
    return weights / weights.sum()


def lags_of(cell: str, params: Any, at: Any, **options: Any) -> bptt.LagGradients:
    target = IDS if isinstance(at, np.ndarray) or at == "all" else IDS[at if at != "last" else -1]
    return bptt.lag_gradients(
        cell, params, X, target, **{"loss": "cross_entropy", "at": at, **options}
    )


def expect_terms(lags: bptt.LagGradients, expected: Terms) -> None:
    assert lags.terms is not None
    for term in lags.terms:
        assert list(term.params) == list(expected[term.lag])
        for name, g in term.params.items():
            np.testing.assert_allclose(g, expected[term.lag][name], **CLOSE, err_msg=name)
    for beyond in expected[len(lags.terms) :]:
        assert not any(np.any(g) for g in beyond.values())


# --- each term -----------------------------------------------------------------------------------


@CELL
@pytest.mark.parametrize(
    "at", ["last", "all", 3, WEIGHT_OF_LOSS], ids=["last", "all", "step", "weights"]
)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_lags_term_is_that_of_brute_force(
    layers: int, at: Any, cell: str, backend: str
) -> None:
    params, state = draw(cell, layers), states(cell, layers)
    terms, deltas = brute_force(cell, params, state, loss_weights(at))
    lags = lags_of(cell, params, at, state=state, backend=backend, terms=True)
    expect_terms(lags, terms)
    for term in lags.terms or ():
        delta = deltas[term.lag]
        np.testing.assert_allclose(term.dstates[0], delta[:, term.steps], **CLOSE)
        delta[:, term.steps] = 0
        assert not delta.any()
    assert lags.check < 1e-12


@CELL
@pytest.mark.parametrize("at", ["all", "last"])
def test_all_terms_add_up_to_the_gradient(cell: str, at: str, dtype: str, backend: str) -> None:
    params, x = draw(cell, 3, dtype), X.astype(dtype)
    target = IDS if at == "all" else IDS[-1]
    call = {"loss": "cross_entropy", "at": at, "backend": backend}
    loss, grads = bptt.value_and_grad(cell, params, x, target, **call)
    lags = bptt.lag_gradients(cell, params, x, target, **call)
    eps = float(np.finfo(dtype).eps)
    assert lags.loss == pytest.approx(loss, rel=8 * eps)
    assert list(lags.total) == list(grads.arrays())
    for name, g in grads.arrays().items():
        np.testing.assert_allclose(lags.total[name], g, rtol=64 * eps, atol=8 * eps, err_msg=name)
    assert lags.check < 20 * eps
    assert lags.error["layers[0]"][-1] == lags.error["layers[2].w_hh"][-1] == 0


@pytest.mark.parametrize("at", ["all", "last", WEIGHT_OF_LOSS], ids=["all", "last", "weights"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["lengths", "reset", "lengths and reset"])
@CELL
def test_the_terms_of_any_sequences_are_those_of_brute_force(
    cell: str, kind: str, reverse: bool, at: Any
) -> None:
    params, state = draw(cell, 2), states(cell, 2)
    lengths = LENGTHS if "lengths" in kind else None
    reset = np.random.default_rng(3).random((T, B)) < 0.3 if "reset" in kind else None
    x, ids = X.copy(), IDS.copy()
    target = ids if not isinstance(at, str) or at == "all" else ids[0]
    for b, end in enumerate(lengths or ()):
        x[end:, b] = np.nan
    how: dict[str, Any] = {"lengths": lengths, "reset": reset, "reverse": reverse}
    lags = bptt.lag_gradients(
        cell, params, x, target, loss="cross_entropy", at=at, state=state, terms=True, **how
    )
    # The same rows in the order in which they are run through.
    weights, flags = loss_weights(at, lengths), reset
    ids = np.broadcast_to(target, (T, B)).copy()
    if reverse:
        flags = None if reset is None else reset.copy()
        weights = weights.copy()
        for b, end in enumerate(lengths or [T] * B):
            for array in (x, ids, weights, flags):
                if array is not None:
                    array[:end, b] = array[:end, b][::-1].copy()
    terms, _ = brute_force(cell, params, state, weights, x=np.nan_to_num(x), ids=ids, reset=flags)
    expect_terms(lags, terms)
    assert lags.check < 1e-12


def test_gradients_of_the_tops_states_may_be_given(backend: str) -> None:
    params, state = draw("lstm", 2), states("lstm", 2)
    dy = np.random.default_rng(4).standard_normal((T, B, H))
    lags = bptt.lag_gradients("lstm", params, X, dy=dy, state=state, backend=backend, terms=True)
    grads = bptt.forward("lstm", params, X, state, backend=backend).backward(dy)
    assert list(lags.total) == list(grads.arrays())
    for name, g in grads.arrays().items():
        np.testing.assert_allclose(lags.total[name], g, **CLOSE)
        summed = sum(term.params[name] for term in lags.terms or ())
        np.testing.assert_allclose(summed, g, **CLOSE)
    # Each dy_t alone gives what reaches k = t - lag.
    alone = bptt.lag_gradients(
        "lstm", params, X, dy=np.where(np.arange(T)[:, None, None] == 4, dy, 0)
    )
    norms = np.zeros((T, T))
    norms[np.arange(5), 4 - np.arange(5)] = alone.norm["state"][:5]
    assert not alone.signal[norms == 0].any()


# --- routes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["all", "last"])
def test_the_direct_route_goes_through_the_memory_and_up_through_the_layers(
    at: str, backend: str
) -> None:
    params, state = draw("lstm", 2), states("lstm", 2)
    terms, _ = brute_force("lstm", params, state, loss_weights(at), direct=True)
    call = {"state": state, "backend": backend, "terms": True}
    expect_terms(lags_of("lstm", params, at, route="direct", **call), terms)


@pytest.mark.parametrize("at", ["all", "last"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_both_routes_add_up_to_the_whole(cell: str, at: str, backend: str) -> None:
    params = draw(cell, 2)
    whole, direct, recurrent = (
        lags_of(cell, params, at, route=route, backend=backend, terms=True)
        for route in (None, "direct", "recurrent")
    )
    for term, *parts in zip(
        whole.terms or (), direct.terms or (), recurrent.terms or (), strict=True
    ):
        for name, g in term.params.items():
            np.testing.assert_allclose(sum(part.params[name] for part in parts), g, **CLOSE)
    assert direct.norm["layers[0]"][3] > 1e-6


# --- what is measured ----------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["all", "last"])
@CELL
def test_the_curves_follow_from_the_terms(cell: str, at: str, backend: str) -> None:
    params = draw(cell, 2)
    kept = lags_of(cell, params, at, backend=backend, terms=True)
    lags = lags_of(cell, params, at, backend=backend)
    names = [f"layers[{k}].{name}" for k in (0, 1) for name in WEIGHTS]
    of = {"params": names, "layers[0]": names[:4], "layers[1]": names[4:], names[5]: names[5:6]}
    for key, some in of.items():
        rows = np.array(
            [np.concatenate([t.params[n].ravel() for n in some]) for t in kept.terms or ()]
        )
        total, part = rows.sum(axis=0), np.cumsum(rows, axis=0)
        size, close = np.linalg.norm(total), {"rtol": 1e-9, "atol": 1e-10}
        rest = np.linalg.norm(total - part, axis=1)
        cosine = part @ total / np.linalg.norm(part, axis=1) / size
        for found in (lags, kept):
            np.testing.assert_allclose(found.norm[key], np.linalg.norm(rows, axis=1), **close)
            np.testing.assert_allclose(found.error[key], rest / size, **close)
            np.testing.assert_allclose(found.cosine[key], cosine, **close)
            np.testing.assert_allclose(found.share[key], rows @ total / size**2, **close)
    for term in kept.terms or ():
        squares = np.array([sum((d[k] ** 2).sum() for d in term.dstates) for k in (0, 1)])
        for key, square in (
            *zip(("layers[0].state", "layers[1].state"), squares, strict=True),
            ("state", squares.sum()),
        ):
            assert lags.norm[key][term.lag] == pytest.approx(square**0.5, rel=1e-10)
    np.testing.assert_allclose(lags.signal, kept.signal, **CLOSE)
    np.testing.assert_allclose(np.linalg.norm(lags.signal, axis=1), lags.norm["state"], **CLOSE)


def bits_of(lags: bptt.LagGradients) -> dict[tuple[str, str], bytes]:
    return {
        (curve, key.removeprefix("layers[0].")): values.tobytes()
        for curve in ("norm", "error", "cosine", "share", "total")
        for key, values in getattr(lags, curve).items()
    }


@pytest.mark.parametrize("terms", [False, True])
@pytest.mark.parametrize("at", ["all", "last"])
def test_a_stack_of_one_layer_has_the_bits_of_the_layer(
    at: str, terms: bool, cell: str, backend: str
) -> None:
    (params,) = layers = draw(cell, 1)
    state = states(cell, 1)
    alone = as_given(tuple(part[0] for part in as_tuple(state)))
    one = lags_of(cell, params, at, state=alone, backend=backend, terms=terms)
    stack = lags_of(cell, layers, at, state=state, backend=backend, terms=terms)
    wanted, found = bits_of(one), bits_of(stack)
    assert wanted == {key: found[key] for key in wanted}
    assert set(found) - set(wanted) == {
        (c, "layers[0]") for c in ("norm", "error", "cosine", "share")
    }


def test_some_lags_are_what_they_are_among_all(backend: str) -> None:
    params = draw("gru", 3)
    for at in ("all", "last"):
        every = lags_of("gru", params, at, backend=backend)
        for chosen in ([0, 1], [2, 5], [6]):
            some = lags_of("gru", params, at, backend=backend, lags=chosen)
            for curve in ("norm", "error", "cosine", "share"):
                for name, values in getattr(some, curve).items():
                    expected = getattr(every, curve)[name][chosen]
                    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-10)
            assert some.check < 1e-12


def test_a_sample_of_all_sequences_is_the_whole() -> None:
    params, state = draw("lstm", 2), states("lstm", 2)
    for at in ("all", "last"):
        whole = lags_of("lstm", params, at, state=state)
        some = lags_of("lstm", params, at, state=state, sample=B)
        assert some.standard_error is not None
        for name, values in whole.error.items():
            np.testing.assert_allclose(some.error[name], values, rtol=1e-8, atol=1e-10)
            assert some.standard_error["norm"][name].shape == (T,)


def test_the_lower_layers_lags_are_saved_and_drawn(tmp_path: Path) -> None:
    lags = lags_of("tanh", draw("tanh", 2), "all")
    lags.save(tmp_path / "lags.json")
    again = bptt.LagGradients.load(tmp_path / "lags.json")
    assert again.horizon(of="layers[0]") == lags.horizon(of="layers[0]")
    np.testing.assert_array_equal(again.norm["layers[1].w_ih"], lags.norm["layers[1].w_ih"])
    with pytest.raises(ValueError, match=r"^of: expected one of .*layers\[1\].*, got 'w_hh'"):
        lags.horizon(of="w_hh")
    pytest.importorskip("matplotlib")
    lags.plot("layers[0]").savefig(tmp_path / "lags.png")


def test_a_monitor_follows_a_stack() -> None:
    params, state = draw("lstm", 2), states("lstm", 2)
    monitor = bptt.LagMonitor(every=1, sample=2, rng=5)
    found = monitor.step("lstm", params, X, IDS, loss="cross_entropy", at="all", state=state)
    assert found is not None
    assert {"layers[0]", "layers[1]", "params"} <= found.norm.keys()
    rows = np.sort(np.random.default_rng(5).choice(B, 2, replace=False))
    some = bptt.lag_gradients(
        "lstm", params, X[:, rows].copy(), IDS[:, rows].copy(), loss="cross_entropy",
        state=tuple(s[:, rows].copy() for s in state), lags=found.lags,
    )  # fmt: skip
    np.testing.assert_array_equal(monitor.history[0].norm, some.norm["params"])


# --- what cannot be, memory and Ctrl-C -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: [(p[0], p[0]), p[1]], r"^params\[1\]: expected input_size=8"),
        (lambda p: [(p[0], p[0])], r"^params\[0\]: expected a layer in one direction.* got a pair"),
        (lambda p: [p[0]], r"^params\[0\]: lag_gradients needs the readout weights w_ho"),
        (lambda p: [], r"^params: expected one layer at least"),
    ],
)
def test_a_stack_that_has_no_lags_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lags_of("tanh", change(draw("tanh", 2)), "all")


def test_a_readout_below_the_top_is_refused() -> None:
    lower, top = draw("tanh", 2)
    lower.w_ho, lower.b_o = top.w_ho, top.b_o
    with pytest.raises(
        ValueError, match=r"^params\[0\]: expected a readout on the top layer alone"
    ):
        lags_of("tanh", [lower, top], "all")


@pytest.mark.parametrize("at", ["all", "last"])
def test_what_layers_hold_is_asked_for_before(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer counts, and what is kept of each lag counts once."""
    asked: dict[str, int] = {}
    monkeypatch.setattr(
        "bptt.memory.require_memory", lambda nbytes, what: asked.update({what: nbytes})
    )
    needed = []
    for layers in (1, 2, 3):
        lags_of("lstm", draw("lstm", layers), at)
        needed.append(asked["7 lags of 7 steps"])
    assert needed[0] < needed[1] < needed[2] < 4 * needed[0]


def test_it_holds_no_more_than_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, batch, hidden = 60, 16, 32
    params = bptt.init_params(
        "lstm", input_size=32, hidden_size=hidden, output_size=3, layers=3, rng=0
    )
    x, ids = np.zeros((steps, batch, 32), np.float32), np.zeros((steps, batch), int)
    asked: list[int] = []
    monkeypatch.setattr("bptt.memory.require_memory", lambda nbytes, what: asked.append(nbytes))
    for at in ("all", "last"):
        tracemalloc.start()
        bptt.lag_gradients(
            "lstm", params, x, ids if at == "all" else ids[0], loss="cross_entropy", at=at
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < asked[-1] < 2.5 * peak


def test_ctrl_c_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    params = draw("tanh", 2)
    every = lags_of("tanh", params, "all")
    calls, pull_back = [], Recorded.pull_back

    def interrupted(self: Recorded, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # the lower layer's at lag 2
            raise KeyboardInterrupt
        return pull_back(self, *arguments, **options)

    monkeypatch.setattr(Recorded, "pull_back", interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted: 2 of 7 lags are done"):
        some = lags_of("tanh", params, "all")
    assert not some.complete
    np.testing.assert_array_equal(some.norm["params"], every.norm["params"][:2])


def test_what_is_not_handed_down_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check sees a lower layer to which the layer above gives half of its dL/dx."""
    pull_back = Recorded.pull_back

    def halved(self: Recorded, *arguments: Any, dx: Any = None, **options: Any) -> Any:
        found = pull_back(self, *arguments, dx=dx, **options)
        if dx is not None:
            dx /= 2
        return found

    monkeypatch.setattr(Recorded, "pull_back", halved)
    with pytest.raises(RuntimeError, match="do not add up to the gradient"):
        lags_of("tanh", draw("tanh", 2), "all")
