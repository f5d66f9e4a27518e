"""Ragged, packed, cut, reversed and batch-first sequences give what each row gives alone.

`expected` runs every piece of every row as a dense batch of one row; what sums over rows is summed
over these. Beyond the lengths x, dy, dc, targets and weights hold NaN, and class ids -100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import LOSSES, Problem, by_name, each, make_problem, parts, recorded
from sequences import LENGTHS, NAMED, Case, Piece, cases

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

NAMES = pytest.mark.parametrize("name", NAMED)
T, B = 7, 5


@dataclass
class Call:
    """A problem, as a caller of some kind of sequences has it."""

    case: Case
    problem: Problem

    @property
    def cell(self) -> str:
        return self.problem.cell

    def of(self, array: np.ndarray) -> np.ndarray:
        """`array` (T, B, ...) as the caller has it, and beyond the lengths what is not read."""
        worst = np.nan if array.dtype.kind == "f" else -100
        beyond = np.arange(self.case.steps)[:, None] >= np.array(self.case.of_row, int)
        filled = array.copy()
        filled[beyond] = worst
        return self.case.given(filled)

    def forward(self, backend: str, **options: Any) -> bptt.Tape:
        p = self.problem
        options = {"backend": backend, **self.case.options, **options}
        return bptt.forward(p.cell, p.params, self.of(p.x), p.state, **options)

    def backward(self, tape: bptt.Tape, **options: Any) -> bptt.Grads:
        p = self.problem
        if p.dc is not None:
            options["dc"] = self.of(p.dc)
        return tape.backward(self.of(p.dy), p.dstate, **options)

    def found(self, backend: str, **options: Any) -> dict[str, np.ndarray]:
        """All that a tape shows and returns; arrays of steps as (T, B, ...)."""
        tape = self.forward(backend, **options)
        return self.padded({**recorded(tape), **by_name(self.backward(tape))})

    def padded(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        of_steps = {"y", "c", "dx"} & found.keys()
        assert all(found[name].shape[:-1] == self.case.shape for name in of_steps)
        return {**found, **{name: self.case.padded(found[name]) for name in of_steps}}


def call_of(case: Case, cell: str, dtype: str = "float64", seed: int = 3) -> Call:
    shape = (case.steps, case.batch, 4, 9, 3)
    return Call(case, make_problem(cell, *shape, dtype=dtype, seed=seed))


def alone(p: Problem, piece: Piece, backend: str) -> tuple[bptt.Tape, bptt.Grads]:
    """The pass of a piece as a dense batch of one row, and its gradients."""
    row = slice(piece.row, piece.row + 1)

    def steps(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[piece.times, row])

    state = each(lambda s: s[row] if piece.first and not piece.anew else 0 * s[row], p.state)
    dstate = each(lambda s: s[row] if piece.last else 0 * s[row], p.dstate)
    tape = bptt.forward(p.cell, p.params, steps(p.x), state, backend=backend)
    dc = {} if p.dc is None else {"dc": steps(p.dc)}
    return tape, tape.backward(steps(p.dy), dstate, **dc)


def expected(call: Call, backend: str) -> dict[str, np.ndarray]:
    """What `Call.found` has to be."""
    p = call.problem
    zeros = {
        "y": np.zeros_like(p.dy),
        **({} if p.dc is None else {"c": np.zeros_like(p.dc)}),
        **parts("last", each(np.zeros_like, p.state)),
        "dx": np.zeros_like(p.x),
        **parts("dstate", each(np.zeros_like, p.state)),
    }
    layer = ("w_ih", "w_hh", "b_ih", "b_hh")
    zeros.update({name: np.zeros_like(getattr(p.params, name)) for name in layer})
    for piece in call.case.pieces():
        tape, grads = alone(p, piece, backend)
        found = {**recorded(tape), **by_name(grads)}
        for name, array in found.items():
            if name in ("y", "c", "dx"):
                zeros[name][piece.times, piece.row] = array[:, 0]
                continue
            ends = name.startswith("last") and piece.last
            begins = name.startswith("dstate") and piece.first and not piece.anew
            if ends or begins:
                zeros[name][piece.row] = array[0]
            elif name in layer:
                zeros[name] += array
    return zeros


def assert_rows_alone(call: Call, backend: str, found: dict[str, np.ndarray]) -> None:
    """The bits of each row alone, where the backend promises them; else within rounding."""
    wanted = expected(call, backend)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        if backend == "native" and name not in call.problem.params.arrays():
            np.testing.assert_array_equal(found[name], array, name)
        else:
            assert_near(found[name], array, name)


def assert_near(found: np.ndarray, wanted: np.ndarray, name: str) -> None:
    assert found.shape == wanted.shape, name
    assert found.dtype == wanted.dtype, name
    scale = np.max(np.abs(wanted), initial=1.0)
    error = np.max(np.abs(found - wanted), initial=0.0)
    assert error <= 200 * np.finfo(wanted.dtype).eps * scale, name


# --- each keyword -------------------------------------------------------------------------------


@NAMES
def test_every_row_is_the_row_alone(name: str, cell: str, dtype: str, backend: str) -> None:
    call = call_of(NAMED[name], cell, dtype)
    assert_rows_alone(call, backend, call.found(backend))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=cases(), cell=st.sampled_from(["tanh", "lstm", "gru"]), seed=st.integers(0, 99))
def test_any_combination_of_keywords_is_the_rows_alone(
    backend: str, case: Case, cell: str, seed: int
) -> None:
    call = call_of(case, cell, seed=seed)
    assert_rows_alone(call, backend, call.found(backend))


def test_the_gates_may_be_computed_again(cell: str, backend: str) -> None:
    call = call_of(NAMED["all of padded rows"], cell)
    again, once = call.found(backend, save="minimal"), call.found(backend)
    for name, array in once.items():
        assert_near(again[name], array, name)


def test_lists_and_objects_with_dlpack_are_read(backend: str) -> None:
    class Foreign:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.array.__dlpack_device__()

    call = call_of(NAMED["lengths"], "tanh")
    y = call.forward(backend).y
    for lengths in (tuple(LENGTHS), np.array(LENGTHS, np.uint8), Foreign(np.array(LENGTHS))):
        np.testing.assert_array_equal(call.forward(backend, lengths=lengths).y, y)
    call = call_of(NAMED["reset"], "tanh")
    y = call.forward(backend).y
    reset = call.case.reset
    np.testing.assert_array_equal(call.forward(backend, reset=reset.tolist()).y, y)


def test_without_a_state_rows_begin_with_zeros(backend: str) -> None:
    call = call_of(NAMED["all of padded rows"], "lstm")
    p = call.problem
    options = {"backend": backend, **call.case.options}
    none = bptt.forward("lstm", p.params, call.of(p.x), **options)
    zeros = bptt.forward("lstm", p.params, call.of(p.x), each(np.zeros_like, p.state), **options)
    np.testing.assert_array_equal(none.y, zeros.y)


# --- the loss -----------------------------------------------------------------------------------

AT = ("last", "all", "step", "step from the end", "weights")


def loss_arguments(call: Call, loss: str, at: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """`at` and `target` as a caller gives them, and the weight (T, B) of each term."""
    case, p = call.case, call.problem
    targets = p.ids if loss == "cross_entropy" else p.target
    lengths = np.array(case.of_row, int)
    there = np.arange(case.steps)[:, None] < lengths
    if at == "weights":
        weights = p.weights * there
        weights[::2, ::2] = 0
        return call.of(weights), call.of(targets), weights
    if at == "all":
        return at, call.of(targets), there.astype(p.x.dtype)
    step = {"step": case.steps // 2, "step from the end": -1 - case.steps // 3}.get(at)
    times = lengths - 1 if step is None else np.full(case.batch, step % case.steps)
    rows = np.arange(case.batch)
    counts = (times >= 0) & (times < lengths)
    of_row = np.full((case.batch, *targets.shape[2:]), -100, targets.dtype)
    of_row[counts] = targets[times[counts], rows[counts]]
    weights = np.zeros((case.steps, case.batch), p.x.dtype)
    weights[times[counts], rows[counts]] = 1
    return at if step is None else step, of_row, weights


def read_out(p: Problem, y: np.ndarray, loss: str, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss, and its gradient in O (T, B, O), term by term."""
    o = y @ p.params.w_ho.T + p.params.b_o
    if loss == "squared_error":
        do = o - p.target
        terms = (do * do).sum(-1) / 2
    else:
        q = np.exp(o - o.max(-1, keepdims=True))
        q /= q.sum(-1, keepdims=True)
        one = np.eye(o.shape[-1])[p.ids]
        terms, do = -np.log((q * one).sum(-1)), q - one
    return float((terms * weights).sum()), do * weights[..., None]


