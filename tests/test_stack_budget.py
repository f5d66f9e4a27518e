"""A stack under a budget: the bits of one that keeps all states, within what the budget says."""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends.native import NativeBackend
from bptt.stacked import segments
from bptt.states import as_tuple
from sequences import LONG_CASES as CASES
from sequences import Case
from test_stack_sequences import call_of
from test_stack_wanted import arrays_of, target_of

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

native = pytest.mark.skipif(NativeBackend().missing() is not None, reason="no compiled module")

SHAPES = {"one": (1,), "three": (1, 1, 1)}
EACH_CASE = pytest.mark.parametrize("name", CASES)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture(params=[name for name in ("native", "numpy") if bptt.backends()[name].available])
def backend(request: pytest.FixtureRequest) -> str:
    """With kernels for parts, and without; numba goes numpy's way."""
    return request.param


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[segments.Segments]:
    """How passes were cut, filled by each of them."""
    found: list[segments.Segments] = []
    run = segments.Cut.run

    def spied(self: segments.Cut, *args: Any) -> Any:
        found.append(self.segments)
        return run(self, *args)

    monkeypatch.setattr(segments.Cut, "run", spied)
    return found


def value_and_grad(
    cell: str, name: str, shape: tuple[int, ...], at: Any = "all", **options: Any
) -> tuple[float, dict[str, Any]]:
    """The loss; gradients and the final states, by name."""
    call = call_of(CASES[name], cell, shape)
    target = target_of(call, "all" if at == "all" else "last")
    loss, grads, last = bptt.value_and_grad(
        cell, call.layers, call.x, target, loss="cross_entropy", at=at, state=call.state,
        return_state=True, **call.case.options, **options,
    )  # fmt: skip
    return loss, {**arrays_of(grads), **{f"last[{i}]": s for i, s in enumerate(as_tuple(last))}}


def check(found: Any, wanted: Any, *, exact: bool = True) -> None:
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    same = np.testing.assert_array_equal if exact else close
    same(found[0], wanted[0])
    assert found[1].keys() == wanted[1].keys()
    for name, array in wanted[1].items():
        same(found[1][name], array, err_msg=name)


@pytest.mark.parametrize("at", ["all", "last", 47])
@EACH_CASE
@EACH_SHAPE
@pytest.mark.parametrize("steps", [5, 20])
def test_segments_change_no_bit(
    steps: int, shape: tuple[int, ...], name: str, at: Any, cell: str, backend: str, cut: list[Any]
) -> None:
    run = partial(value_and_grad, cell, name, shape, at, backend=backend)
    check(run(checkpoint_every=steps), run(), exact=backend == "native")
    assert cut[0].count > 1


@native
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", ["relu", "lstm", "gru"])
@EACH_CASE
def test_nor_do_threads(
    kind: str, threads: int, name: str, keep_num_threads: None, cut: list[Any]
) -> None:
    wanted = value_and_grad(kind, name, (1, 1), backend="native")
    bptt.set_num_threads(threads)
    check(value_and_grad(kind, name, (1, 1), backend="native", checkpoint_every=20), wanted)
    assert cut


@pytest.mark.parametrize("wanted", ["x", "params", ("state", "w_ho"), "layers[1]", "layers[2].b_o"])
@pytest.mark.parametrize("per_row", [None, "norm", "gradient"])
@pytest.mark.parametrize("name", ["few rows", "reverse"])
def test_some_gradients_and_those_of_each_row(
    wanted: Any, per_row: Any, name: str, backend: str, cut: list[Any]
) -> None:
    run = partial(
        value_and_grad, "gru", name, (1, 1, 1), wanted=wanted, per_row=per_row, backend=backend
    )
    check(run(checkpoint_every=20), run(), exact=backend == "native")
    assert cut


