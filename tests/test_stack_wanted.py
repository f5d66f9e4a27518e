"""What is not wanted of a stack is None, and costs nothing; what is wanted has the same bits."""

from __future__ import annotations

import tracemalloc
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends.native import NativeBackend
from bptt.grads import GRAD_NAMES
from bptt.states import as_tuple
from sequences import NAMED, Case
from test_stack_sequences import Call, call_of
from test_stacks import SHAPES, B, H, I, O, T, draw

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

READOUT = ("w_ho", "b_o")
WANTED: list[Any] = [
    "x",
    "state",
    "params",
    "w_hh",
    ("x", "b_ih"),
    ["state", "layers[0].w_ih"],
    {"layers[0]"},
    "top",
    ("top.w_hh", "x"),
    "top's last direction",
]
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
EACH_WANTED = pytest.mark.parametrize("wanted", WANTED, ids=str)


def arrays_of(grads: Any) -> dict[str, Any]:
    """All that is there, by name."""
    state = {} if grads.state is None else dict(enumerate(as_tuple(grads.state)))
    found = {"x": grads.x, **{f"state[{i}]": part for i, part in state.items()}, **grads.arrays()}
    return {name: array for name, array in found.items() if array is not None}


def written_out(wanted: Any, shape: tuple[int, ...]) -> Any:
    """The same with the number of the top layer."""
    top = f"layers[{len(shape) - 1}]"
    last = f"{top}[1]" if shape[-1] == 2 else top
    if isinstance(wanted, str):
        return wanted.replace("top's last direction", last).replace("top", top)
    return type(wanted)(name.replace("top", top) for name in wanted)


def is_wanted(name: str, wanted: Any) -> bool:
    """Whether the array of such a name was asked for by one of the names in `wanted`."""
    given = {wanted} if isinstance(wanted, str) else set(wanted)
    if not name.startswith("layers"):
        return name.partition("[")[0] in given
    place, parameter = name.rsplit(".", 1)
    places = {place, place.partition("]")[0] + "]"}  # the direction, and the layer
    of_places = {f"{each}.{parameter}" for each in places}
    return bool(given & ({"params", parameter} | places | of_places))


def check(found: Any, whole: Any, wanted: Any) -> None:
    found, whole = arrays_of(found), arrays_of(whole)
    assert set(found) == {name for name in whole if is_wanted(name, wanted)}
    for name, array in found.items():
        np.testing.assert_array_equal(array, whole[name], err_msg=name)


def target_of(call: Call, at: str) -> np.ndarray:
    rng, case = np.random.default_rng(5), call.case
    ids = rng.integers(0, O, (case.steps, case.batch))
    return case.given(ids) if at == "all" else ids.max(axis=0, initial=0)


def value_and_grad(cell: str, call: Call, backend: str, at: str = "all", **options: Any) -> Any:
    return bptt.value_and_grad(
        cell, call.layers, call.x, target_of(call, at), loss="cross_entropy", at=at,
        state=call.state, backend=backend, **call.case.options, **options,
    )  # fmt: skip


@EACH_SHAPE
@EACH_WANTED
def test_what_is_wanted_of_a_tape_is_what_it_is_among_all(
    wanted: Any, shape: tuple[int, ...], cell: str, backend: str
) -> None:
    call, wanted = call_of(NAMED["plain"], cell, shape), written_out(wanted, shape)
    for save in ("gates", "minimal"):
        tape = bptt.forward(cell, call.layers, call.x, call.state, backend=backend, save=save)
        whole = tape.backward(call.dy, call.dstate)
        check(tape.backward(call.dy, call.dstate, wanted=wanted), whole, wanted)


