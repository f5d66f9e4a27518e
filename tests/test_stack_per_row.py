"""``per_row`` of a stack: each row's own gradient, or its norm, is that of the row by itself."""

from __future__ import annotations

from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from sequences import NAMED, Case
from test_per_row import norms
from test_stack_sequences import Call, call_of
from test_stack_wanted import arrays_of
from test_stacks import SHAPES, O

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

CASES = {
    name: case
    for name, case in NAMED.items()
    if case.reset is None or not case.reset[:: -1 if case.reverse else 1][1:].any()
}
# Sorted by falling length, rows are in another order than the caller's.
CASES["reset at the first step"] = Case(
    6, 4, [2, 6, 5, 6], reset=np.arange(6)[:, None] == np.array([0, 7, 0, 7])
)
EACH_CASE = pytest.mark.parametrize("name", CASES)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
ABOUT = {"rtol": 1e-11, "atol": 1e-12}


def of_row(call: Call, row: int) -> tuple[Call, slice]:
    """A row of a call by itself, and its steps."""
    case = call.case
    steps = slice(case.of_row[row])
    zeros = case.reset is not None and case.reset[:1, row].any()

    def of(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(case.padded(array)[steps, row : row + 1])

    def state(given: Any, used: bool = True) -> Any:
        return as_given(tuple(used * part[:, row : row + 1] for part in as_tuple(given)))

    alone = Case(case.of_row[row], 1, reverse=case.reverse)
    reset = alone.steps and zeros
    if reset:
        alone = Case(alone.steps, 1, reset=case.reset[steps, row : row + 1], reverse=case.reverse)
    return Call(
        alone, call.layers, of(call.x), state(call.state), of(call.dy), state(call.dstate)
    ), steps


def tape_of(call: Call, cell: str, backend: str) -> bptt.StackTape:
    return bptt.forward(cell, call.layers, call.x, call.state, backend=backend, **call.case.options)


def check(each: Any, norm: Any, whole: Any, alone: list[Any]) -> None:
    """Of rows and norms: the sum, the other gradients, and each row by itself."""
    each, norm, whole = arrays_of(each), arrays_of(norm), arrays_of(whole)
    assert each.keys() == norm.keys() == whole.keys()
    for name, total in whole.items():
        if not name.startswith("layers"):
            np.testing.assert_array_equal(each[name], total, err_msg=name)
            np.testing.assert_array_equal(norm[name], total, err_msg=name)
            continue
        assert each[name].shape == (len(alone), *total.shape)
        assert norm[name].shape == (len(alone),)
        np.testing.assert_allclose(each[name].sum(axis=0), total, err_msg=name, **ABOUT)
        np.testing.assert_allclose(norm[name], norms(each[name]), rtol=1e-14, err_msg=name)
        for row, grads in enumerate(alone):
            found = each[name][row]
            np.testing.assert_allclose(found, grads.arrays()[name], err_msg=name, **ABOUT)


@EACH_CASE
@EACH_SHAPE
def test_each_row_of_a_tape_is_that_of_the_row_by_itself(
    name: str, shape: tuple[int, ...], cell: str, backend: str
) -> None:
    call = call_of(CASES[name], cell, shape)
    alone = []
    for b in range(call.case.batch):
        row, _ = of_row(call, b)
        alone.append(tape_of(row, cell, backend).backward(row.dy, row.dstate))
    tape = tape_of(call, cell, backend)
    whole, each, norm = (
        tape.backward(call.dy, call.dstate, per_row=per_row)
        for per_row in (None, "gradient", "norm")
    )
    check(each, norm, whole, alone)


@pytest.mark.parametrize("at", ["all", "last", 2])
@EACH_CASE
@EACH_SHAPE
def test_each_row_of_a_loss_is_that_of_the_row_by_itself(
    name: str, shape: tuple[int, ...], at: Any, loss: str, cell: str, backend: str
) -> None:
    call, rng = call_of(CASES[name], cell, shape), np.random.default_rng(5)
    case = call.case
    if case.steps <= 2:
        at = "all"
    every = rng.standard_normal((case.steps, case.batch, O))
    if loss == "cross_entropy":
        every = rng.integers(0, O, (case.steps, case.batch))

    def grads(call: Call, target: np.ndarray, at: Any = at, **options: Any) -> Any:
        return bptt.value_and_grad(
            cell, call.layers, call.x, target, loss=loss, at=at, reduction="sum",
            state=call.state, backend=backend, **call.case.options, **options,
        )  # fmt: skip

    target = case.given(every) if at == "all" else every[0]
    alone = []
    for b in range(case.batch):
        row, steps = of_row(call, b)
        if at == "all" or row.case.steps <= (0 if at == "last" else at):  # no term, as of no steps
            of_it: Any = every[steps, b : b + 1]
            weights = np.zeros(row.case.given(of_it).shape[:2])
            alone.append(grads(row, row.case.given(of_it), "all" if at == "all" else weights)[1])
        else:
            alone.append(grads(row, every[0, b : b + 1])[1])
    value, whole = grads(call, target)
    again, each = grads(call, target, per_row="gradient")
    once_more, norm = grads(call, target, per_row="norm")
    assert np.isclose([again, once_more], value, rtol=1e-13).all()
    check(each, norm, whole, alone)


@EACH_CASE
@EACH_SHAPE
@pytest.mark.parametrize("per_row", ["gradient", "norm"])
def test_rows_go_into_given_arrays_and_add_up(
    per_row: str, name: str, shape: tuple[int, ...], backend: str
) -> None:
    call = call_of(CASES[name], "lstm", shape)
    wanted = ("layers[0].w_hh", "state", "w_ho", "b_ih")
    target = call.case.given(np.ones((call.case.steps, call.case.batch, O)))

    def grads(**options: Any) -> Any:
        return bptt.value_and_grad(
            "lstm", call.layers, call.x, target, loss="squared_error", at="all", per_row=per_row,
            state=call.state, backend=backend, wanted=wanted, **call.case.options, **options,
        )[1]  # fmt: skip

    fresh, out = arrays_of(grads()), grads()
    top = f"layers[{len(shape) - 1}]" + ("[0]" if shape[-1] == 2 else "")
    assert f"{top}.w_ho" in fresh
    assert not {"x", f"{top}.b_o", f"{top}.b_hh"} & set(fresh)
    for array in arrays_of(out).values():
        array[...] = np.nan
    assert grads(out=out) is out
    for key, array in arrays_of(out).items():
        np.testing.assert_array_equal(array, fresh[key], err_msg=key)
    if per_row == "gradient":
        grads(out=out, accumulate=True)
        for key, array in arrays_of(out).items():
            np.testing.assert_allclose(array, 2 * fresh[key], err_msg=key, **ABOUT)


def test_rows_that_cannot_be_had_are_refused() -> None:
    call = call_of(NAMED["plain"], "tanh", (2, 1))
    out = bptt.Grads.zeros(call.layers, call.case.steps, call.case.batch)
    tape = tape_of(call, "tanh", "auto")
    for options, error, message in (
        ({"per_row": "sum"}, ValueError, "per_row: expected one of norm, gradient, got 'sum'"),
        ({"per_row": 3}, TypeError, "per_row: expected a string, got int"),
        (
            {"per_row": "norm", "accumulate": True},
            ValueError,
            "per_row: norms do not add up",
        ),
        (
            {"per_row": "norm"},
            ValueError,
            r"out.layers\[0\]\[0\].w_ih: expected shape \(5,\) to match "
            r"layers\[0\]\[0\].w_ih with per_row='norm'",
        ),
    ):
        given: dict[str, Any] = options
        with pytest.raises(error, match=message):
            tape.backward(call.dy, out=out, **given)
    assert not any(array.any() for array in arrays_of(out).values())
    call = call_of(NAMED["reset"], "tanh", (2, 1))
    with pytest.raises(ValueError, match="per_row: expected no reset behind"):
        tape_of(call, "tanh", "auto").backward(call.dy, per_row="norm")