@pytest.mark.parametrize("name", ["many rows", "reset"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_arrays_that_are_there_are_written_or_added_to(
    accumulate: bool, name: str, backend: str
) -> None:
    outs = []
    for budget in ({}, {"checkpoint_every": 20}):
        call = call_of(CASES[name], "lstm", (1, 1))
        data = (call.layers, call.x, target_of(call, "all"))
        run = partial(
            bptt.value_and_grad, "lstm", *data, loss="cross_entropy", at="all", backend=backend
        )
        _, out = run(**call.case.options)
        for array in arrays_of(out).values():
            array[...] = 0.25
        _, found = run(**call.case.options, out=out, accumulate=accumulate, **budget)
        assert found is out
        outs.append((0, arrays_of(out)))
    check(outs[1], outs[0], exact=backend == "native")


def least(call: Any) -> int:
    """What a call under a limit of one byte says that it takes."""
    with pytest.raises(ValueError, match=r"memory_limit: expected at least \d+ bytes") as error:
        call(memory_limit=1)
    return int(str(error.value).split("at least ")[1].split()[0])


@native
@pytest.mark.parametrize("where", ["least", "between"])
def test_a_limit_is_kept_and_changes_no_bit(where: str, cut: list[Any]) -> None:
    """Of very many segments only the borders of groups are kept."""
    layers = [
        bptt.init_params("lstm", input_size=8, hidden_size=24, rng=0),
        bptt.init_params("lstm", input_size=24, hidden_size=24, output_size=3, rng=1),
    ]
    x = np.random.default_rng(2).standard_normal((20_000, 1, 8), np.float32)
    ids = np.zeros((20_000, 1), int)
    out = bptt.Grads.zeros(layers, 20_000, 1, cell="lstm")
    run = partial(
        bptt.value_and_grad, "lstm", layers, x, ids, loss="cross_entropy", at="all", out=out
    )
    loss, grads = run()
    wanted = {name: array.copy() for name, array in arrays_of(grads).items()}
    limit = least(run) * (1 if where == "least" else 4)
    tracemalloc.start()
    again, grads = run(memory_limit=limit)
    peak = tracemalloc.get_traced_memory()[1]  # beside the scratch of kernels
    tracemalloc.stop()
    assert (cut[0].group < cut[0].count) == (where == "least")
    assert peak < limit < x.nbytes * 4
    check((again, arrays_of(grads)), (loss, wanted))
    with pytest.raises(ValueError, match="memory_limit: expected at least"):
        run(memory_limit=least(run) - 1)


def test_a_pass_within_its_limit_is_not_cut(backend: str, cut: list[Any]) -> None:
    run = partial(value_and_grad, "lstm", "many rows", (1, 1), backend=backend)
    check(run(memory_limit=1 << 30), run())
    assert not cut


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": 1}, r"memory_limit: expected at least \d+ bytes"),
        ({"memory_limit": 0}, "memory_limit: expected an integer of at least 1"),
        ({"checkpoint_every": 2.5}, "checkpoint_every: expected an integer"),
        ({"checkpoint_every": 2, "memory_limit": 1 << 30}, "expected one of them, got both"),
        ({"per_row": "norm", "memory_limit": 1 << 30}, "per_row: expected no memory_limit"),
        ({"detach_every": 5, "checkpoint_every": 5}, "detach_every: expected None"),
    ],
)
def test_budgets_that_are_none_are_refused(options: Any, message: str, backend: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        value_and_grad("lstm", "few rows", (1, 1), backend=backend, **options)


@pytest.mark.parametrize("name", ["memory_limit", "checkpoint_every"])
def test_a_layer_in_both_directions_is_refused_by_its_place(name: str, backend: str) -> None:
    options: Any = {name: 1 << 30}
    with pytest.raises(ValueError, match=rf"{name}: .* params\[1\] is a layer in both directions"):
        value_and_grad("gru", "few rows", (1, 2), backend=backend, **options)


@pytest.mark.parametrize("case", [Case(0, 3), Case(5, 0)], ids=["no steps", "no rows"])
def test_nothing_needs_no_budget(case: Case, cell: str, backend: str) -> None:
    call = call_of(case, cell, (1, 1))
    loss, grads = bptt.value_and_grad(
        cell, call.layers, call.x, target_of(call, "all"), loss="cross_entropy", at="all",
        backend=backend, checkpoint_every=2,
    )  # fmt: skip
    assert loss == 0
    assert not any(array.any() for array in arrays_of(grads).values())
