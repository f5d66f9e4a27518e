"""Results in arrays of an earlier call: the same values, and bad arrays refused, unharmed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.states import as_given
from problems import AT, Problem, Result, by_name, make_problem, recorded

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

SHAPES = [(9, 5, 3, 7, 4), (40, 3, 17, 65, 3), (20, 33, 20, 129, 9)]
EMPTY = [(0, 3, 2, 5, 3), (4, 0, 2, 5, 3), (0, 0, 2, 5, 3)]
BEFORE = 0.75  # what an array holds that is added to


def filled(p: Problem, value: float) -> bptt.Grads:
    grads = p.zeros()
    for array in by_name(grads).values():
        array[...] = value
    return grads


def copied(grads: bptt.Grads) -> Result:
    return {name: array.copy() for name, array in by_name(grads).items()}


def forward(p: Problem, backend: str, **changed: Any) -> bptt.Tape:
    call = {"params": p.params, "x": p.x, "state": p.state, "backend": backend}
    return bptt.forward(p.cell, **{**call, **changed})


def value_and_grad(
    p: Problem, backend: str, at: str = "all", loss: str = "squared_error", **changed: Any
) -> tuple[float, bptt.Grads]:
    where, target = p.loss_at(at, loss)
    call = {"params": p.params, "x": p.x, "target": target, "at": where, "state": p.state}
    return bptt.value_and_grad(p.cell, loss=loss, backend=backend, **{**call, **changed})


def assert_same(found: Result, expected: Result, backend: str, message: object) -> None:
    """The same bits; where a BLAS may sum in another order for other addresses, nearly."""
    for name, array in expected.items():
        if backend != "numpy":
            np.testing.assert_array_equal(found[name], array, f"{name} of {message}")
        elif name == "loss":
            assert found[name] == pytest.approx(array)
        else:
            assert_near(found[name], array, f"{name} of {message}")


def assert_near(found: np.ndarray, expected: np.ndarray, message: object, added: float = 0) -> None:
    """Within what adding to `added` and a sum in another order explain."""
    assert found.dtype == expected.dtype
    scale = added + np.max(np.abs(expected), initial=0.0)
    error = np.max(np.abs(found - expected), initial=0.0)
    assert error <= 64 * np.finfo(found.dtype).eps * scale, message


# --- the same values ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY])
def test_forward_and_backward_into_old_arrays_give_what_fresh_ones_hold(
    shape: tuple[int, ...], cell: str, dtype: str, backend: str
) -> None:
    old, p = (make_problem(cell, *shape, dtype=dtype, seed=seed) for seed in (1, 2))
    expected = p.forward_backward(backend)
    tape = forward(old, backend)
    before = recorded(tape)
    assert forward(p, backend, out=tape) is tape
    for name, array in recorded(tape).items():
        assert array is before[name]
    grads = filled(p, np.nan)
    assert p.backward(tape, out=grads) is grads
    readout = {"w_ho", "b_o"}
    found = {**recorded(tape), **by_name(grads)}
    assert_same(found, expected, backend, p)
    assert found.keys() - readout == expected.keys()
    for name in readout:
        assert np.isnan(found[name]).all()


@pytest.mark.parametrize("at", AT)
def test_value_and_grad_into_old_arrays_gives_what_fresh_ones_hold(
    at: str, loss: str, cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, *SHAPES[1], dtype=dtype)
    expected = p.value_and_grad(backend, loss, at)
    grads = filled(p, np.nan)
    value, returned = value_and_grad(p, backend, at, loss, out=grads)
    assert returned is grads
    assert_same({"loss": value, **by_name(grads)}, expected, backend, p)
    assert by_name(grads).keys() == expected.keys() - {"loss"}


@pytest.mark.parametrize("biases", [(), ("b_ih",), ("b_hh", "b_o")])
def test_absent_parameters_have_no_array(biases: tuple[str, ...], backend: str) -> None:
    p = make_problem("tanh", 6, 4, 3, 5, biases=biases)
    grads = filled(p, np.nan)
    value_and_grad(p, backend, out=grads)
    assert_same(by_name(grads), by_name(value_and_grad(p, backend)[1]), backend, p)
    assert set(grads.arrays()) == {"w_ih", "w_hh", "w_ho", *biases}


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY])
def test_accumulating_adds_to_every_array(
    shape: tuple[int, ...], cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    fresh = p.forward_backward(backend)
    tape, grads = forward(p, backend), filled(p, BEFORE)
    for times in (1, 2):
        assert p.backward(tape, out=grads, accumulate=True) is grads
        for name, found in by_name(grads).items():
            one = fresh.get(name, np.zeros_like(found))  # Tape.backward has no readout
            expected = found.dtype.type(BEFORE) + times * one
            assert_near(found, expected, f"{name} of {p}", added=BEFORE)


@pytest.mark.parametrize("at", AT)
def test_accumulating_the_gradient_of_a_loss_adds_to_every_array(
    at: str, loss: str, cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, *SHAPES[1], dtype=dtype)
    fresh, grads = p.value_and_grad(backend, loss, at), filled(p, BEFORE)
    for times in (1, 2):
        value, _ = value_and_grad(p, backend, at, loss, out=grads, accumulate=True)
        assert value == pytest.approx(fresh["loss"])  # of this call alone
        for name, found in by_name(grads).items():
            expected = found.dtype.type(BEFORE) + times * fresh[name]
            assert_near(found, expected, f"{name} of {p}", added=BEFORE)


@pytest.mark.parametrize("at", ["last", "all", "weights"])
@pytest.mark.parametrize("shape", EMPTY)
def test_the_loss_of_nothing_zeroes_or_leaves_what_was_there(
    shape: tuple[int, ...], at: str, loss: str, cell: str, backend: str
) -> None:
    p = make_problem(cell, *shape)
    for accumulate, value in ((True, BEFORE), (False, 0)):
        grads = filled(p, BEFORE)
        assert value_and_grad(p, backend, at, loss, out=grads, accumulate=accumulate)[0] == 0
        for name, array in by_name(grads).items():
            assert (array == value).all(), name


@pytest.mark.parametrize("shape", SHAPES)
def test_accumulated_bits_are_the_same_for_any_number_of_threads(
    shape: tuple[int, ...], cell: str, dtype: str, compiled_backend: str, keep_num_threads: None
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    found = []
    for threads in (1, 2, 3):
        bptt.set_num_threads(threads)
        grads = filled(p, BEFORE)
        p.backward(forward(p, compiled_backend), out=grads, accumulate=True)
        value_and_grad(p, compiled_backend, "step", out=grads, accumulate=True)
        found.append(by_name(grads))
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_array_equal(other[name], array, f"{name} of {p}")


@pytest.mark.parametrize("where", ["tape.state", "tape.y[-1]", "transposed tape.y"])
def test_truncated_bptt_in_one_tape_is_that_in_many(where: str, cell: str, backend: str) -> None:
    """The next piece starts from the state that the tape's own arrays hold."""
    p = make_problem(cell, 24, 5, 3, 5, dtype="float64")
    pieces = np.split(p.x, 4)
    expected, state = [], p.state
    for x in pieces:
        tape = forward(p, backend, x=x, state=state)
        grads = tape.backward(np.ones_like(tape.y))
        expected.append({**recorded(tape), **by_name(grads)})
        state = of_tape(tape, where)

    tape = forward(p, backend, x=pieces[0])
    for n, x in enumerate(pieces):
        if n:
            forward(p, backend, x=x, state=of_tape(tape, where), out=tape)
        grads = tape.backward(np.ones_like(tape.y))
        assert_same({**recorded(tape), **by_name(grads)}, expected[n], backend, p)


