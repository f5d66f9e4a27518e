"""A cell of one's own: two functions, from which the package makes everything else.

That `mgu` computes what the reference does, on every backend that has it, is tested with the
cells of the package, since it is in the registry like them.
"""

from __future__ import annotations

import importlib.util
import math
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.pointwise import sigmoid, slope_of_sigmoid, slope_of_tanh, tanh
from custom_cells import mgu
from problems import make_problem

this_module = sys.modules[__name__]

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="Numba is not installed"
)


@pytest.fixture(autouse=True)
def keep_registry() -> Iterator[None]:
    """Forget the cells that a test defines."""
    before = dict(bptt.CELLS)
    yield
    bptt.CELLS.clear()
    bptt.CELLS.update(before)


def check(cell: Any, backend: str, **options: Any) -> bptt.GradientCheck:
    params = bptt.init_params(
        cell, input_size=3, hidden_size=5, output_size=2, rng=0, dtype="float64"
    )
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((7, 4, 3)), rng.standard_normal((7, 4, 2))
    parts = tuple(rng.standard_normal((4, 5)) for _ in cell.states)
    state = parts[0] if len(parts) == 1 else parts
    return bptt.check_gradients(
        cell,
        params,
        x,
        target,
        loss="squared_error",
        at="all",
        state=state,
        backend=backend,
        **options,
    )


OWN = [
    pytest.param("numpy"),
    pytest.param("numba", marks=needs_numba),
]
own_backend = pytest.mark.parametrize("own_backend", OWN)


def lstm_again() -> bptt.Cell:
    """The LSTM, as somebody would write it who does not know of the one there is."""

    @bptt.cell(gates=("i", "f", "g", "o"), states=("h", "c"), saved=("i", "f", "g", "o"))
    def again(sums: Any, state: Any) -> Any:
        i, f, g, o = sigmoid(sums[0]), sigmoid(sums[1]), tanh(sums[2]), sigmoid(sums[3])
        c = f * state[1] + i * g
        return (o * tanh(c), c), (i, f, g, o)

    @again.derivative
    def again(saved: Any, before: Any, state: Any, dstate: Any) -> Any:
        i, f, g, o = saved
        t = tanh(state[1])
        dc = dstate[1] + dstate[0] * o * slope_of_tanh(t)
        da_i, da_f = dc * g * slope_of_sigmoid(i), dc * before[1] * slope_of_sigmoid(f)
        da_g, da_o = dc * i * slope_of_tanh(g), dstate[0] * t * slope_of_sigmoid(o)
        return (da_i, da_f, da_g, da_o), (0.0, dc * f)

    return again


def leaky(with_if: bool) -> bptt.Cell:
    """Two states that both go straight on, one sum, nothing saved."""

    @bptt.cell(gates=("a",), states=("h", "c"))
    def leak(sums: Any, state: Any) -> Any:
        h, c = state
        c = 0.9 * c + 0.1 * h
        u = sums[0] + c
        s = (math.tanh(u) if u > -100 else -1.0) if with_if else np.tanh(u)
        return (0.5 * h + s, c), ()

    @leak.derivative
    def leak(saved: Any, before: Any, state: Any, dstate: Any) -> Any:
        s = state[0] - 0.5 * before[0]
        da = dstate[0] * (1 - s * s)
        dc = dstate[1] + da
        return (da,), (0.5 * dstate[0] + 0.1 * dc, 0.9 * dc)

    return leak


# --- what it computes ---------------------------------------------------------------------------


@own_backend
def test_the_lstm_written_anew_is_the_lstm(own_backend: str, dtype: str) -> None:
    again = lstm_again()
    p = make_problem("lstm", 9, 3, 5, 17, dtype=dtype)
    expected = p.value_and_grad(own_backend, "cross_entropy", "all")
    loss, grads = bptt.value_and_grad(
        again, p.params, p.x, p.ids, loss="cross_entropy", at="all", state=p.state,
        backend=own_backend,
    )  # fmt: skip
    assert loss == pytest.approx(expected["loss"], rel=1e-6)
    np.testing.assert_allclose(grads.w_hh, expected["w_hh"], atol=20 * np.finfo(dtype).eps)
    tape = bptt.forward(again, p.params, p.x, p.state, backend=own_backend, save="minimal")
    np.testing.assert_allclose(
        tape.backward(p.dy, p.dstate, dc=p.dc).x,
        p.forward_backward(own_backend)["dx"],
        rtol=1e-4,
        atol=100 * np.finfo(dtype).eps,
    )
    assert tape.c.shape == tape.y.shape


