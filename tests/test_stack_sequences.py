"""Stacks take sequences of any kind, as their layers do one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from hypothesis import given, settings
from sequences import NAMED, Case, cases
from test_stacks import SHAPES, H, I, O, by_name, draw, of_direction

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

EACH_CASE = pytest.mark.parametrize("name", NAMED)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


class Call(NamedTuple):
    """A stack, sequences for it, and gradients that come in; all steps as the caller has them."""

    case: Case
    layers: list[Any]
    x: np.ndarray
    state: Any
    dy: np.ndarray
    dstate: Any


def call_of(case: Case, cell: str, shape: tuple[int, ...]) -> Call:
    rng = np.random.default_rng(7)

    def every_step(width: int) -> np.ndarray:
        return case.given(rng.standard_normal((case.steps, case.batch, width)))

    def state() -> Any:
        parts = bptt.CELLS[cell].states
        return as_given(tuple(rng.standard_normal((sum(shape), case.batch, H)) for _ in parts))

    return Call(case, draw(cell, shape), every_step(I), state(), every_step(shape[-1] * H), state())


def turned(case: Case) -> Case:
    """The same pieces, each run the other way round. A reset stands before the first step of a
    piece that is run, so it is now at what was the last step of the piece before."""
    reset = None
    if case.reset is not None:
        there = case.reset & (np.arange(case.steps)[:, None] < np.array(case.of_row, int))
        reset = np.zeros_like(there)
        if case.reverse:
            reset[1:] = there[:-1]
        else:
            reset[:-1] = there[1:]
    return replace(case, reverse=not case.reverse, reset=reset)


def chained(call: Call, cell: str, backend: str) -> dict[str, Any]:
    """The layers of a stack one by one, each direction a call of its own."""
    ways = (call.case, turned(call.case))
    tapes: list[list[bptt.Tape]] = []
    x, k = call.x, 0
    for layer in call.layers:
        tapes.append([])
        for params, way in zip(layer if isinstance(layer, tuple) else (layer,), ways, strict=False):
            state = of_direction(call.state, k)
            tapes[-1].append(bptt.forward(cell, params, x, state, backend=backend, **way.options))
            k += 1
        x = np.concatenate([tape.y for tape in tapes[-1]], axis=-1)
    found: dict[str, Any] = {"y": x}
    final = [as_tuple(tape.state) for layer in tapes for tape in layer]
    found.update({f"last[{i}]": np.stack(part) for i, part in enumerate(zip(*final, strict=True))})

    dy, states = call.dy, []
    for number, layer in reversed(list(enumerate(tapes))):
        k -= len(layer)
        dx = []
        for d, tape in enumerate(layer):
            part = np.ascontiguousarray(dy[..., d * H : (d + 1) * H])
            grads = tape.backward(part, of_direction(call.dstate, k + d))
            where = f"layers[{number}]" + (f"[{d}]" if len(layer) == 2 else "")
            found.update({f"{where}.{name}": a for name, a in grads.arrays().items()})
            dx.append(grads.x)
            states.append((k + d, as_tuple(grads.state)))
        dy = sum(dx[1:], start=dx[0])
    found["x"] = dy
    in_order = [parts for _, parts in sorted(states, key=lambda each: each[0])]
    found.update(
        {f"state[{i}]": np.stack(part) for i, part in enumerate(zip(*in_order, strict=True))}
    )
    return found


def in_one_call(call: Call, cell: str, backend: str) -> dict[str, Any]:
    tape = bptt.forward(cell, call.layers, call.x, call.state, backend=backend, **call.case.options)
    last = {f"last[{i}]": part for i, part in enumerate(as_tuple(tape.state))}
    return {"y": tape.y, **last, **by_name(tape.backward(call.dy, call.dstate))}


def check(call: Call, cell: str, backend: str) -> None:
    wanted, found = chained(call, cell, backend), in_one_call(call, cell, backend)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        if backend == "native" and not name.startswith("layers"):  # weights are summed over rows
            assert np.array_equal(found[name], array), name
        assert np.allclose(found[name], array, rtol=1e-11, atol=1e-11), name


@EACH_CASE
@EACH_SHAPE
def test_a_stack_runs_through_sequences_as_its_layers_do(
    name: str, shape: tuple[int, ...], cell: str, backend: str
) -> None:
    check(call_of(NAMED[name], cell, shape), cell, backend)


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_any_combination_of_keywords_goes_through_a_stack(case: Case) -> None:
    check(call_of(case, "lstm", (2, 1)), "lstm", "native" if native() else "numpy")


def native() -> bool:
    return bptt.backends()["native"].available


@pytest.mark.parametrize(
    "name", ["lengths", "batch_sizes", "reset", "reverse", "all of padded rows"]
)
@pytest.mark.parametrize("at", ["all", "last", 2])
@EACH_SHAPE
def test_the_gradients_of_a_loss_are_those_of_differences(
    name: str, at: Any, shape: tuple[int, ...], cell: str, backend: str
) -> None:
    case, rng = NAMED[name], np.random.default_rng(8)
    call = call_of(case, cell, shape)
    every = rng.standard_normal((case.steps, case.batch, O))
    target = case.given(every) if at == "all" else every[0]
    found = bptt.check_gradients(
        cell, call.layers, call.x, target, loss="squared_error", at=at, state=call.state,
        backend=backend, entries=3, **case.options,
    )  # fmt: skip
    assert found, str(found)


@pytest.mark.parametrize("at", ["all", "last", 2])
@EACH_CASE
@EACH_SHAPE
def test_predictions_are_the_readout_of_the_steps_that_are_there(
    name: str, at: Any, shape: tuple[int, ...], backend: str
) -> None:
    case = NAMED[name]
    if case.steps == 0:
        at = "all"  # there is no other step
    call = call_of(case, "gru", shape)
    options: dict[str, Any] = {"backend": backend, **case.options}
    tape = bptt.forward("gru", call.layers, call.x, call.state, **options)
    outputs, last = bptt.predict("gru", call.layers, call.x, call.state, at=at, **options)
    assert np.array_equal(last, tape.state)
    top = call.layers[-1] if isinstance(call.layers[-1], tuple) else (call.layers[-1],)
    w_ho = np.concatenate([params.w_ho for params in top], axis=1)
    wanted = case.padded(tape.y) @ w_ho.T + top[0].b_o
    there = np.arange(case.steps)[:, None] < np.array(case.of_row, int)  # (T, B)
    wanted[~there] = 0
    if at == "all":
        outputs = case.padded(outputs)
    else:
        steps = [max(n, 1) - 1 if at == "last" else at for n in case.of_row]
        wanted = wanted[steps, np.arange(case.batch)]
    assert np.allclose(outputs, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at", ["all", "last", 2])
@EACH_SHAPE
def test_the_loss_is_the_sum_of_those_of_the_rows_alone(
    at: Any, shape: tuple[int, ...], cell: str, loss: str, backend: str
) -> None:
    case, rng = NAMED["lengths"], np.random.default_rng(8)
    call = call_of(case, cell, shape)
    every = rng.standard_normal((case.steps, case.batch, O))
    if loss == "cross_entropy":
        every = rng.integers(0, O, (case.steps, case.batch))
    options: dict[str, Any] = {"loss": loss, "at": at, "reduction": "sum", "backend": backend}
    total, grads, last = bptt.value_and_grad(
        cell, call.layers, call.x, every if at == "all" else every[0], state=call.state,
        return_state=True, **options, **case.options,
    )  # fmt: skip
    of_rows, dx = 0.0, np.zeros_like(call.x)
    for row, length in enumerate(case.of_row):
        state = as_given(tuple(part[:, row : row + 1].copy() for part in as_tuple(call.state)))
        if length == 0 or (at == 2 and length < 3):
            continue
        rows = (slice(length), slice(row, row + 1))
        target = every[rows] if at == "all" else every[0, rows[1]]
        value, alone, final = bptt.value_and_grad(
            cell, call.layers, call.x[rows], target, state=state, return_state=True, **options
        )
        of_rows += value
        dx[rows] = alone.x
        for part, of_row in zip(as_tuple(last), as_tuple(final), strict=True):
            assert np.allclose(part[:, row : row + 1], of_row, rtol=1e-12, atol=1e-12)
    assert np.isclose(total, of_rows, rtol=1e-12)
    assert np.allclose(grads.x, dx, rtol=1e-11, atol=1e-11)


@EACH_CASE
@EACH_SHAPE
def test_gradients_of_sequences_go_into_given_arrays_and_add_up(
    name: str, shape: tuple[int, ...], backend: str
) -> None:
    call = call_of(NAMED[name], "lstm", shape)
    tape = bptt.forward(
        "lstm", call.layers, call.x, call.state, backend=backend, **call.case.options
    )
    fresh = tape.backward(call.dy, call.dstate)
    wanted = by_name(fresh)
    before = {key: array.copy() for key, array in wanted.items()}
    out = tape.backward(call.dy, call.dstate)
    for array in by_name(out).values():
        array[...] = np.nan
    assert tape.backward(call.dy, call.dstate, out=out) is out
    assert all(np.array_equal(array, wanted[key]) for key, array in by_name(out).items())
    tape.backward(call.dy, call.dstate, out=out, accumulate=True)
    for key, array in by_name(out).items():
        assert np.allclose(array, 2 * wanted[key], rtol=1e-12, atol=1e-12), key
    assert all(np.array_equal(array, before[key]) for key, array in wanted.items())
