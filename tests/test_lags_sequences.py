"""Lags of sequences as people have them: the terms of every row alone, added up."""

from __future__ import annotations

from typing import Any

import bptt
import numpy as np
import pytest

T, B, I, H, O = 12, 5, 3, 7, 4  # noqa: E741
LENGTHS = [12, 3, 0, 7, 1]


def problem(cell: str) -> tuple[bptt.Params, np.ndarray, np.ndarray, Any]:
    """Parameters, x with NaN beyond the lengths, ids with none there, and a state."""
    rng = np.random.default_rng(2)
    params = bptt.init_params(
        cell, input_size=I, hidden_size=H, output_size=O, rng=1, dtype="float64"
    )
    x, ids = rng.standard_normal((T, B, I)), rng.integers(0, O, (T, B))
    for b, length in enumerate(LENGTHS):
        x[length:, b], ids[length:, b] = np.nan, -1
    state = [rng.standard_normal((B, H)) for _ in bptt.CELLS[cell].states]
    return params, x, ids, state[0] if len(state) == 1 else tuple(state)


def row_of(state: Any, b: int) -> Any:
    one = slice(b, b + 1)
    return tuple(s[one] for s in state) if isinstance(state, tuple) else state[one]


def terms_of(*arguments: Any, **options: Any) -> dict[int, dict[str, np.ndarray]]:
    return {term.lag: term.params for term in bptt.lag_terms(*arguments, **options)}


@pytest.mark.parametrize("at", ["all", "last"])
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_terms_of_a_ragged_batch_are_those_of_its_rows(cell: str, at: str) -> None:
    params, x, ids, state = problem(cell)
    options = {"loss": "cross_entropy", "at": at, "reduction": "sum"}
    last = ids[np.maximum(np.array(LENGTHS) - 1, 0), np.arange(B)]
    target = ids if at == "all" else last
    found = terms_of(cell, params, x, target, state=state, lengths=LENGTHS, **options)
    expected: dict[int, dict[str, np.ndarray]] = {}
    for b, length in enumerate(LENGTHS):
        if not length:
            continue
        target = ids[:length, b : b + 1] if at == "all" else last[b : b + 1]
        alone = terms_of(
            cell, params, x[:length, b : b + 1], target, state=row_of(state, b), **options
        )
        for lag, term in alone.items():
            sums = expected.setdefault(lag, {})
            for name, g in term.items():
                sums[name] = sums.get(name, 0) + g
    assert found.keys() == expected.keys()
    for lag, term in found.items():
        for name, g in term.items():
            np.testing.assert_allclose(g, expected[lag][name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("at", ["all", "last", 2])
def test_the_total_is_the_gradient_of_value_and_grad(at: Any, reduction: str) -> None:
    params, x, ids, state = problem("gru")
    target = ids if at == "all" else np.maximum(ids[0], 0)
    how = {"loss": "cross_entropy", "at": at, "reduction": reduction, "state": state}
    loss, grads = bptt.value_and_grad("gru", params, x, target, lengths=LENGTHS, **how)
    lags = bptt.lag_gradients("gru", params, x, target, lengths=LENGTHS, **how)
    assert lags.loss == pytest.approx(loss, rel=1e-12)
    for name, g in grads.arrays().items():
        np.testing.assert_allclose(lags.total[name], g, rtol=1e-10, atol=1e-13)


def test_no_lag_reaches_over_a_reset() -> None:
    rng = np.random.default_rng(0)
    params = bptt.init_params("tanh", input_size=I, hidden_size=H, output_size=O, rng=1)
    x = rng.standard_normal((T, B, I)).astype("float32")
    ids = rng.integers(0, O, (T, B))
    starts = np.zeros((T, B), bool)
    starts[::4] = True  # pieces of 4 steps
    lags = bptt.lag_gradients("tanh", params, x, ids, loss="cross_entropy", reset=starts)
    assert list(lags.lags) == [0, 1, 2, 3]
    loss, grads = bptt.value_and_grad(
        "tanh", params, x, ids, loss="cross_entropy", at="all", reset=starts
    )
    assert lags.loss == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(lags.total["w_hh"], grads.w_hh, rtol=1e-4, atol=1e-6)


def test_the_layout_of_the_arrays_changes_no_lag() -> None:
    params, x, ids, state = problem("lstm")
    how = {"loss": "cross_entropy", "state": state}
    plain = bptt.lag_gradients("lstm", params, x, ids, lengths=LENGTHS, **how)
    order = np.argsort(-np.array(LENGTHS), kind="stable")
    sizes = [sum(length > t for length in LENGTHS) for t in range(T)]
    rows = [(t, b) for t, size in enumerate(sizes) for b in order[:size]]
    packed_x, packed_ids = (np.array([a[row] for row in rows]) for a in (x, ids))
    some = [b for b in order if LENGTHS[b]]
    of_some = tuple(np.ascontiguousarray(s[some]) for s in state)
    layouts = {
        "batch_first": bptt.lag_gradients(
            "lstm",
            params,
            x.swapaxes(0, 1).copy(),
            ids.T.copy(),
            lengths=LENGTHS,
            batch_first=True,
            **how,
        ),
        "packed": bptt.lag_gradients(
            "lstm", params, packed_x, packed_ids, batch_sizes=sizes, **{**how, "state": of_some}
        ),
    }
    for name, lags in layouts.items():
        np.testing.assert_allclose(lags.norm["w_hh"], plain.norm["w_hh"], rtol=1e-10, err_msg=name)


def test_lags_of_reversed_rows_are_those_of_rows_turned_round() -> None:
    params, x, ids, state = problem("gru")
    turned_x, turned_ids = x.copy(), ids.copy()
    for b, length in enumerate(LENGTHS):
        turned_x[:length, b], turned_ids[:length, b] = x[:length, b][::-1], ids[:length, b][::-1]
    how = {"loss": "cross_entropy", "lengths": LENGTHS, "state": state}
    lags = bptt.lag_gradients("gru", params, x, ids, reverse=True, **how)
    turned = bptt.lag_gradients("gru", params, turned_x, turned_ids, **how)
    np.testing.assert_array_equal(lags.norm["w_hh"], turned.norm["w_hh"])


def test_dy_beyond_the_lengths_is_not_read() -> None:
    params, x, _, state = problem("tanh")
    rng = np.random.default_rng(3)
    dy = rng.standard_normal((T, B, H))
    for b, length in enumerate(LENGTHS):
        dy[length:, b] = np.nan
    lags = bptt.lag_gradients("tanh", params, x, dy=dy, state=state, lengths=LENGTHS)
    tape = bptt.forward("tanh", params, x, state, lengths=LENGTHS)
    grads = tape.backward(dy)
    np.testing.assert_allclose(lags.total["w_hh"], grads.w_hh, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"lengths": [T + 1, 1, 1, 1, 1]}, "lengths: "),
        ({"lengths": [0, 0, 0, 0, 0]}, "lengths: expected at least one step"),
        ({"lengths": [3, 3, 3, 3, 3], "at": 10}, "at: expected a step that a sequence has, got 10"),
        ({"lengths": LENGTHS, "batch_sizes": [5]}, "expected either lengths or batch_sizes"),
        ({"reset": np.zeros((2, B), bool)}, "reset: "),
    ],
)
def test_sequences_that_are_none_are_refused(how: dict[str, Any], message: str) -> None:
    params, x, ids, _ = problem("tanh")
    target = abs(ids[0]) if "at" in how else abs(ids)
    with pytest.raises(ValueError, match=message):
        bptt.lag_gradients("tanh", params, np.nan_to_num(x), target, loss="cross_entropy", **how)