def check_loss(call: Call, backend: str, loss: str, at: str, reduction: str) -> None:
    p = call.problem
    where, target, weights = loss_arguments(call, loss, at)
    value, grads, state = bptt.value_and_grad(
        p.cell,
        p.params,
        call.of(p.x),
        target,
        loss=loss,
        at=where,
        reduction=reduction,
        state=p.state,
        backend=backend,
        return_state=True,
        **call.case.options,
    )
    tape = call.forward(backend)
    y = call.case.padded(tape.y)
    expected_value, do = read_out(p, y, loss, weights)
    scale = 1 / weights.sum() if reduction == "mean" and weights.any() else 1.0
    assert value == pytest.approx(expected_value * scale, rel=1e-11)
    do *= scale
    parts_of_it = by_name(tape.backward(call.case.given(do @ p.params.w_ho)))
    parts_of_it["w_ho"] = np.tensordot(do, y, axes=((0, 1), (0, 1)))
    parts_of_it["b_o"] = do.sum(axis=(0, 1))
    found = by_name(grads)
    assert found.keys() == parts_of_it.keys()
    for name, array in parts_of_it.items():
        assert_near(found[name], array, name)
    for s, after in zip(as_tuple(state), as_tuple(tape.state), strict=True):
        np.testing.assert_allclose(s, after, rtol=1e-12)