def of_tape(tape: bptt.Tape, where: str) -> Any:
    """A state that lies in the tape's own arrays."""
    if where == "tape.state":
        return tape.state
    history = (tape.y,) if len(bptt.CELLS[tape.cell].states) == 1 else (tape.y, tape.c)
    return as_given(tuple(a[-1].T if "transposed" in where else a[-1] for a in history))


def test_a_training_loop_with_old_arrays_ends_where_one_with_fresh_arrays_ends(
    cell: str, backend: str
) -> None:
    ends = []
    for reuse in (False, True):
        p = make_problem(cell, 12, 4, 3, 6, dtype="float64", seed=3)
        grads = p.zeros() if reuse else None
        for _ in range(10):
            _, found = value_and_grad(p, backend, out=grads)
            for name, array in p.params.arrays().items():
                array -= 0.05 * getattr(found, name)
        ends.append(p.params.arrays())
    assert_same(ends[1], ends[0], backend, cell)


def test_a_tape_recorded_again_refers_to_the_new_call(backend: str) -> None:
    old, p = (make_problem("tanh", 6, 4, 3, 5, seed=seed) for seed in (1, 2))
    wide = make_problem("tanh", 6, 4, 8, 5)  # I is the call's own
    tape = forward(old, backend)
    forward(wide, backend, out=tape)
    expected = wide.forward_backward(backend)
    found = by_name(tape.backward(wide.dy, wide.dstate))
    assert_same(found, {name: expected[name] for name in found}, backend, wide)
    forward(p, backend, out=tape)
    expected = p.forward_backward(backend)
    found = by_name(tape.backward(p.dy, p.dstate))
    assert_same(found, {name: expected[name] for name in found}, backend, p)


