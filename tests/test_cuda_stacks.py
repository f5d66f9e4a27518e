"""Stacks on a GPU through the public functions: the values of NumPy's reference, in float64.

There is no GPU here; see test_cuda_backend.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_tuple
from host_launcher import HostLauncher, host_gpu
from problems import each
from sequences import NAMED, Case
from test_cuda_backend import LIBRARIES, expect_close, of_cupy, of_torch
from test_stack_sequences import Call, call_of, in_one_call
from test_stack_wanted import WANTED, arrays_of, written_out
from test_stacks import SHAPES, H, O

pytestmark = pytest.mark.pairs  # of libraries, sequences and layers

FEW = Case(2, 3)  # fibres take their time
EACH_SHAPE = pytest.mark.parametrize("shape", [(1, 1), (2, 1)], ids=str)
EACH_CELL = pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
Move = Callable[[np.ndarray], Any]


@pytest.fixture
def gpu() -> Iterator[HostLauncher]:
    with host_gpu() as launcher:
        yield launcher


@pytest.fixture(params=LIBRARIES)
def device(request: pytest.FixtureRequest) -> Move:
    """Copies an array of the host to what passes for a GPU."""
    move: Move = LIBRARIES[request.param]
    return move


def moved(layers: list[Any], device: Move) -> list[Any]:
    return [
        tuple(moved(list(layer), device))
        if isinstance(layer, tuple)
        else bptt.Params(**{name: device(a) for name, a in layer.arrays().items()})
        for layer in layers
    ]


def there(call: Call, device: Move) -> Call:
    """The call with all its arrays on the device."""
    names = ("x", "state", "dy", "dstate")
    arrays = {name: each(device, getattr(call, name)) for name in names}
    return call._replace(layers=moved(call.layers, device), **arrays)


@EACH_SHAPE
@EACH_CELL
@pytest.mark.parametrize("name", NAMED)
def test_both_passes_are_those_of_the_reference(
    name: str, shape: tuple[int, ...], cell: str, device: Move, gpu: HostLauncher
) -> None:
    call = call_of(NAMED[name], cell, shape)
    found = in_one_call(there(call, device), cell, "auto")
    expect_close(found, in_one_call(call, cell, "numpy"))
    if name not in ("no steps", "no rows", "no packed rows", "all lengths are 0"):
        names = [name for name, _ in gpu.launched]
        assert names == ["forward"] * sum(shape) + ["backward"] * sum(shape)


@EACH_SHAPE
@EACH_CELL
@pytest.mark.parametrize("name", ["plain", "lengths", "all of padded rows", "batch_sizes"])
@pytest.mark.parametrize("at", ["all", "last", 2])
def test_a_loss_and_its_gradients_are_those_of_the_reference(
    at: Any, name: str, shape: tuple[int, ...], cell: str, loss: str, device: Move
) -> None:
    case, rng = NAMED[name], np.random.default_rng(8)
    call = call_of(case, cell, shape)
    every = rng.standard_normal((case.steps, case.batch, O))
    if loss == "cross_entropy":
        every = rng.integers(0, O, (case.steps, case.batch))
    target = case.given(every) if at == "all" else every[0]

    def of(call: Call, target: Any, backend: str) -> dict[str, Any]:
        value, grads, last = bptt.value_and_grad(
            cell, call.layers, call.x, target, loss=loss, at=at, state=call.state,
            return_state=True, backend=backend, **case.options,
        )  # fmt: skip
        final = {f"last[{i}]": part for i, part in enumerate(as_tuple(last))}
        return {"loss": value, **final, **arrays_of(grads)}

    with host_gpu():
        found = of(there(call, device), device(target), "auto")
    expect_close(found, of(call, target, "numpy"))


@pytest.mark.parametrize("wanted", WANTED, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_is_not_wanted_is_none_and_not_run(
    wanted: Any, shape: tuple[int, ...], gpu: HostLauncher
) -> None:
    names = written_out(wanted, shape)
    call = call_of(FEW, "lstm", shape)
    target = np.random.default_rng(8).standard_normal((2, 3, O))
    on = there(call, of_cupy)
    tape = bptt.forward("lstm", on.layers, on.x, on.state)
    reference = bptt.forward("lstm", call.layers, call.x, call.state, backend="numpy")
    gpu.launched.clear()
    found = arrays_of(tape.backward(on.dy, on.dstate, wanted=names))
    of_tape = len(gpu.launched)
    expect_close(found, arrays_of(reference.backward(call.dy, call.dstate, wanted=names)))
    options: dict[str, Any] = {"loss": "squared_error", "at": "all", "wanted": names}
    _, grads = bptt.value_and_grad("lstm", on.layers, on.x, of_cupy(target), **options)
    _, of_host = bptt.value_and_grad("lstm", call.layers, call.x, target, **options)
    expect_close(arrays_of(grads), arrays_of(of_host))
    if wanted == "top":
        assert of_tape == shape[-1], "the way back ends at the top"
    if wanted == "top's last direction":
        assert of_tape == 1


def test_a_readout_alone_needs_no_way_back(gpu: HostLauncher) -> None:
    call = there(call_of(FEW, "gru", (1, 2)), of_cupy)
    options: dict[str, Any] = {"loss": "squared_error", "at": "all", "wanted": ("w_ho", "b_o")}
    target = of_cupy(np.ones((2, 3, O)))
    _, grads = bptt.value_and_grad("gru", call.layers, call.x, target, **options)
    _, whole = bptt.value_and_grad(
        "gru", call.layers, call.x, target, **{**options, "wanted": None}
    )
    assert [name for name, _ in gpu.launched].count("backward") == 3
    assert set(arrays_of(grads)) == {
        "layers[1][0].w_ho", "layers[1][0].b_o", "layers[1][1].w_ho",
    }  # fmt: skip
    for name, array in arrays_of(grads).items():
        np.testing.assert_array_equal(array, arrays_of(whole)[name])


def test_a_tape_without_gates_holds_less_and_has_the_same_gradients(gpu: HostLauncher) -> None:
    call = there(call_of(NAMED["lengths"], "gru", (2, 1)), of_cupy)
    tapes = [
        bptt.forward("gru", call.layers, call.x, call.state, save=save, **call.case.options)
        for save in ("gates", "minimal")
    ]
    rows = sum(call.case.of_row)
    saved = bptt.CELLS["gru"].saved * rows * H * 8
    assert tapes[0].nbytes - tapes[1].nbytes == 3 * saved
    # x moved, and turned; y of both, read by the one above, and y for the caller; states, those
    # at the beginning in the order of the layer's rows.
    width = call.x.shape[2]
    assert tapes[1].nbytes == 8 * (rows * (2 * width + 3 * H + 2 * H) + 7 * 5 * H + 2 * 3 * 5 * H)
    first, second = (arrays_of(tape.backward(call.dy, call.dstate)) for tape in tapes)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_a_tape_counts_the_zeros_that_it_begins_with(gpu: HostLauncher) -> None:
    call = there(call_of(NAMED["plain"], "lstm", (1, 2)), of_torch)
    for layers, directions, state in (
        (call.layers, 3, call.state),
        (call.layers[0], 1, tuple(part[0] for part in call.state)),
    ):
        given, made = (bptt.forward("lstm", layers, call.x, s).nbytes for s in (state, None))
        assert made - given == 8 * directions * 2 * call.x.shape[1] * H


def test_gradients_come_in_at_either_end(gpu: HostLauncher) -> None:
    call = call_of(NAMED["reset"], "lstm", (1, 2))
    on = there(call, of_torch)
    tape = bptt.forward("lstm", on.layers, on.x, **call.case.options)
    reference = bptt.forward("lstm", call.layers, call.x, **call.case.options, backend="numpy")
    for given in ({"dy": "dy"}, {"dstate": "dstate"}):
        found = tape.backward(**{name: getattr(on, a) for name, a in given.items()})
        wanted = reference.backward(**{name: getattr(call, a) for name, a in given.items()})
        expect_close(arrays_of(found), arrays_of(wanted))


def test_arrays_of_the_host_are_copied_there_and_back(gpu: HostLauncher) -> None:
    call = call_of(FEW, "lstm", (2, 1))
    found = in_one_call(call, "lstm", "cuda")
    assert all(type(array) is np.ndarray for array in found.values())
    expect_close(found, in_one_call(call, "lstm", "numpy"))
    assert gpu.launched


def test_a_dense_pass_copies_nothing_to_the_host_or_from_it(gpu: HostLauncher) -> None:
    call = there(call_of(FEW, "lstm", (2, 1)), of_torch)
    in_one_call(call, "lstm", "auto")
    assert gpu.copies == []
    with_index = there(call_of(Case(2, 3, [1, 2, 0]), "lstm", (2, 1)), of_torch)
    in_one_call(with_index, "lstm", "auto")
    assert set(gpu.copies) == {"upload"}


def test_an_index_is_copied_once_for_all_layers_directions_and_passes(gpu: HostLauncher) -> None:
    call = there(call_of(NAMED["reset"], "lstm", (2, 2, 1)), of_torch)
    tape = bptt.forward("lstm", call.layers, call.x, call.state, **call.case.options)
    tape.backward(call.dy, call.dstate)
    first = len(gpu.copies)
    tape.backward(call.dy, call.dstate)
    assert len(gpu.copies) == first, "the second way back needs nothing new"
    gpu.copies.clear()
    one = there(call_of(NAMED["reset"], "lstm", (2,)), of_torch)
    tape = bptt.forward("lstm", one.layers, one.x, one.state, **one.case.options)
    tape.backward(one.dy, one.dstate)
    assert len(gpu.copies) == first, "layers above copy nothing"


def test_what_cannot_be_is_an_error_that_names_the_argument(gpu: HostLauncher) -> None:
    call = call_of(NAMED["plain"], "lstm", (1, 2))
    on = there(call, of_cupy)

    def forward(layers: Any, x: Any = on.x, state: Any = None, **options: Any) -> Any:
        return bptt.forward("lstm", layers, x, state, **options)

    with pytest.raises(ValueError, match=r"^params\[1\]\[1\]: expected arrays on cuda:0"):
        forward([on.layers[0], (on.layers[1][0], call.layers[1][1])])
    with pytest.raises(ValueError, match=r"x: .*on cuda:0 \(cupy\) as params are, got one on the"):
        forward(on.layers, call.x)
    with pytest.raises(ValueError, match=r"params\[1\]: expected input_size=5 to match the y of"):
        forward([on.layers[0], on.layers[0]])
    with pytest.raises(ValueError, match=r"params\[0\]: w_hh: expected shape \(15, 5\) for cell"):
        bptt.forward("gru", on.layers, on.x)
    with pytest.raises(ValueError, match=r"state\[0\]: expected shape \(3, 5, 5\) .* params and x"):
        forward(on.layers, state=each(lambda a: a[:2], on.state))
    for option in ({"out": object()}, {"memory_limit": 1 << 20}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}: not for arrays on a GPU"):
            forward(on.layers, **option)
    tape = forward(on.layers)
    with pytest.raises(ValueError, match=r"dy: expected shape \(7, 5, 10\) .*tape.y"):
        tape.backward(on.dy[..., :H])
    with pytest.raises(ValueError, match="dy, dstate: expected at least one"):
        tape.backward()
    with pytest.raises(TypeError, match=r"dstate\[1\]: expected an array on cuda:0 .*got NoneType"):
        tape.backward(dstate=(on.state[0], None))
    with pytest.raises(ValueError, match="dc: expected None, as params are a stack"):
        tape.backward(on.dy, dc=on.dy)
    with pytest.raises(ValueError, match="per_row: not for arrays on a GPU"):
        tape.backward(on.dy, per_row="norm")
    with pytest.raises(ValueError, match="wanted: "):
        tape.backward(on.dy, wanted="layers[2]")
    assert "GpuStackTape('lstm', 2 layers, y=(7, 5, 10), on cuda:0 (cupy)" in repr(tape)
    tape.release()
    assert tape.nbytes == 0
    assert repr(tape) == "GpuStackTape('lstm', released)"
    for call_it in (lambda: tape.backward(on.dy), lambda: tape.y, lambda: tape.state):
        with pytest.raises(RuntimeError, match="released"):
            call_it()
    options: dict[str, Any] = {"loss": "squared_error", "at": "all"}
    without = [bptt.Params(on.layers[0].w_ih, on.layers[0].w_hh)]
    with pytest.raises(ValueError, match="value_and_grad needs the readout weights"):
        bptt.value_and_grad("lstm", without, on.x, on.x, **options)
    for layers, x in ((on.layers, on.x), (on.layers[0], on.x), (call.layers, on.x)):
        with pytest.raises(TypeError, match="predict: computed on the host alone, from arrays"):
            bptt.predict("lstm", layers, x)