@NAMES
@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_fused_call_is_forward_loss_and_backward(
    name: str, at: str, reduction: str, loss: str, cell: str, backend: str
) -> None:
    if NAMED[name].steps == 0 and at.startswith("step"):
        return  # there is none
    if NAMED[name].steps * NAMED[name].batch == 0 and at == "weights":
        return
    check_loss(call_of(NAMED[name], cell), backend, loss, at, reduction)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    case=cases().filter(lambda case: case.steps * case.batch > 0),
    cell=st.sampled_from(["tanh", "lstm", "gru"]),
    loss=st.sampled_from(LOSSES),
    at=st.sampled_from(AT[:-1]),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_any_loss_of_any_sequences_is_forward_loss_and_backward(
    backend: str, case: Case, cell: str, loss: str, at: str, reduction: str
) -> None:
    check_loss(call_of(case, cell), backend, loss, at, reduction)


def test_the_mean_divides_by_the_terms_that_are_there(backend: str) -> None:
    params = bptt.Params(np.zeros((1, 1)), np.zeros((1, 1)), w_ho=np.ones((1, 1)))  # O = 0
    x, target = np.zeros((3, 4, 1)), np.full((3, 4, 1), 2.0)  # each term is 2

    def loss(at: Any, target: np.ndarray, reduction: str) -> float:
        return bptt.value_and_grad(
            "linear",
            params,
            x,
            target,
            loss="squared_error",
            at=at,
            reduction=reduction,
            lengths=[3, 1, 0, 2],
            backend=backend,
        )[0]

    for at, of, terms in (("all", target, 6), ("last", target[0], 3), (1, target[0], 2)):
        assert loss(at, of, "sum") == 2 * terms
        assert loss(at, of, "mean") == 2


def test_a_step_that_no_row_has_has_no_loss(backend: str) -> None:
    call = call_of(Case(T, B, [3, 2, 0, 1, 3]), "lstm")
    p = call.problem
    value, grads = bptt.value_and_grad(
        "lstm",
        p.params,
        call.of(p.x),
        np.full((B, 3), np.nan),
        loss="squared_error",
        at=5,
        state=p.state,
        backend=backend,
        **call.case.options,
    )
    assert value == 0
    assert not any(array.any() for array in by_name(grads).values())


# --- arrays of the caller -----------------------------------------------------------------------


