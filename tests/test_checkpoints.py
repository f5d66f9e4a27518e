"""A tape under a budget: y and the borders of segments, and the gradients of one that keeps all."""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple, by_part
from sequences import LONG_CASES as CASES

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

GATED = [name for name, cell in bptt.CELLS.items() if cell.saved]
EACH_CASE = pytest.mark.parametrize("name", CASES)
EACH_GATED = pytest.mark.parametrize("cell", GATED)
I, H = 4, 5  # noqa: E741


@pytest.fixture(params=[name for name in ("native", "numpy") if bptt.backends()[name].available])
def backend(request: pytest.FixtureRequest) -> str:
    """With kernels for parts, and without; numba goes numpy's way."""
    return request.param


def tape_of(cell: str, name: str, **options: Any) -> bptt.Tape:
    case, rng = CASES[name], np.random.default_rng(7)
    params = bptt.init_params(cell, input_size=I, hidden_size=H, rng=1, dtype="float64")
    x = case.given(rng.standard_normal((case.steps, case.batch, I)))
    state = as_given(tuple(rng.standard_normal((case.batch, H)) for _ in bptt.CELLS[cell].states))
    return bptt.forward(cell, params, x, state, **case.options, **options)


def gradients(tape: bptt.Tape, *, history: bool, final: bool, **options: Any) -> dict[str, Any]:
    """By name, of gradients that come into all steps, into the last state or into both."""
    rng = np.random.default_rng(8)
    states = as_tuple(tape.state)
    into = [rng.standard_normal(tape.y.shape).astype(s.dtype) for s in states]
    last = as_given(tuple(rng.standard_normal(s.shape).astype(s.dtype) for s in states))
    given: dict[str, Any] = {"dstate": last if final else None}
    if history:
        given.update(zip(("dy", "dc"), into, strict=False))
    grads = tape.backward(**given, **options)
    parts = () if grads.state is None else as_tuple(grads.state)
    arrays = {"x": grads.x, **by_part("state", parts), **grads.arrays()}
    return {name: array for name, array in arrays.items() if array is not None}


def check(found: dict[str, Any], wanted: dict[str, Any], backend: str) -> None:
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    same = np.testing.assert_array_equal if backend == "native" else close
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        same(found[name], array, err_msg=name)


