"""`truncate` and `detach_every`: which terms of the gradient's sum over lags they keep."""

from __future__ import annotations

from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from problems import Problem, by_name, make_problem

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

SHAPE = (11, 3, 2, 5, 4)  # T, B, I, H, O
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
READOUT = ("w_ho", "b_o")
# Sums of the same float64 products in another order.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def value_and_grad(
    p: Problem, backend: str, loss: str, at: str, **options: Any
) -> tuple[float, bptt.Grads]:
    where, target = p.loss_at(at, loss)
    return bptt.value_and_grad(
        p.cell, p.params, p.x, target, loss=loss, at=where, state=p.state, backend=backend,
        **options,
    )  # fmt: skip


def terms_of(p: Problem, backend: str, loss: str, at: str) -> list[bptt.LagTerm]:
    where, target = p.loss_at(at, loss)
    return list(
        bptt.lag_terms(
            p.cell, p.params, p.x, target, loss=loss, at=where, state=p.state, backend=backend
        )
    )


def expect_equal(found: bptt.Grads, expected: bptt.Grads, problem: Problem) -> None:
    wanted = by_name(expected)
    assert by_name(found).keys() == wanted.keys()
    for name, g in by_name(found).items():
        np.testing.assert_allclose(g, wanted[name], **CLOSE, err_msg=f"{name} of {problem}")


# --- truncate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["last", "all", "step", "weights"])
def test_truncate_keeps_the_terms_up_to_that_lag_and_no_other(
    at: str, cell: str, backend: str
) -> None:
    p = make_problem(cell, *SHAPE, seed=1)
    terms = terms_of(p, backend, "squared_error", at)
    sums = {name: np.zeros_like(getattr(p.params, name)) for name in WEIGHTS}
    loss, full = value_and_grad(p, backend, "squared_error", at)
    for term in terms:
        for name in WEIGHTS:
            sums[name] += term.params[name]
        cut_loss, cut = value_and_grad(p, backend, "squared_error", at, truncate=term.lag)
        assert cut_loss == pytest.approx(loss, rel=1e-13)
        for name in WEIGHTS:
            np.testing.assert_allclose(getattr(cut, name), sums[name], **CLOSE, err_msg=name)
        for name in READOUT:
            np.testing.assert_allclose(getattr(cut, name), getattr(full, name), **CLOSE)


def state_before(p: Problem, tape: bptt.Tape, step: int) -> Any:
    if step == 0:
        return p.state
    return as_given((tape.y[step - 1], *((tape.c[step - 1],) if p.dc is not None else ())))


def swept(
    p: Problem, backend: str, start: int, stop: int, dhistory: tuple[np.ndarray, ...], final: Any
) -> bptt.Grads:
    """A forward pass and BPTT of steps [start, stop) alone, by calls without truncation."""
    whole = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    tape = bptt.forward(
        p.cell, p.params, p.x[start:stop], state_before(p, whole, start), backend=backend
    )
    dc = {"dc": dhistory[1]} if len(dhistory) > 1 else {}
    return tape.backward(dhistory[0], final, **dc)


def added(p: Problem, parts: list[tuple[int, int, bptt.Grads]]) -> bptt.Grads:
    """The sum of the gradients of some sweeps, with that of S_0 of those that start there."""
    total = p.zeros()
    total.w_ho = total.b_o = None
    for start, stop, grads in parts:
        total.x[start:stop] += grads.x
        for name, g in grads.arrays().items():
            getattr(total, name)[...] += g
        if start == 0:
            for target, s in zip(as_tuple(total.state), as_tuple(grads.state), strict=True):
                target += s
    return total


def incoming(p: Problem) -> tuple[np.ndarray, ...]:
    return (p.dy,) if p.dc is None else (p.dy, p.dc)


@pytest.mark.parametrize("lags", [0, 1, 4, 9])
@pytest.mark.parametrize("dense", [True, False])
def test_truncate_is_a_sweep_through_the_last_steps_for_each_loss(
    lags: int, dense: bool, cell: str, backend: str
) -> None:
    p = make_problem(cell, *SHAPE, seed=2)
    losses = range(11) if dense else (3, 10)
    for d in incoming(p):
        d[[t for t in range(11) if t not in losses]] = 0
    parts = []
    for t in losses:
        start = max(t - lags, 0)
        only = tuple(np.zeros_like(d[start : t + 1]) for d in incoming(p))
        for d, given in zip(only, incoming(p), strict=True):
            d[-1] = given[t]
        parts.append(
            (start, t + 1, swept(p, backend, start, t + 1, only, p.dstate if t == 10 else None))
        )
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    expect_equal(p.backward(tape, truncate=lags), added(p, parts), p)


