"""A stack of layers is its layers one on the other: the same bits, and PyTorch's numbers."""

from __future__ import annotations

import re
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

T, B, I, H, O = 7, 3, 4, 5, 2  # noqa: E741
CELLS = tuple(bptt.CELLS)
# What a stack may be: of each layer, how many directions it has.
SHAPES = {"one": (1,), "both": (2,), "two": (1, 1), "mixed": (2, 1), "mixed too": (1, 2, 2)}


def draw(cell: str, shape: tuple[int, ...], **options: Any) -> list[Any]:
    """Layers with so many directions each; the top has a readout."""
    layers, inputs = [], I
    for k, directions in enumerate(shape):
        top = k == len(shape) - 1
        pair = bptt.init_params(
            cell,
            input_size=inputs,
            hidden_size=H,
            output_size=O if top else None,
            layers=1,
            bidirectional=directions == 2,
            rng=k,
            dtype="float64",
            **options,
        )
        layers += pair
        inputs = directions * H
    return layers


def states(cell: str, shape: tuple[int, ...], seed: int = 1) -> Any:
    """(L*D, B, H), of an LSTM two of them."""
    rng = np.random.default_rng(seed)
    return as_given(tuple(rng.standard_normal((sum(shape), B, H)) for _ in bptt.CELLS[cell].states))


def of_direction(state: Any, k: int) -> Any:
    return as_given(tuple(part[k] for part in as_tuple(state)))


X = np.random.default_rng(2).standard_normal((T, B, I))
TARGET = np.random.default_rng(3).standard_normal((T, B, O))


def same(a: Any, b: Any) -> bool:
    """Whether two arrays, or tuples of them, are the same bits."""
    return all(
        x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(as_tuple(a), as_tuple(b), strict=True)
    )


def by_name(grads: Any) -> dict[str, np.ndarray]:
    parts = {f"state[{i}]": part for i, part in enumerate(as_tuple(grads.state))}
    return {"x": grads.x, **parts, **grads.arrays()}


# --- bits ----------------------------------------------------------------------------------------


def test_a_stack_of_one_layer_is_the_layer(cell: str, backend: str) -> None:
    (params,), state = draw(cell, (1,)), states(cell, (1,))
    dy, dstate = np.random.default_rng(4).standard_normal((T, B, H)), states(cell, (1,), 5)
    one = bptt.forward(cell, params, X, of_direction(state, 0), backend=backend)
    tape = bptt.forward(cell, [params], X, state, backend=backend)
    assert same(tape.y, one.y)
    assert same(of_direction(tape.state, 0), one.state)
    wanted = one.backward(dy, of_direction(dstate, 0))
    found = tape.backward(dy, dstate)
    assert same(found.x, wanted.x)
    assert same(of_direction(found.state, 0), wanted.state)
    for name, array in wanted.arrays().items():
        assert same(found.arrays()[f"layers[0].{name}"], array), name


@pytest.mark.parametrize("at", ["last", "all", 2])
def test_the_loss_of_a_stack_of_one_layer_is_that_of_the_layer(
    cell: str, at: Any, backend: str
) -> None:
    (params,), state = draw(cell, (1,)), states(cell, (1,))
    target = TARGET if at == "all" else TARGET[0]
    options: dict[str, Any] = {"loss": "squared_error", "at": at, "backend": backend}
    options["return_state"] = True
    loss, wanted, last = bptt.value_and_grad(
        cell, params, X, target, state=of_direction(state, 0), **options
    )
    value, found, final = bptt.value_and_grad(cell, [params], X, target, state=state, **options)
    assert value == loss
    assert same(of_direction(final, 0), last)
    assert same(found.x, wanted.x)
    assert same(of_direction(found.state, 0), wanted.state)
    for name, array in wanted.arrays().items():
        assert same(found.arrays()[f"layers[0].{name}"], array), name