def test_padding_that_does_not_fit_the_memory_is_refused_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def refuse(nbytes: int, what: str) -> None:
        asked.append(what)
        raise MemoryError(what)

    params, x, ids, _ = problem("tanh")
    monkeypatch.setattr("bptt.memory.require_memory", refuse)
    with pytest.raises(MemoryError, match="5 sequences that are padded to 12 steps"):
        bptt.lag_gradients("tanh", params, x, ids, loss="cross_entropy", lengths=LENGTHS)
    assert len(asked) == 1


def test_lags_of_a_loss_at_a_step_end_there_also_with_lengths() -> None:
    params, x, ids, state = problem("gru")
    asked = {"state": state, "loss": "cross_entropy", "at": 2}
    long = [b for b, length in enumerate(LENGTHS) if length > 2]
    found = bptt.lag_gradients("gru", params, x, ids[2], lengths=LENGTHS, **asked)
    expected = bptt.lag_gradients(
        "gru", params, x[:3, long], ids[2, long], **{**asked, "state": state[long]}
    )
    np.testing.assert_array_equal(found.lags, expected.lags)
    assert found.signal.shape == (3, 3)
    for name, norm in expected.norm.items():
        np.testing.assert_allclose(found.norm[name], norm, rtol=1e-10)
    with pytest.raises(ValueError, match="max_lag: expected at most 2"):
        bptt.lag_gradients("gru", params, x, ids[2], lengths=LENGTHS, max_lag=3, **asked)