@pytest.mark.parametrize("at", ["all", "last"])
@EACH_SHAPE
@pytest.mark.parametrize("wanted", [*WANTED, *READOUT, ("x", "w_ho"), "top.w_ho"], ids=str)
def test_what_is_wanted_of_a_loss_is_what_it_is_among_all(
    wanted: Any, shape: tuple[int, ...], at: str, cell: str, backend: str
) -> None:
    call, wanted = call_of(NAMED["plain"], cell, shape), written_out(wanted, shape)
    loss, whole, state = value_and_grad(cell, call, backend, at, return_state=True)
    again, found, last = value_and_grad(cell, call, backend, at, return_state=True, wanted=wanted)
    assert again == loss
    check(found, whole, wanted)
    for one, other in zip(as_tuple(last), as_tuple(state), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("shape", [(1, 1), (2,), (1, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("wanted", ["x", "state", ("w_hh", "layers[0]"), "layers[0].b_ih"], ids=str)
def test_what_is_wanted_of_sequences_of_any_kind(
    wanted: Any, shape: tuple[int, ...], name: str, cell: str, backend: str
) -> None:
    call = call_of(NAMED[name], cell, shape)
    tape = bptt.forward(cell, call.layers, call.x, call.state, backend=backend, **call.case.options)
    whole = tape.backward(call.dy, call.dstate)
    check(tape.backward(call.dy, call.dstate, wanted=wanted), whole, wanted)
    _, whole = value_and_grad(cell, call, backend)
    check(value_and_grad(cell, call, backend, wanted=wanted)[1], whole, wanted)


@pytest.mark.parametrize("name", ["plain", "all of padded rows"])
@pytest.mark.parametrize("accumulate", [False, True])
@EACH_SHAPE
@pytest.mark.parametrize("wanted", ["x", "state", ("w_hh", "b_o"), "params", "top"], ids=str)
def test_only_what_is_wanted_is_written(
    wanted: Any, shape: tuple[int, ...], accumulate: bool, name: str, cell: str, backend: str
) -> None:
    call, wanted = call_of(NAMED[name], cell, shape), written_out(wanted, shape)
    whole = arrays_of(value_and_grad(cell, call, backend)[1])
    out, sparse = (value_and_grad(cell, call, backend)[1] for _ in range(2))
    for array in (*arrays_of(out).values(), *arrays_of(sparse).values()):
        array[...] = 7
    for where in ("x", "state"):
        if not is_wanted(where, wanted):
            setattr(sparse, where, None)
    for place, params in zip(sparse.as_stack().names, sparse.directions, strict=True):
        for each in GRAD_NAMES[2:]:
            if not is_wanted(f"layers{place}.{each}", wanted):
                setattr(params, each, None)
    for given in (out, sparse):
        _, found = value_and_grad(
            cell, call, backend, wanted=wanted, out=given, accumulate=accumulate
        )
        assert found is given
    assert set(arrays_of(sparse)) == {each for each in whole if is_wanted(each, wanted)}
    for each, array in arrays_of(out).items():
        if not is_wanted(each, wanted):
            np.testing.assert_array_equal(array, 7)
            continue
        expected = whole[each] + 7 * accumulate
        np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-11, err_msg=each)
        np.testing.assert_array_equal(array, arrays_of(sparse)[each])


def test_the_way_back_ends_at_the_lowest_layer_of_which_something_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = call_of(NAMED["plain"], "lstm", (2, 1, 1))
    forwards: list[tuple[Any, str]] = []
    backwards: list[tuple[Any, set[str]]] = []
    forward, backward = NativeBackend.forward, NativeBackend.backward

    def spied_forward(self: Any, layer: Any, save: str, out: Any = None) -> Any:
        forwards.append((layer.params.w_ih.shape, save))
        return forward(self, layer, save, out)

    def spied_backward(self: Any, layer: Any, record: Any, incoming: Any, request: Any) -> Any:
        backwards.append((layer.params.w_ih.shape, set(request.wanted)))
        return backward(self, layer, record, incoming, request)

    monkeypatch.setattr(NativeBackend, "forward", spied_forward)
    monkeypatch.setattr(NativeBackend, "backward", spied_backward)
    lowest, middle, top = (4 * H, I), (4 * H, 2 * H), (4 * H, H)

    value_and_grad("lstm", call, "native", wanted="layers[1].w_hh")
    assert forwards == [(lowest, "minimal"), (lowest, "minimal"), (middle, "gates")]
    assert backwards == [(middle, {"w_hh"})]
    forwards.clear()
    backwards.clear()
    value_and_grad("lstm", call, "native", wanted="b_o")
    assert [save for _, save in forwards] == ["minimal"] * 3
    assert not backwards

    tape = bptt.forward("lstm", call.layers, call.x, backend="native")
    tape.backward(call.dy, wanted=("layers[0][1].w_ih", "layers[2].b_ih"))
    assert backwards == [(top, {"x", "b_ih"}), (middle, {"x"}), (lowest, {"w_ih"})]
    backwards.clear()
    tape.backward(call.dy, wanted="x")
    assert backwards == [(top, {"x"}), (middle, {"x"}), (lowest, {"x"}), (lowest, {"x"})]


def test_a_readout_alone_takes_no_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    call = call_of(NAMED["plain"], "lstm", (1, 2))
    _, whole = value_and_grad("lstm", call, "native")
    monkeypatch.delattr(NativeBackend, "backward")
    _, found = value_and_grad("lstm", call, "native", wanted=READOUT)
    check(found, whole, READOUT)


def test_layers_below_what_is_wanted_keep_nothing() -> None:
    call = call_of(Case(400, 20), "lstm", (1, 1, 1, 1))
    peaks = {}
    for wanted in ("params", "layers[3]"):
        tracemalloc.start()
        value_and_grad("lstm", call, "native", wanted=wanted)
        peaks[wanted] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    states = 400 * 20 * H * 8
    # Of each of three layers h, c and the four gates; but h and c of two layers at a time.
    assert peaks["params"] > 3 * 6 * states
    assert peaks["layers[3]"] < 6 * states


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ("w_xh", ValueError, r"one of x, state, w_ih, .*params, layers\[0\], .*, got 'w_xh'"),
        ((), ValueError, "wanted: expected at least one of x, state, w_ih, .*, got none"),
        (("x", "layers[2]"), ValueError, r"wanted: expected one of .* got 'layers\[2\]'"),
        ("layers[1][0]", ValueError, r"wanted: expected one of .* got 'layers\[1\]\[0\]'"),
        ("layers[0][1].x", ValueError, r"wanted: expected one of .* got 'layers\[0\]\[1\].x'"),
        (("x", 3), TypeError, "wanted: expected a string, got int"),
        (3, TypeError, "wanted: expected a name or a tuple of names, got int"),
    ],
    ids=str,
)
def test_a_name_that_is_none_of_a_gradient_is_refused_before_anything_is_written(
    wanted: Any, error: type[Exception], message: str
) -> None:
    call = call_of(NAMED["plain"], "tanh", (2, 1))
    out = bptt.Grads.zeros(call.layers, call.case.steps, call.case.batch)
    tape = bptt.forward("tanh", call.layers, call.x, call.state)
    with pytest.raises(error, match=message):
        tape.backward(call.dy, wanted=wanted, out=out)
    with pytest.raises(error, match=message):
        value_and_grad("tanh", call, "auto", wanted=wanted, out=out)
    assert not any(array.any() for array in arrays_of(out).values())


def test_a_tape_has_no_readout_whose_gradient_could_be_wanted() -> None:
    tape = bptt.forward("tanh", draw("tanh", (1, 1)), np.ones((T, B, I)))
    for wanted in ("w_ho", "layers[1].w_ho"):
        with pytest.raises(ValueError, match=r"wanted: expected one of x, .*b_hh, params, layers"):
            tape.backward(tape.y, wanted=wanted)


def test_what_is_wanted_must_be_in_out() -> None:
    layers = draw("tanh", (1, 1))
    tape = bptt.forward("tanh", layers, np.ones((T, B, I)))
    out: Any = bptt.Grads.zeros(layers, T, B)
    out.layers[0].w_hh = out.x = None
    with pytest.raises(ValueError, match=r"got one without layers\[0\].w_hh"):
        tape.backward(tape.y, wanted=("w_hh", "state"), out=out)
    with pytest.raises(TypeError, match=r"out.x: expected a NumPy array, got NoneType"):
        tape.backward(tape.y, wanted="x", out=out)
    tape.backward(tape.y, wanted=("layers[1]", "state"), out=out)
    assert out.layers[1].w_hh.any()
    out.layers.pop()
    with pytest.raises(ValueError, match="nested as params, got one of 1 layers"):
        tape.backward(tape.y, wanted="state", out=out)


def test_gradients_of_which_some_are_missing_are_shown() -> None:
    layers = draw("tanh", (1, 2))
    tape = bptt.forward("tanh", layers, np.ones((T, B, I)))
    grads = tape.backward(tape.y, wanted="layers[0].w_ih")
    assert repr(grads) == "StackGrads(2 layers, dtype=float64)"
    assert repr(grads.layers[0]) == f"Params(w_ih=({H}, {I}), dtype=float64)"
    assert "x=(7, 3, 4), state=(3, 3, 5), 2 layers" in repr(tape.backward(tape.y))