def test_layers_chained_by_hand_give_the_bits_of_their_stack(cell: str, backend: str) -> None:
    (forward, reverse), top = layers = draw(cell, (2, 1))
    state, dstate = states(cell, (2, 1)), states(cell, (2, 1), 5)
    dy = np.random.default_rng(4).standard_normal((T, B, H))
    tape = bptt.forward(cell, layers, X, state, backend=backend)
    grads = tape.backward(dy, dstate)

    def run(params: bptt.Params, x: np.ndarray, k: int) -> bptt.Tape:
        return bptt.forward(cell, params, x, of_direction(state, k), backend=backend)

    a, b = run(forward, X, 0), run(reverse, X[::-1], 1)
    c = run(top, np.concatenate([a.y, b.y[::-1]], axis=-1), 2)
    assert same(tape.y, c.y)
    for k, each in enumerate((a, b, c)):
        assert same(of_direction(tape.state, k), each.state)
    of_top = c.backward(dy, of_direction(dstate, 2))
    of_a = a.backward(of_top.x[..., :H], of_direction(dstate, 0))
    of_b = b.backward(of_top.x[::-1, :, H:], of_direction(dstate, 1))
    assert same(grads.x, of_a.x + of_b.x[::-1])
    (d_forward, d_reverse), d_top = grads.layers
    for k, (found, wanted) in enumerate(((d_forward, of_a), (d_reverse, of_b), (d_top, of_top))):
        assert same(of_direction(grads.state, k), wanted.state)
        for name, array in wanted.arrays().items():
            assert same(getattr(found, name), array), (k, name)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_saving_less_changes_no_bit(cell: str, shape: tuple[int, ...]) -> None:
    layers, dy = draw(cell, shape), np.ones((T, B, shape[-1] * H))
    found = [
        by_name(bptt.forward(cell, layers, X, save=save).backward(dy))
        for save in ("gates", "minimal")
    ]
    assert all(same(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_row_does_not_depend_on_the_batch(cell: str, shape: tuple[int, ...]) -> None:
    layers, state = draw(cell, shape), states(cell, shape)
    whole = bptt.forward(cell, layers, X, state)
    row = as_given(tuple(part[:, 1:2].copy() for part in as_tuple(state)))
    alone = bptt.forward(cell, layers, X[:, 1:2], row)
    assert same(alone.y, np.ascontiguousarray(whole.y[:, 1:2]))
    dy = np.random.default_rng(4).standard_normal(whole.y.shape)
    dx = whole.backward(dy).x[:, 1:2]
    assert same(alone.backward(dy[:, 1:2]).x, np.ascontiguousarray(dx))


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["last", "all", 2, "weights"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_gradients_are_those_of_differences(
    cell: str, shape: tuple[int, ...], at: Any, loss: str, backend: str
) -> None:
    layers, state = draw(cell, shape), states(cell, shape)
    ids = np.random.default_rng(3).integers(0, O, (T, B))
    target: Any = TARGET if loss == "squared_error" else ids
    if at == "weights":
        at = np.random.default_rng(6).uniform(size=(T, B)) + 0.1
    elif at != "all":
        target = target[0]
    found = bptt.check_gradients(
        cell, layers, X, target, loss=loss, at=at, state=state, backend=backend, entries=4
    )
    assert found, str(found)
    assert found.checked > 4 * len(layers)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_loss_and_a_tape_have_the_same_gradients(
    cell: str, shape: tuple[int, ...], backend: str
) -> None:
    layers, state = draw(cell, shape), states(cell, shape)
    loss, grads, last = bptt.value_and_grad(
        cell, layers, X, TARGET, loss="squared_error", at="all", reduction="sum", state=state,
        backend=backend, return_state=True,
    )  # fmt: skip
    tape = bptt.forward(cell, layers, X, state, backend=backend)
    top = layers[-1] if isinstance(layers[-1], tuple) else (layers[-1],)
    w_ho = np.concatenate([params.w_ho for params in top], axis=1)
    missed = tape.y @ w_ho.T + top[0].b_o - TARGET
    assert np.isclose(loss, 0.5 * np.sum(missed**2), rtol=1e-12)
    assert same(last, tape.state)
    wanted = by_name(tape.backward(missed @ w_ho))
    found = by_name(grads)
    for name, array in wanted.items():
        assert np.allclose(found[name], array, rtol=1e-11, atol=1e-11), name
    d_w_ho = np.einsum("tbo,tbh->oh", missed, tape.y)
    for d, part in enumerate(np.split(d_w_ho, len(top), axis=1)):
        where = f"layers[{len(layers) - 1}]" + (f"[{d}]" if len(top) == 2 else "")
        assert np.allclose(found[f"{where}.w_ho"], part, rtol=1e-11, atol=1e-11)
    assert len(found) == len(wanted) + len(top) + 1  # and one b_o


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_go_where_the_caller_wants_them_and_add_up(
    cell: str, shape: tuple[int, ...], backend: str
) -> None:
    layers, state = draw(cell, shape), states(cell, shape)
    options: dict[str, Any] = {"loss": "squared_error", "at": "all", "state": state}
    options["backend"] = backend
    _, fresh = bptt.value_and_grad(cell, layers, X, TARGET, **options)
    out = bptt.Grads.zeros(layers, T, B, cell=cell)
    for array in by_name(out).values():
        array[...] = np.nan
    _, found = bptt.value_and_grad(cell, layers, X, TARGET, out=out, **options)
    assert found is out
    wanted = by_name(fresh)
    assert all(same(array, wanted[name]) for name, array in by_name(out).items())
    bptt.value_and_grad(cell, layers, X, TARGET, out=out, accumulate=True, **options)
    for name, array in by_name(out).items():
        assert np.allclose(array, 2 * wanted[name], rtol=1e-12, atol=1e-12), name

    tape = bptt.forward(cell, layers, X, state, backend=backend)
    wanted = by_name(tape.backward(tape.y))
    before = {name: array.copy() for name, array in by_name(out).items() if name not in wanted}
    assert tape.backward(tape.y, out=out) is out
    assert all(same(by_name(out)[name], array) for name, array in wanted.items())
    assert tape.backward(tape.y, out=out, accumulate=True) is out
    for name, array in wanted.items():
        assert np.allclose(by_name(out)[name], 2 * array, rtol=1e-12, atol=1e-12), name
    assert before, "those of the readout"
    assert all(same(by_name(out)[name], array) for name, array in before.items())


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (5, 0), (1, 1)])
def test_stacks_without_rows_have_states_all_the_same(cell: str, steps: int, batch: int) -> None:
    layers, x = draw(cell, (2, 1)), X[:steps, :batch]
    tape = bptt.forward(cell, layers, x)
    assert tape.y.shape == (*x.shape[:2], H)
    grads = tape.backward(tape.y)
    assert grads.x.shape == x.shape
    assert all(part.shape == (3, batch, H) for part in as_tuple(grads.state))
    for shape in ((2, 1), (1, 2)):
        loss, grads = bptt.value_and_grad(
            cell, draw(cell, shape), x, TARGET[:steps, :batch], loss="squared_error", at="all"
        )
        some = steps * batch > 0
        assert (loss > 0) == some
        assert some or not any(array.any() for array in grads.arrays().values())


def test_layers_of_a_state_of_their_own_memory_can_be_released(cell: str) -> None:
    layers = draw(cell, (1, 2))
    with bptt.forward(cell, layers, X) as tape:
        assert tape.nbytes > 2 * X.nbytes
        assert "2 layers" in repr(tape)
    assert tape.nbytes == 0
    with pytest.raises(RuntimeError, match="released"):
        tape.backward(np.ones((T, B, 2 * H)))
    with pytest.raises(RuntimeError, match="released"):
        _ = tape.y
    assert "released" in repr(tape)
    tape.release()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_tape_is_recorded_into_again(cell: str, shape: tuple[int, ...], backend: str) -> None:
    layers, state = draw(cell, shape), states(cell, shape)
    tape = bptt.forward(cell, layers, np.zeros_like(X), backend=backend)
    fresh = bptt.forward(cell, layers, X, state, backend=backend)
    assert bptt.forward(cell, layers, X, state, backend=backend, out=tape) is tape
    assert same(tape.y, fresh.y)
    assert same(tape.state, fresh.state)
    dy = np.random.default_rng(4).standard_normal(tape.y.shape)
    wanted = by_name(fresh.backward(dy))
    assert all(same(array, wanted[name]) for name, array in by_name(tape.backward(dy)).items())
    on = bptt.forward(cell, layers, X, fresh.state, backend=backend)
    bptt.forward(cell, layers, X, tape.state, backend=backend, out=tape)
    assert same(tape.y, on.y)


def test_a_tape_of_other_layers_cannot_be_recorded_into() -> None:
    layers: Any = [BOTTOM, TOP]
    tape: Any = bptt.forward("lstm", layers, X4)
    before = tape.y.copy()
    one: Any = bptt.forward("lstm", BOTTOM, X4)
    for changed, error, words in (
        ({"out": one}, TypeError, "out: expected bptt.StackTape, got Tape"),
        ({"params": [BOTTOM]}, ValueError, r"layers with the directions \(1,\), got .* \(1, 1\)"),
        ({"save": "minimal"}, ValueError, "out: expected a tape of save 'minimal'"),
        ({"backend": "numpy"}, ValueError, "out: expected a tape of backend 'numpy'"),
        ({"x": X4[:3]}, ValueError, r"out: expected shape \(3, 3, 5\)"),
        ({"lengths": [T, 1, 1]}, ValueError, "out: expected a tape of the same lengths"),
    ):
        call: dict[str, Any] = {"params": layers, "x": X4, "out": tape, **changed}
        with pytest.raises(error, match=words):
            bptt.forward("lstm", **call)
    assert same(tape.y, before)
    square: Any = bptt.forward("lstm", [TOP, TOP], before)
    with pytest.raises(ValueError, match="x: expected memory apart from out, got a part of it"):
        bptt.forward("lstm", [TOP, TOP], square.y, out=square)
    tape.release()
    with pytest.raises(RuntimeError, match="got a released one"):
        bptt.forward("lstm", layers, X4, out=tape)


def test_assigning_other_arrays_does_not_reach_a_tape() -> None:
    layers = draw("tanh", (1, 1))
    tape = bptt.forward("tanh", layers, X)
    wanted = by_name(tape.backward(tape.y))
    layers[0].w_hh = 2 * layers[0].w_hh
    layers[1] = layers[0]
    assert all(same(array, wanted[name]) for name, array in by_name(tape.backward(tape.y)).items())


# --- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["all", "last", 2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_predictions_are_the_readout_of_the_top(
    cell: str, shape: tuple[int, ...], at: Any, backend: str
) -> None:
    layers, state = draw(cell, shape), states(cell, shape)
    tape = bptt.forward(cell, layers, X, state, backend=backend)
    outputs, last = bptt.predict(cell, layers, X, state, at=at, backend=backend)
    top = layers[-1] if isinstance(layers[-1], tuple) else (layers[-1],)
    w_ho = np.concatenate([params.w_ho for params in top], axis=1)
    y = tape.y if at == "all" else tape.y[{"last": -1}.get(at, at)]
    assert np.allclose(outputs, y @ w_ho.T + top[0].b_o, rtol=1e-12, atol=1e-12)
    assert same(last, tape.state)


