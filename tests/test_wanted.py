"""Gradients that are not wanted are None, and cost nothing; those that are have the same bits."""

from __future__ import annotations

import tracemalloc
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.backends.protocol import Layer, Request
from bptt.budget import Budget
from bptt.losses import Objective
from bptt.states import as_tuple
from problems import AT, Problem, make_problem

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

NAMES = ("x", "state", "w_ih", "w_hh", "b_ih", "b_hh")
READOUT = ("w_ho", "b_o")
PARAMS = ("w_ih", "w_hh", "b_ih", "b_hh")
SOME: list[Any] = [*NAMES, "params", ("x", "w_hh"), ["state", "b_hh"], {"w_ih", "params"}]
SHAPES = [(1, 1, 1, 1), (9, 3, 7, 17), (70, 2, 2, 64), (40, 33, 5, 65), (0, 3, 2, 4), (3, 0, 2, 4)]


def names_of(wanted: Any) -> set[str]:
    given = {wanted} if isinstance(wanted, str) else set(wanted)
    return (given - {"params"}) | {*(PARAMS + READOUT if "params" in given else ())}


def in_order(wanted: Any) -> str:
    """The name of a case, the same in every process."""
    return str(sorted(wanted)) if isinstance(wanted, set) else str(wanted)


def check(grads: bptt.Grads, whole: bptt.Grads, wanted: Any) -> None:
    for name in (*NAMES, *READOUT):
        found, expected = getattr(grads, name), getattr(whole, name)
        if name not in names_of(wanted) or expected is None:
            assert found is None, name
            continue
        for one, other in zip(as_tuple(found), as_tuple(expected), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


def value_and_grad(p: Problem, backend: str, at: str, **options: Any) -> bptt.Grads:
    where, target = p.loss_at(at, "cross_entropy")
    found = bptt.value_and_grad(
        p.cell,
        p.params,
        p.x,
        target,
        loss="cross_entropy",
        at=where,
        state=p.state,
        backend=backend,
        **options,
    )
    return found[1]


@pytest.mark.parametrize("wanted", SOME, ids=in_order)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_wanted_of_a_tape_is_what_it_is_among_all(
    shape: tuple[int, ...], wanted: Any, cell: str, backend: str
) -> None:
    p = make_problem(cell, *shape, dtype="float32")
    for save in ("gates", "minimal"):
        tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend, save=save)
        check(p.backward(tape, wanted=wanted), p.backward(tape), wanted)


@pytest.mark.parametrize("wanted", [*SOME, *READOUT, READOUT, ("x", "w_ho")], ids=in_order)
@pytest.mark.parametrize("shape", SHAPES[1:4])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_is_wanted_of_a_loss_is_what_it_is_among_all(
    threads: int,
    shape: tuple[int, ...],
    wanted: Any,
    cell: str,
    backend: str,
    keep_num_threads: None,
) -> None:
    bptt.set_num_threads(threads)
    p = make_problem(cell, *shape)
    for at in AT:
        whole = value_and_grad(p, backend, at)
        check(value_and_grad(p, backend, at, wanted=wanted), whole, wanted)


@pytest.mark.parametrize("cut", [{"truncate": 2}, {"truncate": 6}, {"detach_every": 4}], ids=str)
@pytest.mark.parametrize("wanted", [*SOME, "w_ho", ("w_ho", "w_hh")], ids=in_order)
def test_what_is_wanted_of_a_truncated_gradient_is_what_it_is_among_all(
    wanted: Any, cut: dict[str, int], cell: str, backend: str
) -> None:
    p = make_problem(cell, 20, 3, 4, 9)
    for at in ("last", "all"):
        whole = value_and_grad(p, backend, at, **cut)
        check(value_and_grad(p, backend, at, wanted=wanted, **cut), whole, wanted)
    if "w_ho" in wanted:
        return
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    whole = p.backward(tape, **cut)
    check(p.backward(tape, wanted=wanted, **cut), whole, wanted)
    out = p.zeros()
    assert p.backward(tape, wanted=wanted, out=out, **cut) is out
    for name in names_of(wanted) - {"w_ho", "b_o", "state"}:
        np.testing.assert_array_equal(getattr(out, name), getattr(whole, name))
    for name in {"x", *PARAMS} - names_of(wanted):
        assert not getattr(out, name).any()


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("wanted", ["x", "state", ("w_hh", "b_o"), "params"], ids=str)
def test_only_what_is_wanted_is_written(
    wanted: Any, accumulate: bool, cell: str, backend: str
) -> None:
    p = make_problem(cell, 12, 5, 3, 10)
    whole, out, sparse = value_and_grad(p, backend, "all"), p.zeros(), p.zeros()
    arrays = {name: getattr(out, name) for name in (*NAMES, *READOUT)}
    for array in arrays.values():
        for part in as_tuple(array):
            part[...] = 7
    for name in arrays.keys() - names_of(wanted):
        setattr(sparse, name, None)
    options = {"wanted": wanted, "accumulate": accumulate}
    assert value_and_grad(p, backend, "all", out=out, **options) is out
    assert value_and_grad(p, backend, "all", out=sparse, **options) is sparse
    for name, array in arrays.items():
        assert getattr(out, name) is array
        is_wanted = name in names_of(wanted)
        assert (getattr(sparse, name) is not None) == is_wanted
        for part, expected in zip(as_tuple(array), as_tuple(getattr(whole, name)), strict=True):
            if is_wanted:
                np.testing.assert_allclose(part, expected + 7 * accumulate, rtol=1e-9, atol=1e-11)
            else:
                np.testing.assert_array_equal(part, 7)