def test_subclasses_that_are_plain_memory_can_be_written(tmp_path: Any, backend: str) -> None:
    p = make_problem("tanh", 6, 4, 3, 5)
    grads = filled(p, 0)
    grads.x = np.memmap(tmp_path / "x", p.x.dtype, "w+", shape=p.x.shape)
    value_and_grad(p, backend, out=grads)
    assert_same(by_name(grads), by_name(value_and_grad(p, backend)[1]), backend, p)


def test_zeros_has_the_shapes_of_a_call(dtype: str, backend: str) -> None:
    for biases in ((), ("b_ih", "b_hh", "b_o")):
        p = make_problem("tanh", 6, 4, 3, 5, dtype=dtype, biases=biases)
        zeros = by_name(bptt.Grads.zeros(p.params, steps=6, batch=np.int64(4)))
        fresh = by_name(value_and_grad(p, backend)[1])
        assert zeros.keys() == fresh.keys()
        for name, array in fresh.items():
            assert (zeros[name].shape, zeros[name].dtype) == (array.shape, array.dtype)
            assert not zeros[name].any()
    other_order = p.params.dtype.newbyteorder()
    swapped = bptt.Params(p.params.w_ih.astype(other_order), p.params.w_hh.astype(other_order))
    assert bptt.Grads.zeros(swapped, 6, 4).x.dtype.isnative


# --- refused ------------------------------------------------------------------------------------

P = make_problem("tanh", 5, 6, 2, 3, 4, dtype="float32")
T, B, I, H, O = 5, 6, 2, 3, 4  # noqa: E741
F4 = np.dtype("f4")


def zeros(*shape: int, dtype: Any = F4) -> np.ndarray:
    return np.zeros(shape, dtype)


def read_only(*shape: int) -> np.ndarray:
    array = zeros(*shape)
    array.flags.writeable = False
    return array


def unaligned(*shape: int) -> np.ndarray:
    raw = np.zeros(np.prod(shape, dtype=int) * 4 + 1, np.uint8)
    return raw[1:].view(F4).reshape(shape)


def call_backward(backend: str, p: Problem = P, **changed: Any) -> None:
    forward(p, backend).backward(**{"dy": p.dy, **changed})


def call_value_and_grad(backend: str, p: Problem = P, **changed: Any) -> None:
    value_and_grad(p, backend, **changed)


BOTH = pytest.mark.parametrize("call", [call_backward, call_value_and_grad])