def test_predictions_of_a_stack_of_one_layer_are_those_of_the_layer(
    cell: str, backend: str
) -> None:
    (params,) = draw(cell, (1,))
    for at in ("all", "last"):
        wanted = bptt.predict(cell, params, X, at=at, backend=backend)
        found = bptt.predict(cell, [params], X, at=at, backend=backend)
        assert same(found.outputs, wanted.outputs)
        assert same(of_direction(found.state, 0), wanted.state)


# --- what is drawn -------------------------------------------------------------------------------


def test_drawn_layers_meet_and_the_top_has_the_readout(cell: str) -> None:
    options: dict[str, Any] = {"input_size": I, "hidden_size": H, "output_size": O, "rng": 0}
    (a, b), (c, d) = bptt.init_params(cell, layers=2, bidirectional=True, **options)
    assert [p.input_size for p in (a, b, c, d)] == [I, I, 2 * H, 2 * H]
    assert [p.output_size for p in (a, b, c, d)] == [None, None, O, O]
    assert d.b_o is None
    assert c.b_o is not None
    assert not np.array_equal(a.w_ih, b.w_ih)
    (one,) = bptt.init_params(cell, layers=1, **options)
    plain = bptt.init_params(cell, **options)
    assert all(same(array, plain.arrays()[name]) for name, array in one.arrays().items())