@pytest.mark.parametrize("incoming", [(True, False), (False, True), (True, True)], ids=str)
@EACH_CASE
@EACH_GATED
@pytest.mark.parametrize("steps", [5, 20])
def test_segments_change_no_bit(
    steps: int, cell: str, name: str, incoming: tuple[bool, bool], backend: str
) -> None:
    history, final = incoming
    whole = tape_of(cell, name, backend=backend)
    tape = tape_of(cell, name, backend=backend, checkpoint_every=steps)
    np.testing.assert_array_equal(tape.y, whole.y)
    for mine, theirs in zip(as_tuple(tape.state), as_tuple(whole.state), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    wanted = gradients(whole, history=history, final=final)
    for _ in range(2):  # a tape may go back again
        check(gradients(tape, history=history, final=final), wanted, backend)
    assert tape.nbytes < whole.nbytes or steps == 5


@pytest.mark.parametrize("wanted", ["x", "params", ("state", "b_hh")])
@pytest.mark.parametrize("per_row", [None, "norm", "gradient"])
@pytest.mark.parametrize("name", ["few rows", "reverse"])
def test_some_gradients_and_those_of_each_row(
    wanted: Any, per_row: Any, name: str, backend: str
) -> None:
    whole, tape = (
        gradients(
            tape_of("gru", name, backend=backend, checkpoint_every=steps),
            history=True, final=True, wanted=wanted, per_row=per_row,
        )
        for steps in (None, 20)
    )  # fmt: skip
    check(tape, whole, backend)


@pytest.mark.parametrize("name", ["many rows", "reset"])
def test_gradients_are_added_to_what_is_there(name: str, backend: str) -> None:
    found = []
    for steps in (None, 20):
        tape = tape_of("lstm", name, backend=backend, checkpoint_every=steps)
        out = tape.backward(tape.y)
        found.append(gradients(tape, history=True, final=False, out=out, accumulate=True))
    check(found[1], found[0], backend)


def test_a_limit_is_kept(backend: str) -> None:
    params = bptt.init_params("lstm", input_size=4, hidden_size=32, rng=0, dtype="float64")
    x = np.random.default_rng(1).standard_normal((1200, 4, 4))
    run = partial(bptt.forward, "lstm", params, x, backend=backend)
    whole = run()
    wanted = gradients(whole, history=True, final=True)
    y = whole.y.nbytes
    with pytest.raises(ValueError, match=r"memory_limit: expected at least \d+ bytes") as error:
        run(memory_limit=1)
    least = int(str(error.value).split("at least ")[1].split()[0])
    assert least < 0.9 * y
    for limit in (8 * y, y, least):
        tape = run(memory_limit=limit)
        assert tape.nbytes - y <= limit + 2 * 4 * 32 * 8  # the final state
        check(gradients(tape, history=True, final=True), wanted, backend)
    assert run(memory_limit=8 * y).nbytes == whole.nbytes
    whole.release()
    tape = run(memory_limit=least)
    out = tape.backward(tape.y)
    tracemalloc.start()
    tape.backward(tape.y, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < least + 10_000
    held = tape.nbytes
    tape.release()
    assert tape.nbytes == 0 < held


def test_cells_that_keep_y_alone_need_no_segments(backend: str) -> None:
    for cell in ("linear", "tanh", "relu"):
        tape = tape_of(cell, "few rows", backend=backend, memory_limit=1)
        whole = tape_of(cell, "few rows", backend=backend)
        assert tape.nbytes == whole.nbytes


def test_forward_mode_of_such_a_tape(backend: str) -> None:
    whole, tape = (
        tape_of("lstm", "few rows", backend=backend, checkpoint_every=n) for n in (None, 20)
    )
    dx = np.ones((140, 2, I))
    for mine, theirs in zip(tape.jvp(dx)[1], whole.jvp(dx)[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": 1}, r"memory_limit: expected at least \d+ bytes"),
        ({"memory_limit": 2.5}, "memory_limit: expected an integer"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected an integer of at least 1"),
        ({"checkpoint_every": 2, "memory_limit": 9}, "expected one of them, got both"),
    ],
)
def test_budgets_that_are_none_are_refused(options: Any, message: str, backend: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tape_of("lstm", "few rows", backend=backend, **options)


def test_what_does_not_go_with_such_a_tape_says_so(backend: str) -> None:
    whole, tape = (
        tape_of("lstm", "few rows", backend=backend, checkpoint_every=n) for n in (None, 20)
    )
    for option in ("truncate", "detach_every"):
        with pytest.raises(ValueError, match="truncate, detach_every: expected neither"):
            tape.backward(tape.y, **{option: 3})
    with pytest.raises(AttributeError, match="keeps y alone"):
        _ = tape.c
    with pytest.raises(ValueError, match="expected neither beside out"):
        tape_of("lstm", "few rows", backend=backend, checkpoint_every=20, out=whole)
    with pytest.raises(ValueError, match="out: expected a tape without memory_limit"):
        tape_of("lstm", "few rows", backend=backend, out=tape)
    layers: Any = [bptt.init_params("gru", input_size=3, hidden_size=2, rng=0)]
    with pytest.raises(ValueError, match="memory_limit: expected None, as params are a stack"):
        bptt.forward("gru", layers, np.zeros((4, 2, 3), np.float32), memory_limit=1 << 20)


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("option", [{"reverse": True}, {"batch_first": True}])
def test_the_limit_holds_with_rows_that_are_moved(cell: str, option: dict[str, bool]) -> None:
    params = bptt.init_params(cell, input_size=8, hidden_size=16, rng=0)
    x = np.ones((1000, 4, 8) if "reverse" in option else (4, 1000, 8), "float32")
    limit = 3 << 18
    tape = bptt.forward(cell, params, x, memory_limit=limit, **option)
    assert tape.nbytes - tape.y.nbytes < limit
    # x in the layer's rows, and y, are always held.
    with pytest.raises(ValueError, match="memory_limit: expected at least"):
        bptt.forward(cell, params, x, memory_limit=x.nbytes, **option)