@own_backend
@pytest.mark.parametrize("with_if", [False, True])
def test_two_states_that_go_straight_on_and_branches(own_backend: str, with_if: bool) -> None:
    found = check(leaky(with_if), own_backend)
    assert found.passed, found


@own_backend
def test_a_cell_is_named_by_itself_or_by_its_name(own_backend: str) -> None:
    p = make_problem("mgu", 4, 2, 3, 5, dtype="float64")
    one = bptt.forward(mgu, p.params, p.x, backend=own_backend)
    other = bptt.forward("mgu", p.params, p.x, backend=own_backend)
    assert one.cell == other.cell == "mgu"
    np.testing.assert_array_equal(one.y, other.y)


def test_init_params_knows_the_gate_that_keeps() -> None:
    params = bptt.init_params(mgu, input_size=2, hidden_size=3, forget_bias=2.0, rng=0)
    np.testing.assert_array_equal(params.b_ih[:3] + params.b_hh[:3], 2)


@needs_numba
def test_functions_that_numba_compiled_already_are_taken() -> None:
    import numba

    @bptt.cell(gates=("a",), name="compiled")
    @numba.njit
    def step(sums: Any, h: Any) -> Any:
        return np.tanh(sums[0]), ()

    @step.derivative
    @numba.njit
    def cell(saved: Any, before: Any, h: Any, dh: Any) -> Any:
        return (dh * (1 - h * h),), 0.0

    p = make_problem("tanh", 5, 2, 3, 4, dtype="float64")
    found = bptt.forward(cell, p.params, p.x, backend="numba").y
    np.testing.assert_allclose(found, bptt.forward("tanh", p.params, p.x).y, rtol=1e-12)


def test_a_cell_may_be_defined_again_but_not_one_of_the_package() -> None:
    assert lstm_again() is not lstm_again()
    assert list(bptt.CELLS).count("again") == 1
    with pytest.raises(ValueError, match=r"^name: expected one that no cell of the package has"):
        bptt.cell(gates=("a",), name="lstm")(lambda sums, h: (h, ()))


# --- wrong derivatives --------------------------------------------------------------------------


@own_backend
def test_a_wrong_derivative_is_caught_and_the_entry_named(own_backend: str) -> None:
    @bptt.cell(gates=("a",))
    def wrong(sums: Any, h: Any) -> Any:
        return tanh(sums[0]), ()

    @wrong.derivative
    def wrong(saved: Any, before: Any, h: Any, dh: Any) -> Any:
        return (dh * (1 - h),), 0.0

    found = check(wrong, own_backend)
    assert not found.passed
    assert found.name in str(found)
    assert f"[{', '.join(map(str, found.index))}]" in str(found)


# --- wrong definitions --------------------------------------------------------------------------


def define(step: Any, derivative: Any, **names: Any) -> bptt.Cell:
    return bptt.cell(**{"gates": ("a",), "name": "mine", **names})(step).derivative(derivative)


@pytest.mark.parametrize(
    ("step", "derivative", "words"),
    [
        (lambda a, h: h, None, r"step: expected \(state, saved\), got float64"),
        (lambda a, h: (h, a, h), None, r"step: expected \(state, saved\), got a tuple of 3"),
        (lambda a, h: ((h, h), (h,)), None, "step: expected the state to be a number, got a tuple"),
        (lambda a, h: (h, ()), None, r"step: expected saved .* a tuple of 1 numbers \(s\), got a"),
        (lambda a, h: (h, h), None, r"step: expected saved .* 1 numbers \(s\), got float64"),
        (None, lambda s, b, h, d: (d, d), "derivative: expected dsums .* 1 numbers .*, got float"),
        (None, lambda s, b, h, d: ((d, d), d), "derivative: expected dsums .*, got a tuple of 2"),
        (None, lambda s, b, h, d: ((d,), (d, d)), "derivative: expected dbefore to be a number"),
    ],
)
def test_another_number_of_values_than_declared_is_refused(
    step: Any, derivative: Any, words: str
) -> None:
    step = step or (lambda sums, h: (h, (h,)))
    derivative = derivative or (lambda saved, before, h, dh: ((dh,), dh))
    with pytest.raises(ValueError, match=f"^cell 'mine': {words}"):
        define(step, derivative, saved=("s",))
    assert "mine" not in bptt.CELLS