# the array, its value, the error, and words that the message must have
BAD_ARRAYS: list[tuple[str, Any, type[Exception], str]] = [
    ("x", None, ValueError, r"expected an array of shape \(5, 6, 2\), got None"),
    ("state", None, ValueError, r"expected an array of shape \(6, 3\), got None"),
    ("w_hh", None, ValueError, r"expected an array of shape \(3, 3\), got None"),
    ("b_ih", None, ValueError, r"expected an array of shape \(3,\), got None"),
    ("x", zeros(T + 1, B, I), ValueError, r"\(5, 6, 2\) to match x, got \(6, 6, 2\)"),
    ("state", zeros(B, 9), ValueError, r"expected shape \(6, 3\).*got \(6, 9\)"),
    ("w_ih", zeros(I, H), ValueError, r"expected shape \(3, 2\) to match w_ih, got \(2, 3\)"),
    ("b_hh", zeros(1, H), ValueError, r"expected shape \(3,\).*got \(1, 3\)"),
    ("w_hh", zeros(H, H, dtype="f8"), TypeError, r"dtype float32 like w_hh, got float64"),
    ("w_hh", zeros(H, H, dtype="i4"), TypeError, r"dtype float32 like w_hh, got int32"),
    ("w_hh", zeros(H, H, dtype=F4.newbyteorder()), TypeError, r"dtype float32.*got [<>]f4"),
    ("w_hh", [[0.0] * H] * H, TypeError, r"expected a NumPy array, got list"),
    ("w_hh", np.ma.masked_array(zeros(H, H)), TypeError, r"expected a plain array, got a masked"),
    ("w_hh", zeros(H, 2 * H)[:, ::2], ValueError, r"writeable array, got .* not C-contiguous$"),
    ("x", zeros(I, B, T).T, ValueError, r"writeable array, got .* not C-contiguous$"),
    ("x", read_only(T, B, I), ValueError, r"C-contiguous.*got one that is not writeable$"),
    ("b_ih", read_only(H), ValueError, r"C-contiguous.*got one that is not writeable$"),
    ("state", unaligned(B, H), ValueError, r"C-contiguous.*got one that is not aligned$"),
    ("b_ih", np.broadcast_to(F4.type(0), H), ValueError, r"not C-contiguous nor writeable$"),
]


@BOTH
@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    BAD_ARRAYS,
    ids=[f"{name}-{n}" for n, (name, *_) in enumerate(BAD_ARRAYS)],
)
def test_an_array_that_cannot_be_written_is_named_and_nothing_is(
    call: Callable, name: str, value: Any, error: type[Exception], words: str, backend: str
) -> None:
    for accumulate in (False, True):
        grads = filled(P, BEFORE)
        setattr(grads, name, value)
        with pytest.raises(error, match=rf"^out\.{name}: .*{words}"):
            call(backend, out=grads, accumulate=accumulate)
        others = {n: array for n, array in by_name(grads).items() if n not in (name, f"d{name}")}
        assert all((array == BEFORE).all() for array in others.values())


def test_arrays_of_the_readout_are_the_business_of_the_loss_alone(backend: str) -> None:
    for name in ("w_ho", "b_o"):
        grads = filled(P, BEFORE)
        setattr(grads, name, None)
        with pytest.raises(ValueError, match=rf"^out\.{name}: expected an array .* got None"):
            call_value_and_grad(backend, out=grads)
        call_backward(backend, out=grads)
        setattr(grads, name, "untouched")
        call_backward(backend, out=grads)


@BOTH
def test_an_array_for_an_absent_parameter_is_refused(call: Callable, backend: str) -> None:
    p = make_problem("tanh", 5, 6, 2, 3, 4, dtype="float32", biases=("b_ih",))
    grads = bptt.Grads.zeros(p.params, T, B)
    grads.b_hh = zeros(H)
    with pytest.raises(ValueError, match=r"^out\.b_hh: expected None like params\.b_hh, got"):
        call(backend, p, out=grads)