def zeros_of(call: Call, value: float) -> bptt.Grads:
    p = call.problem
    grads = bptt.Grads(
        x=np.full((*call.case.shape, 4), value),
        state=each(lambda s: np.full_like(s, value), p.state),
        **{name: np.full_like(array, value) for name, array in p.params.arrays().items()},
    )
    return grads


@NAMES
def test_gradients_go_into_given_arrays_or_are_added(name: str, cell: str, backend: str) -> None:
    call = call_of(NAMED[name], cell)
    tape = call.forward(backend)
    fresh = by_name(call.backward(tape))
    for accumulate, before in ((False, 7.0), (True, 0.5)):
        out = zeros_of(call, before)
        assert call.backward(tape, out=out, accumulate=accumulate) is out
        for key, array in fresh.items():
            assert_near(by_name(out)[key], array + (before if accumulate else 0), key)


@NAMES
def test_the_fused_call_writes_into_given_arrays_or_adds(name: str, backend: str) -> None:
    call = call_of(NAMED[name], "lstm")
    p = call.problem

    def run(**options: Any) -> bptt.Grads:
        return bptt.value_and_grad(
            "lstm",
            p.params,
            call.of(p.x),
            call.of(p.target),
            loss="squared_error",
            at="all",
            state=p.state,
            backend=backend,
            **{**call.case.options, **options},
        )[1]

    fresh = by_name(run())
    for accumulate, before in ((False, 7.0), (True, 0.5)):
        out = zeros_of(call, before)
        assert run(out=out, accumulate=accumulate) is out
        for key, array in fresh.items():
            assert_near(by_name(out)[key], array + (before if accumulate else 0), key)


@NAMES
def test_a_tape_is_recorded_into_again(name: str, cell: str, backend: str) -> None:
    call = call_of(NAMED[name], cell)
    tape = call_of(NAMED[name], cell, seed=4).forward(backend)
    y = tape.y
    assert call.forward(backend, out=tape) is tape
    assert tape.y is y
    found = call.padded({**recorded(tape), **by_name(call.backward(tape))})
    for key, array in call.found(backend).items():
        assert_near(found[key], array, key)


def test_a_tape_of_other_lengths_is_refused(backend: str) -> None:
    call = call_of(NAMED["lengths"], "tanh")
    tape = call.forward(backend)
    y = tape.y.copy()
    with pytest.raises(ValueError, match=r"^out: expected a tape of the same lengths"):
        call.forward(backend, out=tape, lengths=[7, 7, 2, 0, 0])
    np.testing.assert_array_equal(tape.y, y)


def test_the_state_of_a_tape_goes_on_in_it(cell: str, backend: str) -> None:
    """Also where it is a view of y, which the tape writes anew."""
    call = call_of(NAMED["reverse"], cell)
    tape = call.forward(backend)
    state = as_given((tape.y[0], *([tape.c[0]] if cell == "lstm" else [])))
    again = each(np.copy, state)
    p, options = call.problem, {"backend": backend, **call.case.options}
    wanted = bptt.forward(cell, p.params, p.x, again, **options)
    expected_grads = by_name(wanted.backward(p.dy))
    found = bptt.forward(cell, p.params, p.x, state, out=tape, **options)
    assert_near(found.y, wanted.y, "y")
    for key, array in by_name(found.backward(p.dy)).items():
        assert_near(array, expected_grads[key], key)


def test_released_tapes_hold_nothing(backend: str) -> None:
    call = call_of(NAMED["lengths"], "lstm")
    tape = call.forward(backend)
    held = tape.nbytes
    assert tape.y.shape == (T, B, 9)
    shown = 0 if backend == "native" else tape.y.nbytes  # which was written in the pass
    assert tape.nbytes == held + shown
    tape.release()
    assert tape.nbytes == 0
    with pytest.raises(RuntimeError, match="released"):
        _ = tape.y


# --- what else takes sequences ------------------------------------------------------------------