def test_a_lag_of_all_steps_cuts_nothing(cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE, seed=3)
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    full = p.backward(tape)
    expect_equal(p.backward(tape, truncate=10), full, p)
    expect_equal(p.backward(tape, truncate=99), full, p)
    expect_equal(p.backward(tape, detach_every=11), full, p)
    cut = p.backward(tape, truncate=9)
    assert not np.allclose(cut.w_hh, full.w_hh, rtol=1e-8)


@pytest.mark.parametrize("options", [{"truncate": 2}, {"detach_every": 4}])
@pytest.mark.parametrize("save", ["gates", "minimal"])
def test_the_gates_may_be_computed_again(
    options: dict[str, int], save: str, cell: str, backend: str
) -> None:
    p = make_problem(cell, *SHAPE, seed=4)
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend, save=save)
    reference = bptt.forward(p.cell, p.params, p.x, p.state, backend="numpy")
    expect_equal(p.backward(tape, **options), p.backward(reference, **options), p)


# --- detach_every ------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3, 5, 10])
def test_detach_every_is_a_loop_over_segments(every: int, cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE, seed=5)
    parts = []
    for start in range(0, 11, every):
        stop = min(start + every, 11)
        here = tuple(d[start:stop] for d in incoming(p))
        final = p.dstate if stop == 11 else None
        parts.append((start, stop, swept(p, backend, start, stop, here, final)))
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    expect_equal(p.backward(tape, detach_every=every), added(p, parts), p)


@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
@pytest.mark.parametrize("at", ["last", "all", "step", "weights"])
def test_detach_every_is_what_pytorch_computes_from_detached_states(at: str, cell: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    p = make_problem(cell, *SHAPE, seed=6)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell, torch.nn.RNN)
    options = {"nonlinearity": cell} if kind is torch.nn.RNN else {}
    layer = kind(2, 5, dtype=torch.float64, **options)
    for name in WEIGHTS:
        w = getattr(layer, name.replace("w_", "weight_").replace("b_", "bias_") + "_l0")
        w.data = torch.tensor(getattr(p.params, name))
    state = tuple(torch.tensor(s)[None] for s in as_tuple(p.state))
    outputs = []
    for segment in torch.tensor(p.x).split(4):
        y, last = layer(segment, as_given(tuple(s.detach() for s in state)))
        state = as_tuple(last)
        outputs.append(y)
    o = torch.cat(outputs) @ torch.tensor(p.params.w_ho).T + torch.tensor(p.params.b_o)
    where, target = p.loss_at(at, "squared_error")
    weights = np.zeros(p.x.shape[:2])
    weights[{"last": -1, "all": slice(None), "weights": slice(None)}.get(at, where)] = 1
    weights = p.weights if at == "weights" else weights
    terms = (o - torch.tensor(np.broadcast_to(target, o.shape).copy())).square().sum(-1) / 2
    expected = (terms * torch.tensor(weights)).sum() / weights.sum()
    expected.backward()
    loss, grads = value_and_grad(p, "auto", "squared_error", at, detach_every=4)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for name in WEIGHTS:
        w = getattr(layer, name.replace("w_", "weight_").replace("b_", "bias_") + "_l0")
        np.testing.assert_allclose(getattr(grads, name), w.grad.numpy(), **CLOSE, err_msg=name)


# --- both --------------------------------------------------------------------------------------

CUTS: list[dict[str, int]] = [{"truncate": 0}, {"truncate": 3}, {"detach_every": 4}]


@pytest.mark.parametrize("options", CUTS, ids=str)
@pytest.mark.parametrize("at", ["last", "all", "step", "weights"])
@pytest.mark.parametrize("outputs", [2, 4])
def test_both_calls_agree(
    options: dict, at: str, outputs: int, loss: str, cell: str, backend: str
) -> None:
    """The fused call, and the tape with the readout's gradient by hand."""
    p = make_problem(cell, *SHAPE[:4], outputs, seed=7)
    _, full = value_and_grad(p, backend, loss, at)
    value, found = value_and_grad(p, backend, loss, at, **options)
    assert value == pytest.approx(value_and_grad(p, backend, loss, at)[0], rel=1e-12)
    dy = readout_gradient(p, loss, at)
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    expected = tape.backward(dy, **options)
    expected.w_ho, expected.b_o = full.w_ho, full.b_o
    expect_equal(found, expected, p)


def readout_gradient(p: Problem, loss: str, at: str, hidden: int = 5) -> np.ndarray:
    """dL/dS of each state's own loss: that in x of a network which hands its input on."""
    y = bptt.forward(p.cell, p.params, p.x, p.state, backend="numpy").y
    eye, nothing = np.eye(hidden), np.zeros((hidden, hidden))
    identity = bptt.Params(eye, nothing, w_ho=p.params.w_ho, b_o=p.params.b_o)
    where, target = p.loss_at(at, loss)
    _, grads = bptt.value_and_grad("linear", identity, y, target, loss=loss, at=where)
    return grads.x