@own_backend
def test_one_gate_whose_sums_go_apart_and_that_saves_nothing(own_backend: str) -> None:
    """It has two sums and one state: they cannot lie in one place."""
    one = bptt.cell(gates=("a",), apart=("a",), name="one_apart")(
        lambda sums, h: (sums[0] + 0.5 * sums[1] + 0.1 * h, ())
    )
    cell = one.derivative(lambda saved, before, h, dh: ((dh, 0.5 * dh), 0.1 * dh))
    found = check(cell, own_backend)
    assert found.passed, found
    p = make_problem("tanh", 100, 32, 16, 64, dtype="float32")
    for _ in range(3):
        bptt.forward(cell, p.params, p.x, backend=own_backend).backward(p.dy)


def test_a_cell_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(mgu)) is mgu
    assert pickle.loads(pickle.dumps(bptt.CELLS["gru"])) is bptt.CELLS["gru"]


@pytest.mark.parametrize(
    ("step", "derivative", "words"),
    [
        (lambda a, h: (None, ()), None, "step: expected the state to be a number, got NoneType"),
        (None, lambda s, b, h, d: ((None,), 0.0), r"derivative: expected dsums .*\(NoneType\)"),
        (lambda a, h: ((a[0], a[1]), ()), None, "step: IndexError: tuple index out of range"),
        (None, lambda s, h, d: ((d,), 0.0), "derivative: TypeError: .*positional argument"),
    ],
)
def test_functions_that_cannot_be_are_refused_by_name(
    step: Any, derivative: Any, words: str
) -> None:
    step = step or (lambda sums, h: (h, ()))
    derivative = derivative or (lambda saved, before, h, dh: ((dh,), dh))
    with pytest.raises(ValueError, match=f"^cell 'mine': {words}"):
        define(step, derivative)
    assert "mine" not in bptt.CELLS


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ({"gates": ()}, ValueError, "cell 'mine': gates: expected at least one name"),
        ({"gates": "ab"}, TypeError, "gates: expected a tuple of names, got str"),
        ({"gates": 2}, TypeError, "gates: expected a tuple of names, got int"),
        ({"gates": ("a", "a")}, ValueError, "gates: expected different names"),
        ({"saved": (1,)}, TypeError, "saved: expected strings, got int"),
        ({"states": ()}, ValueError, r"cell 'mine': states: expected \('h',\) or \('h', 'c'\)"),
        ({"states": ("h", "c", "n")}, ValueError, "cell 'mine': states: .* got 3 names"),
        ({"apart": ("b",)}, ValueError, r"cell 'mine': apart: expected names of \('a',\), got 'b'"),
        ({"keeps": "f"}, ValueError, "cell 'mine': keeps: expected names of"),
        ({"keeps": ["a"]}, TypeError, "cell 'mine': keeps: expected a name, got list"),
        ({"name": 3}, TypeError, "name: expected a string, got int"),
        ({"name": "<lambda>"}, ValueError, "name: expected a name such as 'mgu', got '<lambda>'"),
    ],
)
def test_wrong_names_are_refused(names: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        define(lambda sums, h: (h, ()), lambda saved, before, h, dh: ((dh,), dh), **names)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^step: expected a function, got int"):
        define(3, None)
    with pytest.raises(TypeError, match=r"^derivative: expected a function, got str"):
        define(lambda sums, h: (h, ()), "dh")


def test_a_step_without_its_derivative_is_no_cell() -> None:
    step = bptt.cell(gates=("a",), name="mine")(lambda sums, h: (h, ()))
    assert "without a derivative" in repr(step)
    with pytest.raises(TypeError, match=r"^cell: expected a string or a Cell, got CellDefinition"):
        bptt.init_params(step, input_size=1, hidden_size=1)


@needs_numba
def test_what_does_not_compile_shows_numbas_message_and_the_line() -> None:
    def step(sums: Any, h: Any) -> Any:
        return sums[0] + eval("0.0"), ()  # the line

    cell = define(step, lambda saved, before, h, dh: ((dh,), 0.0))
    p = make_problem("tanh", 2, 2, 2, 2)
    with pytest.raises(TypeError) as caught:
        bptt.forward(cell, p.params, p.x, backend="numba")
    message = str(caught.value)
    assert message.startswith("cell 'mine': step does not compile: ")
    line = step.__code__.co_firstlineno + 1
    assert f'test_custom_cell.py", line {line}' in message
    assert "# the line" in message


def positive(a: Any) -> Any:
    if not a > 0:
        raise ValueError("expected a positive number")
    return a


@needs_numba
@pytest.mark.parametrize("place", ["step", "derivative", "called", "called in a module", "inner"])
def test_a_cell_that_raises_is_refused_where_the_exception_would_be_lost(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a C interface it would be printed, and the numbers be those of another step."""
    import numba

    monkeypatch.setitem(globals(), "positive", numba.njit(positive))

    def step(sums: Any, h: Any) -> Any:
        if sums[0] > 1e30:
            raise ValueError("too large")
        return sums[0], ()

    def derivative(saved: Any, before: Any, h: Any, dh: Any) -> Any:
        assert dh < 1e30
        return (dh,), 0.0

    def calls(sums: Any, h: Any) -> Any:
        return positive(sums[0]), ()

    def calls_in_a_module(sums: Any, h: Any) -> Any:
        return this_module.positive(sums[0]), ()

    def inner(sums: Any, h: Any) -> Any:
        def checked(a: Any) -> Any:
            assert a < 1e30
            return a

        return checked(sums[0]), ()

    harmless = (lambda sums, h: (sums[0], ()), lambda saved, before, h, dh: ((dh,), 0.0))
    functions, name = {
        "step": ((step, harmless[1]), "step"),
        "derivative": ((harmless[0], derivative), "derivative"),
        "called": ((calls, harmless[1]), "positive"),
        "called in a module": ((calls_in_a_module, harmless[1]), "positive"),
        "inner": ((inner, harmless[1]), "checked"),
    }[place]
    cell = define(*functions)
    p = make_problem("tanh", 2, 2, 2, 2)
    refused = f"^cell 'mine': {name} has a raise or assert, .* take backend='numpy'$"
    with pytest.raises(TypeError, match=refused):
        bptt.forward(cell, p.params, abs(p.x), backend="numba")


@needs_numba
def test_what_python_makes_of_annotations_is_no_code_of_a_cell() -> None:
    """From 3.14 on a function that raises, which nobody calls; here it is written out."""

    def step(sums: Any, h: Any) -> Any:
        def halved(a: float) -> float:
            return a * 0.5

        def __annotate__(form: Any) -> Any:  # noqa: N807
            raise NotImplementedError

        return halved(sums[0]), ()

    cell = define(step, lambda saved, before, h, dh: ((dh * 0.5,), 0.0))
    p = make_problem("tanh", 2, 2, 2, 2)
    found, expected = (bptt.forward(cell, p.params, p.x, backend=b).y for b in ("numba", "numpy"))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_exception_of_a_cell_comes_through_the_reference() -> None:
    def step(sums: Any, h: Any) -> Any:
        return positive(sums[0]), ()

    cell = define(step, lambda saved, before, h, dh: ((dh,), 0.0))
    p = make_problem("tanh", 2, 2, 2, 2)
    with pytest.raises(ValueError, match="expected a positive number"):
        bptt.forward(cell, p.params, np.full_like(p.x, -1e30), backend="numpy")


def test_the_native_backend_says_that_it_does_not_know_the_cell(core: object) -> None:
    p = make_problem("mgu", 2, 2, 2, 2)
    with pytest.raises(TypeError, match="'native' does not compute cell 'mgu'"):
        bptt.forward("mgu", p.params, p.x, backend="native")