def test_what_is_not_wanted_takes_no_memory() -> None:
    p = make_problem("tanh", 2000, 20, 50, 4)
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend="native")
    peaks = {}
    for wanted in ("params", "x"):
        tracemalloc.start()
        p.backward(tape, wanted=wanted)
        peaks[wanted] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["params"] < p.x.nbytes / 10 < p.x.nbytes < peaks["x"]


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("wanted", [("w_ho",), ("x",), ("w_hh", "b_o"), ("state",)], ids=str)
def test_what_is_wanted_of_segments_is_what_it_is_among_all(
    cell: str, wanted: tuple[str, ...], backend: str
) -> None:
    p, chosen = make_problem(cell, 300, 5, 7, 12), REGISTRY[backend]
    layer = Layer(bptt.CELLS[cell], p.params, p.x, as_tuple(p.state))
    objective = Objective("squared_error", p.target, None, p.weights, 0.5)
    loss, whole = chosen.value_and_grad(layer, objective, Request(budget=Budget(64)))
    request = Request(wanted=frozenset(wanted), budget=Budget(64))
    again, grads = chosen.value_and_grad(layer, objective, request)
    assert again == loss
    check(grads, whole, set(wanted))


def test_one_part_of_the_final_state_may_have_no_gradient(backend: str) -> None:
    p = make_problem("lstm", 7, 4, 3, 9)
    dh, dc = p.dstate
    tape = bptt.forward("lstm", p.params, p.x, p.state, backend=backend)
    for options in ({}, {"truncate": 2}, {"detach_every": 3}):
        for given, full in (
            ((dh, None), (dh, np.zeros_like(dc))),
            ((None, dc), (np.zeros_like(dh), dc)),
        ):
            found, expected = (tape.backward(dstate=d, **options) for d in (given, full))
            for name in ("x", *PARAMS):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
            for one, other in zip(found.state, expected.state, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_gradient_of_the_final_state_has_at_least_one_part(backend: str) -> None:
    p = make_problem("lstm", 7, 4, 3, 9)
    tape = bptt.forward("lstm", p.params, p.x, backend=backend)
    with pytest.raises(TypeError, match=r"dstate\[0\]: .* got NoneType"):
        tape.backward(dstate=(None, None))


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ("w_xh", ValueError, "wanted: expected one of x, state, w_ih, .*params, got 'w_xh'"),
        ((), ValueError, "wanted: expected at least one of x, state, w_ih, .*, got none"),
        (("x", "y"), ValueError, "wanted: expected one of .* got 'y'"),
        (("x", 3), TypeError, "wanted: expected a string, got int"),
        (3, TypeError, "wanted: expected a name or a tuple of names, got int"),
    ],
    ids=str,
)
def test_a_name_that_is_none_of_a_gradient_is_refused_before_anything_is_written(
    wanted: Any, error: type[Exception], message: str, backend: str
) -> None:
    p = make_problem("tanh", 5, 2, 3, 4)
    out = p.zeros()
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    with pytest.raises(error, match=message):
        p.backward(tape, wanted=wanted, out=out)
    with pytest.raises(error, match=message):
        value_and_grad(p, backend, "all", wanted=wanted, out=out)
    assert not any(g.any() for g in out.arrays().values())


def test_a_tape_has_no_readout_whose_gradient_could_be_wanted() -> None:
    p = make_problem("tanh", 5, 2, 3, 4)
    with pytest.raises(ValueError, match=r"wanted: expected one of x, .*b_hh, params, got 'w_ho'"):
        p.backward(bptt.forward(p.cell, p.params, p.x), wanted="w_ho")


def test_what_is_wanted_must_be_in_out() -> None:
    p = make_problem("tanh", 5, 2, 3, 4)
    out = p.zeros()
    out.w_hh = None  # type: ignore[assignment]
    tape = bptt.forward(p.cell, p.params, p.x, p.state)
    with pytest.raises(ValueError, match=r"out.w_hh: expected an array of shape \(4, 4\)"):
        p.backward(tape, wanted=("w_hh", "x"), out=out)
    p.backward(tape, wanted="x", out=out)


@pytest.mark.parametrize("wanted", [("x",), ("state", "w_hh"), ("params",)], ids=str)
def test_what_is_wanted_of_sequences_of_several_lengths(
    wanted: Any, cell: str, backend: str
) -> None:
    p = make_problem(cell, 9, 5, 3, 7)
    reset = np.zeros((9, 5), bool)
    reset[[0, 3], [1, 2]] = True
    for how in ({"lengths": np.array([4, 0, 9, 2, 9])}, {"reset": reset}, {"reverse": True}):
        tape = bptt.forward(cell, p.params, p.x, p.state, backend=backend, **how)
        whole, sparse = p.backward(tape), p.zeros()
        check(p.backward(tape, wanted=wanted), whole, wanted)
        for name in {*NAMES, *READOUT} - names_of(wanted):
            setattr(sparse, name, None)
        p.backward(tape, wanted=wanted, out=sparse)
        sparse.w_ho = sparse.b_o = None  # which the tape leaves as they are
        check(sparse, whole, wanted)


def test_one_part_of_the_final_state_of_sequences_of_several_lengths(backend: str) -> None:
    p = make_problem("lstm", 7, 4, 3, 9)
    lengths = np.array([2, 7, 0, 5])
    tape = bptt.forward("lstm", p.params, p.x, p.state, backend=backend, lengths=lengths)
    dh, dc = p.dstate
    found, full = (tape.backward(dstate=(d, dc)) for d in (None, np.zeros_like(dh)))
    for name in ("x", *PARAMS):
        np.testing.assert_array_equal(getattr(found, name), getattr(full, name))