@pytest.mark.parametrize("options", CUTS, ids=str)
@pytest.mark.parametrize("at", ["step", "all"])
def test_out_is_written_or_added_to(options: dict, at: str, cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE, seed=8)
    _, fresh = value_and_grad(p, backend, "squared_error", at, **options)
    into = p.zeros()
    for array in (into.x, *as_tuple(into.state), *into.arrays().values()):
        array[...] = np.nan
    _, written = value_and_grad(p, backend, "squared_error", at, out=into, **options)
    assert written is into
    expect_equal(into, fresh, p)
    value_and_grad(p, backend, "squared_error", at, out=into, accumulate=True, **options)
    for name, g in by_name(into).items():
        np.testing.assert_allclose(g, 2 * by_name(fresh)[name], **CLOSE, err_msg=name)


@pytest.mark.parametrize("options", CUTS, ids=str)
def test_backward_writes_to_out_but_for_the_readout(options: dict, cell: str, backend: str) -> None:
    p = make_problem(cell, *SHAPE, seed=9)
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    fresh = p.backward(tape, **options)
    assert fresh.w_ho is None
    into = p.zeros()
    into.x += 1
    into.w_ho += 7
    assert p.backward(tape, out=into, **options) is into
    p.backward(tape, out=into, accumulate=True, **options)
    np.testing.assert_array_equal(into.w_ho, np.full((4, 5), 7.0))
    np.testing.assert_allclose(into.x, 2 * fresh.x, **CLOSE)
    np.testing.assert_allclose(into.w_hh, 2 * fresh.w_hh, **CLOSE)


@pytest.mark.parametrize("options", CUTS, ids=str)
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (5, 0), (1, 1), (6, 1)])
def test_few_steps_and_no_rows_are_like_any_other(
    options: dict, steps: int, batch: int, cell: str, backend: str
) -> None:
    p = make_problem(cell, steps, batch, 2, 3, 4, seed=10)
    for at in ("last", "all"):
        _, found = value_and_grad(p, backend, "cross_entropy", at, **options)
        assert found.x.shape == p.x.shape
        assert np.isfinite(found.w_hh).all()
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    assert p.backward(tape, **options).x.shape == p.x.shape


@pytest.mark.parametrize(
    ("at", "options"),
    [("last", {"truncate": 4}), ("weights", {"detach_every": 7}), ("all", {"detach_every": 150})],
)
def test_long_sequences_are_walked_in_parts(
    at: str, options: dict, cell: str, backend: str
) -> None:
    p = make_problem(cell, 310, 2, 2, 3, 2, seed=12)
    loss, found = value_and_grad(p, backend, "squared_error", at, **options)
    assert loss == pytest.approx(value_and_grad(p, backend, "squared_error", at)[0], rel=1e-12)
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    dy = readout_gradient(p, "squared_error", at, hidden=3)
    expected = tape.backward(dy, **options)
    expected.w_ho, expected.b_o = found.w_ho, found.b_o
    expect_equal(found, expected, p)


@pytest.mark.parametrize("options", CUTS, ids=str)
def test_the_bits_do_not_depend_on_the_number_of_threads(
    options: dict, keep_num_threads: None
) -> None:
    p = make_problem("gru", 40, 16, 5, 33, dtype="float32", seed=11)
    found = []
    for threads in (1, 3):
        bptt.set_num_threads(threads)
        found.append(by_name(value_and_grad(p, "auto", "cross_entropy", "all", **options)[1]))
    for name, g in found[0].items():
        np.testing.assert_array_equal(g, found[1][name], err_msg=name)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"truncate": -1}, ValueError, "truncate: expected an integer of at least 0, got -1"),
        ({"truncate": 1.0}, TypeError, "truncate: expected an integer, got float"),
        ({"truncate": True}, TypeError, "truncate: expected an integer, got bool"),
        ({"truncate": "3"}, TypeError, "truncate: expected an integer, got str"),
        ({"detach_every": 0}, ValueError, "detach_every: expected an integer of at least 1, got 0"),
        ({"detach_every": [2]}, TypeError, "detach_every: expected an integer, got list"),
        ({"truncate": 2, "detach_every": 2}, ValueError, "either truncate or detach_every, got bo"),
    ],
)
def test_bad_input_is_refused_by_name(
    options: dict, error: type[Exception], words: str, backend: str
) -> None:
    p = make_problem("tanh", 4, 2, 2, 3)
    with pytest.raises(error, match=words):
        value_and_grad(p, backend, "squared_error", "last", **options)
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    into = p.zeros()
    with pytest.raises(error, match=words):
        p.backward(tape, out=into, **options)
    assert not into.w_hh.any()