@BOTH
def test_what_is_no_gradients_is_refused(call: Callable, backend: str) -> None:
    with pytest.raises(TypeError, match=r"^out: expected bptt\.Grads, got dict"):
        call(backend, out={})
    with pytest.raises(ValueError, match=r"^accumulate: .* got out=None"):
        call(backend, accumulate=True)
    with pytest.raises(TypeError, match=r"^accumulate: expected True or False, got str"):
        call(backend, out=filled(P, 0), accumulate="yes")


@BOTH
def test_gradients_that_share_memory_with_each_other_are_refused(
    call: Callable, backend: str
) -> None:
    grads = filled(P, 0)
    call(backend, out=grads)
    grads.b_hh = grads.b_ih
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^out\.b_ih: .* shared with out\.b_hh"):
            call(backend, out=grads)
    memory = zeros(H * H + H * I)
    grads = filled(P, 0)
    grads.w_hh, grads.w_ih = memory[: H * H].reshape(H, H), memory[-H * I - 1 : -1].reshape(H, I)
    with pytest.raises(ValueError, match=r"^out\.w_ih: .* shared with out\.w_hh"):
        call(backend, out=grads)
    grads.w_ih = memory[H * H :].reshape(H, I)  # beside each other
    call(backend, out=grads)


@BOTH
def test_a_copy_of_checked_gradients_is_checked_by_itself(call: Callable, backend: str) -> None:
    grads = filled(P, 0)
    call(backend, out=grads)
    twin = copy.deepcopy(grads)
    twin.state = twin.x.reshape(-1)[: B * H].reshape(B, H)
    with pytest.raises(ValueError, match=r"^out\.state: .*|^out\.x: .*"):
        call(backend, out=twin)
    call(backend, out=copy.copy(grads))


def test_gradients_that_share_memory_with_an_argument_are_refused(backend: str) -> None:
    state = zeros(B, H)
    dy = zeros(T, B, H)
    tape = bptt.forward("tanh", P.params, P.x, state, backend=backend)
    for name, array in (("x", P.x), ("state", state), ("w_hh", P.params.w_hh)):
        grads, before = filled(P, 0), array.copy()
        setattr(grads, name, array)
        with pytest.raises(ValueError, match=rf"^out\.{name}: .* shared with {name}$"):
            tape.backward(dy, out=grads)
        with pytest.raises(ValueError, match=rf"^out\.{name}: .* shared with {name}$"):
            value_and_grad(P, backend, state=state, out=grads)
        np.testing.assert_array_equal(array, before)
    # What only one of the calls reads.
    views = {"dy": dy, "dstate": zeros(B, H), "tape.y": tape.y, "tape.state": tape.state}
    for other, array in views.items():
        grads = filled(P, 0)
        grads.state = array.reshape(-1)[: B * H].reshape(B, H)
        with pytest.raises(ValueError, match=rf"^out\.state: .* shared with {other}$"):
            tape.backward(dy, views["dstate"], out=grads)
    for other, at, array in (("target", "all", P.target), ("at", "weights", P.weights)):
        grads = filled(P, 0)
        grads.state = array.reshape(-1)[: B * H].reshape(B, H)
        with pytest.raises(ValueError, match=rf"^out\.state: .* shared with {other}$"):
            value_and_grad(P, backend, at, out=grads)


# --- tapes --------------------------------------------------------------------------------------


def assert_tape_is_whole(tape: bptt.Tape, p: Problem, backend: str) -> None:
    expected = p.forward_backward(backend)
    assert_same({**recorded(tape), **by_name(p.backward(tape))}, expected, backend, p)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"cell": "relu"}, ValueError, r"expected a tape of cell 'tanh', got one of 'relu'"),
        ({"steps": 4}, ValueError, r"expected shape \(5, 6, 3\) to match .*, got \(4, 6, 3\)"),
        ({"batch": 5}, ValueError, r"expected shape \(5, 6, 3\) to match .*, got \(5, 5, 3\)"),
        ({"hidden": 4}, ValueError, r"expected shape \(5, 6, 3\) to match .*, got \(5, 6, 4\)"),
        ({"dtype": "float64"}, TypeError, r"expected a tape of dtype float32 .*, got float64"),
    ],
)
def test_a_tape_that_does_not_fit_is_refused_and_unharmed(
    changed: dict, error: type[Exception], words: str, backend: str
) -> None:
    sizes = {"cell": "tanh", "steps": T, "batch": B, "inputs": I, "hidden": H, "dtype": "float32"}
    other = make_problem(**{**sizes, **changed})
    tape = forward(other, backend)
    with pytest.raises(error, match=rf"^out: {words}"):
        forward(P, backend, out=tape)
    assert_tape_is_whole(tape, other, backend)