@NAMES
@pytest.mark.parametrize("at", ["all", "last", 3])
def test_predictions_are_the_readout_of_y(name: str, at: Any, cell: str, backend: str) -> None:
    call = call_of(NAMED[name], cell)
    if call.case.steps == 0 and at != "all":
        return
    p, tape = call.problem, call.forward(backend)
    outputs, state = bptt.predict(
        cell, p.params, call.of(p.x), p.state, at=at, backend=backend, **call.case.options
    )
    y = call.case.padded(tape.y)
    lengths = np.array(call.case.of_row, int)
    o = y @ p.params.w_ho.T + p.params.b_o
    o[np.arange(call.case.steps)[:, None] >= lengths] = 0
    if at == "all":
        wanted = call.case.given(o)
    else:
        times = lengths - 1 if at == "last" else np.full(call.case.batch, at)
        wanted = o[np.maximum(times, 0), np.arange(call.case.batch)]
    assert_near(outputs, wanted, "outputs")
    for s, after in zip(as_tuple(state), as_tuple(tape.state), strict=True):
        assert_near(s, after, "state")


@pytest.mark.parametrize("name", ["lengths", "batch_sizes", "all of padded rows"])
def test_gradients_are_those_of_the_loss(name: str, cell: str, backend: str) -> None:
    call = call_of(NAMED[name], cell)
    p = call.problem
    assert bptt.check_gradients(
        cell,
        p.params,
        call.of(p.x),
        call.of(p.target),
        loss="squared_error",
        at="all",
        state=p.state,
        backend=backend,
        entries=12,
        **call.case.options,
    )


@pytest.mark.parametrize("options", [{"truncate": 2}, {"detach_every": 3}])
def test_truncation_goes_with_whole_rows(options: dict[str, int], backend: str) -> None:
    """In the order in which the steps are processed."""
    call = call_of(Case(T, B, reverse=True, batch_first=True), "gru")
    p = call.problem
    found = call.backward(call.forward(backend), **options)
    turned = bptt.forward("gru", p.params, p.x[::-1], p.state, backend=backend)
    wanted = turned.backward(p.dy[::-1], p.dstate, **options)
    assert_near(found.x, wanted.x[::-1].swapaxes(0, 1), "dx")
    assert_near(found.w_hh, wanted.w_hh, "w_hh")


@pytest.mark.parametrize("name", ["lengths", "batch_sizes", "reset"])
def test_truncation_of_other_rows_is_refused(name: str, backend: str) -> None:
    call = call_of(NAMED[name], "tanh")
    p = call.problem
    tape = call.forward(backend)
    for option in ("truncate", "detach_every"):
        words = rf"^{option}: .*sequences of one length"
        with pytest.raises(ValueError, match=words):
            call.backward(tape, **{option: 2})
        with pytest.raises(ValueError, match=words):
            bptt.value_and_grad(
                "tanh",
                p.params,
                call.of(p.x),
                call.of(p.target),
                loss="squared_error",
                at="all",
                backend=backend,
                **{option: 2},
                **call.case.options,
            )


def test_forward_mode_goes_with_dense_rows_and_no_others(cell: str, backend: str) -> None:
    call = call_of(NAMED["reset of all rows at once"], cell)
    p, tape = call.problem, call.forward(backend)
    dy, _ = tape.jvp(p.x, p.dstate)
    grads = tape.backward(p.dy)
    pulled = float((grads.x * p.x).sum())
    pulled += sum(
        float((g * d).sum()) for g, d in zip(as_tuple(grads.state), as_tuple(p.dstate), strict=True)
    )
    assert float((dy * p.dy).sum()) == pytest.approx(pulled, rel=1e-9)
    ragged = call_of(NAMED["lengths"], cell).forward(backend)
    with pytest.raises(ValueError, match=r"^jvp: .*sequences of one length"):
        ragged.jvp(p.x)