# --- bad input -----------------------------------------------------------------------------------

BOTTOM = bptt.init_params("lstm", input_size=I, hidden_size=H, rng=0)
TOP = bptt.init_params("lstm", input_size=H, hidden_size=H, output_size=O, rng=1)
WIDE = bptt.init_params("lstm", input_size=2 * H, hidden_size=H, output_size=O, rng=1)
X4 = X.astype(np.float32)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([], ValueError, "params: expected one layer at least, got an empty list"),
        ([BOTTOM, 1], TypeError, "params[1]: expected bptt.Params, got int"),
        ([BOTTOM, (TOP, None)], TypeError, "params[1][1]: expected bptt.Params, got NoneType"),
        (
            [BOTTOM, (TOP, TOP, TOP)],
            ValueError,
            "params[1]: expected bptt.Params, or a pair (forward, reverse) of them, got a tuple of "
            "length 3",
        ),
        (
            [BOTTOM, WIDE],
            ValueError,
            "params[1]: expected input_size=5 to match the y of params[0], got 10",
        ),
        (
            [(BOTTOM, BOTTOM), TOP],
            ValueError,
            "params[1]: expected input_size=10 to match the y of params[0], got 5",
        ),
        (
            (BOTTOM, BOTTOM),
            ValueError,
            "params[1]: expected input_size=5 to match the y of params[0], got 4; a layer in both "
            "directions is a pair in the list, [(forward, reverse)]",
        ),
        (
            [(BOTTOM, TOP)],
            ValueError,
            "params[0][1]: expected input_size=4 like the forward direction, got 5",
        ),
        (
            [BOTTOM, bptt.init_params("lstm", input_size=H, hidden_size=3, rng=0)],
            ValueError,
            "params[1]: expected w_hh of shape (20, 5) like that of the first layer",
        ),
        (
            [BOTTOM, TOP.astype("float64")],
            TypeError,
            "params[1]: expected dtype float32 like params[0], got float64",
        ),
        (
            [BOTTOM, bptt.init_params("gru", input_size=H, hidden_size=H, rng=0)],
            ValueError,
            "params[1]: w_hh: expected shape (20, 5) for cell 'lstm'",
        ),
    ],
)  # fmt: skip
def test_layers_that_do_not_meet_are_named(
    params: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        bptt.forward("lstm", params, X4)
    with pytest.raises(error, match=re.escape(message)):
        bptt.value_and_grad("lstm", params, X4, TARGET, loss="squared_error", at="all")


def with_readout(params: bptt.Params, **more: Any) -> bptt.Params:
    return bptt.Params(**{**params.arrays(), **more})


W_HO = np.ones((O, H), np.float32)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            [BOTTOM],
            "params[0]: value_and_grad needs the readout weights w_ho of the top layer, got",
        ),
        (
            [(with_readout(BOTTOM, w_ho=W_HO), BOTTOM)],
            "params[0][1]: value_and_grad needs the readout weights w_ho of the top layer, of each "
            "direction, got None",
        ),
        (
            [with_readout(BOTTOM, w_ho=W_HO), TOP],
            "params[0]: expected a readout on the top layer alone, got w_ho",
        ),
        (
            [(with_readout(BOTTOM, w_ho=W_HO), with_readout(BOTTOM, w_ho=W_HO[:1]))],
            "params[0][1]: expected w_ho with 2 rows like that of the forward direction, got 1",
        ),
        (
            [(with_readout(BOTTOM, w_ho=W_HO), with_readout(BOTTOM, w_ho=W_HO, b_o=W_HO[:, 0]))],
            "params[0][1]: expected b_o in the forward direction alone",
        ),
    ],
)
def test_a_readout_stands_on_top(params: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        bptt.value_and_grad(
            "lstm", params, X4, TARGET.astype(np.float32), loss="squared_error", at="all"
        )


def test_states_and_gradients_of_a_stack_have_a_row_for_each_layer() -> None:
    h = np.zeros((2, B, H), np.float32)
    tape = bptt.forward("lstm", [BOTTOM, TOP], X4, (h, h))
    with pytest.raises(ValueError, match=r"state\[0\]: expected shape \(2, 3, 5\)"):
        bptt.forward("lstm", [BOTTOM, TOP], X4, (h[0], h[0]))
    with pytest.raises(ValueError, match=r"dstate\[1\]: expected shape \(2, 3, 5\)"):
        tape.backward(dstate=(h, h[:1]))
    with pytest.raises(ValueError, match=r"dy: expected shape \(7, 3, 5\) to match tape.y"):
        tape.backward(X4)
    with pytest.raises(ValueError, match="dy, dstate: expected at least one of them"):
        tape.backward()
    with pytest.raises(ValueError, match=r"x: expected shape \(T, B, 4\)"):
        bptt.forward("lstm", [BOTTOM, TOP], X4[..., :2])


def test_what_goes_with_one_layer_alone_says_so() -> None:
    layers, target = [BOTTOM, TOP], TARGET.astype(np.float32)
    loss: Any = {"loss": "squared_error", "at": "all"}
    tape: Any = bptt.forward("lstm", layers, X4)
    for name in ("truncate", "detach_every"):
        with pytest.raises(ValueError, match=f"{name}: expected None, as params are a stack"):
            bptt.value_and_grad("lstm", layers, X4, target, **loss, **{name: 3})
        with pytest.raises(ValueError, match=f"{name}: expected None, as params are a stack"):
            tape.backward(tape.y, **{name: 3})
    with pytest.raises(ValueError, match="dc: expected None"):
        tape.backward(dc=tape.y)
    with pytest.raises(ValueError, match="jvp: expected a tape of one layer"):
        tape.jvp(X4)
    with pytest.raises(TypeError, match=r"got list; this call takes one layer, no stack"):
        bptt.Stepper("lstm", layers, batch=B)  # type: ignore[arg-type]


def test_arrays_that_cannot_take_the_gradients_are_named_before_any_is_written() -> None:
    layers, target = [BOTTOM, TOP], TARGET.astype(np.float32)

    def run(out: Any, **options: Any) -> None:
        bptt.value_and_grad(
            "lstm", layers, X4, target, loss="squared_error", at="all", out=out, **options
        )

    out = bptt.Grads.zeros(layers, T, B, cell="lstm")
    with pytest.raises(TypeError, match=r"out: expected bptt.StackGrads, got Grads"):
        run(bptt.Grads.zeros(BOTTOM, T, B, cell="lstm"))
    with pytest.raises(ValueError, match="accumulate: expected gradients to add to"):
        run(None, accumulate=True)
    with pytest.raises(TypeError, match=r"out.state: expected 2 arrays"):
        run(bptt.Grads.zeros(layers, T, B))
    bare = bptt.init_params("lstm", input_size=H, hidden_size=H, rng=1)
    with pytest.raises(ValueError, match=r"out: expected a gradient of each parameter.*\[1\].w_ho"):
        run(bptt.Grads.zeros([BOTTOM, bare], T, B, cell="lstm"))
    out.layers[1].w_hh = np.zeros((4 * H, H + 1), np.float32)
    with pytest.raises(ValueError, match=r"out.layers\[1\].w_hh: expected shape \(20, 5\)"):
        run(out)
    out.layers[1].w_hh = out.layers[0].w_hh
    with pytest.raises(ValueError, match=r"expected memory of its own, got memory shared with"):
        run(out)
    out.layers[1].w_hh = TOP.w_hh
    with pytest.raises(ValueError, match=r"shared with params\[1\].w_hh"):
        run(out)
    assert not out.x.any()