def test_a_tape_of_another_backend_is_refused_and_unharmed(backend: str) -> None:
    for other, status in bptt.backends().items():
        if other == backend or not status.available:
            continue
        tape = forward(P, other)
        with pytest.raises(
            ValueError, match=rf"^out: .* backend '{backend}', got one of '{other}'"
        ):
            forward(P, backend, out=tape)
        assert_tape_is_whole(tape, P, other)


def test_what_is_no_tape_or_a_released_one_is_refused(backend: str) -> None:
    with pytest.raises(TypeError, match=r"^out: expected bptt\.Tape, got ndarray"):
        forward(P, backend, out=P.x)
    tape = forward(P, backend)
    tape.release()
    with pytest.raises(RuntimeError, match=r"^out: expected a tape that holds .* released"):
        forward(P, backend, out=tape)


def test_a_read_only_tape_is_refused(backend: str) -> None:
    for name in ("y", "state"):
        tape = forward(P, backend)
        getattr(tape, name).flags.writeable = False
        with pytest.raises(ValueError, match=rf"^out\.{name}: .* not writeable$"):
            forward(P, backend, out=tape)
        assert_tape_is_whole(tape, P, backend)


def test_input_and_weights_in_the_tape_s_own_arrays_are_refused(backend: str) -> None:
    p = make_problem("tanh", 4, 3, 3, 3, dtype="float32")  # I = H = B
    tape = forward(p, backend)
    with pytest.raises(ValueError, match=r"^x: expected memory apart from out"):
        forward(p, backend, x=tape.y, out=tape)
    params = bptt.Params(p.params.w_ih, tape.state)
    with pytest.raises(ValueError, match=r"^w_hh: expected memory apart from out"):
        forward(p, backend, params=params, out=tape)
    assert_tape_is_whole(tape, p, backend)
    # What has to be copied anyway is apart.
    x = np.ascontiguousarray(tape.y[::-1])
    expected = forward(p, backend, x=x).y
    forward(p, backend, x=tape.y[::-1], out=tape)
    assert_same({"y": tape.y}, {"y": expected}, backend, p)


def test_bad_arguments_leave_the_tape_as_it_was(backend: str) -> None:
    tape = forward(P, backend)
    for bad in ({"x": P.x[0]}, {"state": P.dy}, {"params": None}):
        with pytest.raises((ValueError, TypeError)):
            forward(P, backend, out=tape, **bad)
    assert_tape_is_whole(tape, P, backend)


def test_a_tape_whose_recording_was_stopped_is_released(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arrays hold neither the old pass nor the new one."""
    tape = forward(P, backend)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(REGISTRY[backend]), "forward", stop)
    with pytest.raises(KeyboardInterrupt):
        forward(P, backend, out=tape)
    with pytest.raises(RuntimeError, match="released"):
        tape.backward(P.dy)


def test_zeros_refuses_what_has_no_shape() -> None:
    for params, steps, batch, error, words in (
        (None, 1, 1, TypeError, r"params: expected bptt\.Params, got NoneType"),
        (P.params, -1, 1, ValueError, r"steps: expected an integer of at least 0, got -1"),
        (P.params, 1, 1.0, TypeError, r"batch: expected an integer, got float"),
    ):
        with pytest.raises(error, match=f"^{words}"):
            bptt.Grads.zeros(params, steps, batch)
    with pytest.raises(MemoryError, match=r"gradients of \d+ steps needs"):
        bptt.Grads.zeros(P.params, 10**12, 10**3)