# --- PyTorch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_packed_sequences_are_pytorch_s(kind: str, backend: str) -> None:
    torch = pytest.importorskip("torch")
    call = call_of(NAMED["lengths"], kind)
    p = call.problem
    keep = [n for n, length in enumerate(LENGTHS) if length]  # it knows no sequence without steps
    lengths = [LENGTHS[n] for n in keep]
    x = torch.tensor(p.x[:, keep], requires_grad=True)
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "tanh": torch.nn.RNN}[kind](4, 9)
    names = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih"}
    names["bias_hh_l0"] = "b_hh"
    module.double()
    with torch.no_grad():
        for theirs, ours in names.items():
            getattr(module, theirs).copy_(torch.tensor(getattr(p.params, ours)))
    state = each(lambda s: torch.tensor(s[None, keep]), p.state)
    pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    packed = pack(x, lengths, enforce_sorted=False)
    y, last = module(packed, state)
    padded, _ = pad(y)
    dy = torch.tensor(p.dy[:, keep])
    loss = (padded * dy).sum()
    for s, d in zip(as_tuple(last), as_tuple(p.dstate), strict=True):
        loss = loss + (s[0] * torch.tensor(d[keep])).sum()
    loss.backward()

    def backward(tape: bptt.Tape, dy: np.ndarray, rows: Any) -> bptt.Grads:
        return tape.backward(dy, each(lambda d: d[rows], p.dstate))

    tape = call.forward(backend)
    grads = backward(tape, call.of(p.dy), slice(None))
    np.testing.assert_allclose(tape.y[:, keep], padded.detach(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(grads.x[:, keep], x.grad, rtol=0, atol=1e-10)
    for theirs, ours in names.items():
        theirs_grad = getattr(module, theirs).grad
        np.testing.assert_allclose(getattr(grads, ours), theirs_grad, rtol=0, atol=1e-10)
    # And its packed rows as they are.
    order = packed.sorted_indices.numpy()
    of_packed = bptt.forward(
        kind,
        p.params,
        packed.data.detach(),
        each(lambda s: s[keep][order], p.state),
        batch_sizes=packed.batch_sizes,
        backend=backend,
    )
    np.testing.assert_allclose(of_packed.y, y.data.detach(), rtol=0, atol=1e-10)


# --- what does not fit --------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lengths": [8, 1, 1, 1, 1]}, ValueError, "lengths: expected lengths from 0 to 7"),
    ({"lengths": [1, 1, 1, 1]}, ValueError, r"lengths: expected shape \(5,\)"),
    ({"lengths": [1.0] * 5}, TypeError, "lengths: expected integers"),
    ({"reset": np.zeros((5, 7), bool)}, ValueError, r"reset: expected shape \(7, 5\)"),
    ({"reset": np.zeros((7, 5))}, TypeError, "reset: expected an array of bools"),
    ({"reverse": "yes"}, TypeError, "reverse: expected True or False"),
    ({"batch_first": 1}, TypeError, "batch_first: expected True or False"),
    ({"batch_first": True}, ValueError, "state: expected shape|target: expected shape"),
    ({"batch_sizes": [5] * 7}, ValueError, r"x: expected shape \(N, 4\)"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD)
def test_bad_descriptions_are_refused_and_nothing_is_written(
    options: dict[str, Any], error: type[Exception], words: str, backend: str
) -> None:
    call = call_of(NAMED["plain"], "tanh")
    p, tape = call.problem, call.forward(backend)
    y, out = tape.y.copy(), zeros_of(call, 7.0)
    with pytest.raises(error, match=rf"^({words})"):
        bptt.forward("tanh", p.params, p.x, p.state, backend=backend, out=tape, **options)
    np.testing.assert_array_equal(tape.y, y)
    with pytest.raises(error, match=rf"^({words})"):
        bptt.value_and_grad(
            "tanh",
            p.params,
            p.x,
            p.target,
            loss="squared_error",
            at="all",
            state=p.state,
            backend=backend,
            out=out,
            **options,
        )
    assert all((array == 7).all() for array in by_name(out).values())
    with pytest.raises(error, match=rf"^({words})"):
        bptt.predict("tanh", p.params, p.x, p.state, backend=backend, **options)


def test_gradients_of_another_layout_are_refused(backend: str) -> None:
    call = call_of(NAMED["batch_sizes"], "tanh")
    tape = call.forward(backend)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(20, 9\) to match tape.y"):
        tape.backward(call.problem.dy)
    with pytest.raises(ValueError, match=r"^target: expected shape \(20, 3\) to match x of shape"):
        bptt.value_and_grad(
            "tanh",
            call.problem.params,
            call.of(call.problem.x),
            call.problem.target,
            loss="squared_error",
            at="all",
            backend=backend,
            **call.case.options,
        )
