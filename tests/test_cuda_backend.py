"""Arrays on a GPU through the public functions: the values of NumPy's reference, in float64.

There is no GPU here. The kernels are compiled for this CPU and their threads run as fibres
(host_launcher.py); PyTorch's CPU tensors, and arrays that pass for CuPy's, are the device's memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.array_libraries import Copied
from bptt.backends import cuda
from host_launcher import HostCupy, HostLauncher, OnDevice, OutOfMemoryError, host_gpu
from problems import Problem, by_name, each, make_problem, recorded

CELLS = ("linear", "tanh", "relu", "lstm", "gru")
MOST = 1e-12

# By what runs: the kind of chip, what it lacks, and hidden units that bring it about.
WAYS: dict[str, tuple[str, dict[str, Any], int]] = {
    "OneBlock": ("sm_90", {}, 7),
    "several rows": ("sm_90", {"multiprocessors": 3}, 7),
    "Cluster": ("sm_90", {"multiprocessors": 4}, 70),
    "Grid": ("sm_80", {"multiprocessors": 7}, 70),
    "steps": ("sm_80", {"cooperative": False}, 150),
}
HELD = {("lstm", "several rows"), ("lstm", "Cluster"), ("gru", "Grid")}
RAN = [
    (cell, way)
    for cell in CELLS
    for way in WAYS
    if way == "OneBlock"
    or (cell, way) in HELD
    or (way == "steps" and cell in ("tanh", "lstm", "gru"))
]


def of_torch(array: np.ndarray) -> Any:
    torch = pytest.importorskip("torch")
    return torch.tensor(array)


def of_cupy(array: np.ndarray) -> Any:
    return array.copy().view(OnDevice)


LIBRARIES = {"torch": of_torch, "cupy": of_cupy}


@pytest.fixture(params=LIBRARIES)
def device(request: pytest.FixtureRequest) -> Callable[[np.ndarray], Any]:
    """Copies an array of the host to what passes for a GPU."""
    return LIBRARIES[request.param]


@pytest.fixture
def gpu() -> Iterator[HostLauncher]:
    with host_gpu() as launcher:
        yield launcher


def on(device: Callable[[np.ndarray], Any], problem: Problem) -> Problem:
    """The problem with all its arrays on the device."""
    names = ("x", "state", "dy", "dc", "dstate", "target", "ids", "weights")
    moved = {name: each(device, getattr(problem, name)) for name in names}
    arrays = {name: device(array) for name, array in problem.params.arrays().items()}
    return replace(problem, params=bptt.Params(**arrays), **moved)


def expect_close(found: dict[str, Any], wanted: dict[str, Any], most: float = MOST) -> None:
    assert set(found) == set(wanted)
    for name, reference in wanted.items():
        value = found[name]
        assert tuple(np.shape(value)) == np.shape(reference), name
        error = np.abs(np.asarray(value) - reference).max(initial=0)
        # Of sums of a few hundred products of numbers of about one.
        assert error <= most * max(1, np.abs(reference).max(initial=0)), name


@pytest.mark.parametrize(("cell", "way"), RAN)
def test_both_passes_are_those_of_the_reference(
    cell: str, way: str, device: Callable[[np.ndarray], Any]
) -> None:
    chip, facts, hidden = WAYS[way]
    problem = make_problem(cell, 3, 9, 2, hidden, seed=len(cell))
    with host_gpu(chip, **facts) as launcher:
        found = on(device, problem).forward_backward("auto")
    expect_close(found, problem.forward_backward("numpy"))
    names = {name for name, _ in launcher.launched}
    assert names == ({"one_forward", "one_backward"} if way == "steps" else {"forward", "backward"})
    launches = [launch for _, launch in launcher.launched]
    assert any(launch.cluster > 1 for launch in launches) == (way == "Cluster")
    assert any(launch.cooperative for launch in launches) == (way == "Grid")
    if way == "several rows":
        assert {launch.blocks for launch in launches} == {3}, "groups of 4 rows share 9"
    if way == "Grid":
        assert len(launches) > 2, "more groups than run at a time"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (1, 1), (0, 0)])
def test_no_steps_and_no_rows_are_defined(
    cell: str, sizes: tuple[int, int], gpu: HostLauncher, device: Callable[[np.ndarray], Any]
) -> None:
    problem = make_problem(cell, *sizes, 2, 7)
    expect_close(on(device, problem).forward_backward("auto"), problem.forward_backward("numpy"))


@pytest.mark.parametrize("way", ["OneBlock", "steps"])
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_sequences_of_several_lengths_and_pieces(
    cell: str, way: str, device: Callable[[np.ndarray], Any]
) -> None:
    chip, facts, hidden = WAYS[way]
    problem = make_problem(cell, 5, 4, 2, hidden)
    reset = np.zeros((5, 4), bool)
    reset[0, 1] = reset[2, 1] = reset[3, 3] = True
    lengths = [3, 5, 0, 4]
    cases: list[dict[str, Any]] = [
        {"lengths": lengths},
        {"lengths": lengths, "reverse": True},
        {"reset": reset},
        {"reset": reset, "lengths": lengths, "reverse": True},
        {"batch_first": True},
        {"batch_first": True, "lengths": [5, 1, 2]},
        {"batch_sizes": [4, 2, 2, 1]},
    ]
    with host_gpu(chip, **facts):
        for options in cases:
            of_case = arranged(problem, options)
            found = passed(on(device, of_case), options, "auto")
            expect_close(found, passed(of_case, options, "numpy"))


def arranged(problem: Problem, options: dict[str, Any]) -> Problem:
    """The arrays of all steps as a caller with such sequences has them; NaN where none is."""

    def change(array: np.ndarray) -> np.ndarray:
        if "batch_sizes" in options:
            return np.concatenate(
                [a[:n] for a, n in zip(array, options["batch_sizes"], strict=False)]
            )
        if options.get("batch_first"):
            array = np.ascontiguousarray(
                array.swapaxes(0, 1)[: len(options.get("lengths", array[0]))]
            )
        array = array.copy()
        for b, length in enumerate(options.get("lengths", ())):
            rest = array[b, length:] if options.get("batch_first") else array[length:, b]
            rest[...] = np.nan if array.dtype.kind == "f" else -100
        return array

    batch = len(options.get("lengths", range(4)))

    def of_state(s: np.ndarray) -> np.ndarray:
        return s[:batch].copy()

    names = ("x", "dy", "dc", "target", "ids", "weights")
    return replace(
        problem,
        **{name: each(change, getattr(problem, name)) for name in names},
        state=each(of_state, problem.state),
        dstate=each(of_state, problem.dstate),
    )


def passed(p: Problem, options: dict[str, Any], backend: str) -> dict[str, Any]:
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend, **options)
    return {**recorded(tape), **by_name(p.backward(tape))}


@pytest.mark.parametrize("cell", ["relu", "lstm", "gru"])
def test_each_gradient_that_comes_in_may_be_missing(
    cell: str, gpu: HostLauncher, device: Callable[[np.ndarray], Any]
) -> None:
    problem = make_problem(cell, 4, 3, 2, 7, biases=(), with_state=False)
    there = on(device, problem)
    for dy, dstate in ((True, False), (False, True)):
        found = there.forward_backward("cuda", dy=dy, dstate=dstate)
        expect_close(found, problem.forward_backward("numpy", dy=dy, dstate=dstate))


def test_one_bias_alone(gpu: HostLauncher) -> None:
    for cell in ("tanh", "gru"):
        for bias in ("b_ih", "b_hh"):
            problem = make_problem(cell, 3, 2, 2, 7, biases=(bias,))
            found = on(of_cupy, problem).forward_backward("auto")
            expect_close(found, problem.forward_backward("numpy"))


def test_a_part_of_a_final_state_may_have_no_gradient(gpu: HostLauncher) -> None:
    problem = make_problem("lstm", 3, 2, 2, 7)
    there = on(of_cupy, problem)
    for part in (0, 1):

        def one(dstate: Any, part: int = part) -> Any:
            return tuple(d if i == part else None for i, d in enumerate(dstate))

        found = bptt.forward("lstm", there.params, there.x).backward(dstate=one(there.dstate))
        tape = bptt.forward("lstm", problem.params, problem.x, backend="numpy")
        expect_close(by_name(found), by_name(tape.backward(dstate=one(problem.dstate))))


def test_a_tape_without_gates_computes_them_again(gpu: HostLauncher) -> None:
    for cell in ("tanh", "gru"):
        p = on(of_cupy, make_problem(cell, 3, 2, 2, 7))
        kept, minimal = (
            bptt.forward(cell, p.params, p.x, p.state, save=save) for save in ("gates", "minimal")
        )
        assert minimal.nbytes < kept.nbytes or cell == "tanh"
        wanted = by_name(p.backward(kept))
        for name, value in by_name(p.backward(minimal)).items():
            np.testing.assert_array_equal(value, wanted[name])


def test_what_is_not_wanted_is_none(gpu: HostLauncher) -> None:
    problem = make_problem("lstm", 3, 2, 2, 7)
    there = on(of_cupy, problem)
    tape = bptt.forward("lstm", there.params, there.x)
    wanted = tape.backward(there.dy)
    for names in (("x",), ("w_hh", "b_ih"), "params", ("state",)):
        grads = tape.backward(there.dy, wanted=names)
        chosen = set(wanted.arrays()) if names == "params" else set(names)
        for name in ("x", "w_ih", "w_hh", "b_ih", "b_hh"):
            value = getattr(grads, name)
            assert (value is None) == (name not in chosen), name
            if value is not None:
                np.testing.assert_array_equal(value, getattr(wanted, name))
        assert (grads.state is None) == ("state" not in chosen)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("at", ["last", "all", "step", "step from the end", "weights"])
def test_a_loss_and_its_gradients_are_those_of_the_reference(
    loss: str, at: str, gpu: HostLauncher, device: Callable[[np.ndarray], Any]
) -> None:
    problem = make_problem("gru", 4, 3, 2, 7)
    problem.weights[1, 2] = 0
    problem.target[1, 2] = np.nan if at == "weights" else problem.target[1, 2]
    problem.ids[1, 2] = -100 if at == "weights" else problem.ids[1, 2]
    for reduction in ("mean", "sum"):
        found = on(device, problem).value_and_grad("auto", loss, at, reduction)
        expect_close(found, problem.value_and_grad("numpy", loss, at, reduction))


def test_a_loss_of_sequences_of_several_lengths(gpu: HostLauncher) -> None:
    problem = make_problem("lstm", 5, 4, 2, 7)
    options: dict[str, Any] = {"lengths": [3, 5, 0, 4], "reverse": True}
    given = arranged(problem, options)
    of_one_step = {
        "squared_error": problem.target[0].copy(),
        "cross_entropy": problem.ids[0].copy(),
    }
    of_one_step["squared_error"][2], of_one_step["cross_entropy"][2] = np.nan, -100  # of none
    for loss in ("squared_error", "cross_entropy"):
        for at in ("last", "all", 2):

            def of(p: Problem, at: Any = at, loss: str = loss) -> dict[str, Any]:
                target = p.ids if loss == "cross_entropy" else p.target
                if at != "all":
                    target = of_one_step[loss] if p is given else of_cupy(of_one_step[loss])
                loss_, grads, state = bptt.value_and_grad(
                    "lstm", p.params, p.x, target, loss=loss, at=at, return_state=True, **options
                )
                return {"loss": loss_, "h": state[0], "c": state[1], **by_name(grads)}

            expect_close(of(on(of_cupy, given)), of(given))


def test_arrays_come_back_where_they_came_from(
    gpu: HostLauncher, device: Callable[[np.ndarray], Any]
) -> None:
    p = on(device, make_problem("lstm", 3, 2, 2, 7, dtype="float32"))
    tape = bptt.forward("lstm", p.params, p.x)
    grads = p.backward(tape)
    assert tape.backend == "cuda"
    for array in (tape.y, *tape.state, grads.x, *grads.state, *grads.arrays().values()):
        assert type(array) is type(p.x)
        assert array.dtype == p.x.dtype


def test_float32_is_as_near_as_its_rounding(gpu: HostLauncher) -> None:
    problem = make_problem("lstm", 5, 9, 3, 7, dtype="float32")
    found = on(of_cupy, problem).forward_backward("auto")
    wanted = problem.astype("float64").forward_backward("numpy")
    expect_close(found, wanted, most=2e-6)


def test_arrays_that_are_not_contiguous_or_need_gradients_are_read(gpu: HostLauncher) -> None:
    torch = pytest.importorskip("torch")
    problem = make_problem("tanh", 3, 2, 4, 7)
    p = on(of_torch, problem)
    turned = p.x.transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    assert not turned.is_contiguous()
    w_ih = torch.nn.Parameter(p.params.w_ih)
    params = bptt.Params(w_ih, *list(p.params.arrays().values())[1:])
    tape = bptt.forward("tanh", params, turned, p.state)
    assert not tape.y.requires_grad
    expect_close({"y": tape.y}, {"y": recorded_of(problem)})


def test_arrays_of_the_host_are_copied_there_and_back(gpu: HostLauncher) -> None:
    for cell in ("tanh", "lstm"):
        problem = make_problem(cell, 3, 2, 2, 7)
        tape = bptt.forward(cell, problem.params, problem.x, problem.state, backend="cuda")
        found = {**recorded(tape), **by_name(problem.backward(tape))}
        assert all(type(array) is np.ndarray for array in found.values())
        expect_close(found, problem.forward_backward("numpy"))
        for loss, at in (("cross_entropy", "last"), ("squared_error", "weights")):
            found = problem.value_and_grad("cuda", loss, at)
            expect_close(found, problem.value_and_grad("numpy", loss, at))
    there = on(of_cupy, problem)
    with pytest.raises(ValueError, match=r"dy: expected an array on the host as x is, got one"):
        tape.backward(there.dy)
    with pytest.raises(TypeError, match="params: expected float32 or float64 on a GPU, got f"):
        bptt.forward("lstm", problem.params.astype("f2"), problem.x.astype("f2"), backend="cuda")


@pytest.mark.parametrize("sees", [None, False])
def test_without_what_copies_them_the_error_says_so(
    sees: bool | None, gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem("tanh", 3, 2, 2, 7)
    monkeypatch.setattr("bptt.array_libraries.COPYING", Copied())
    if sees is None:
        monkeypatch.setitem(sys.modules, "torch", None)
    elif pytest.importorskip("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match=r"by PyTorch, which (is not installed|sees no GPU)"):
        problem.forward_backward("cuda")


def test_arrays_of_another_library_are_read_through_dlpack(gpu: HostLauncher) -> None:
    jnp = pytest.importorskip("jax.numpy")
    pytest.importorskip("torch")
    problem = make_problem("lstm", 3, 2, 2, 7, dtype="float32")
    p = on(jnp.asarray, problem)
    tape = bptt.forward("lstm", p.params, p.x, p.state)
    grads = p.backward(tape)
    for array in (tape.y, tape.c, *tape.state, grads.x, *grads.state, *grads.arrays().values()):
        assert type(array) is type(p.x)
    wanted = problem.astype("float64").forward_backward("numpy")
    expect_close({**recorded(tape), **by_name(grads)}, wanted, most=2e-6)
    found = p.value_and_grad("auto", "cross_entropy", "weights")
    wanted = problem.astype("float64").value_and_grad("numpy", "cross_entropy", "weights")
    expect_close(found, wanted, most=2e-6)
    with pytest.raises(ValueError, match=r"params: .*cuda:0 \(cupy\) as x is, got .*\(DLPack\)"):
        bptt.forward("lstm", p.params, of_cupy(problem.x))


# --- Products of a step in a format of fewer bits -----------------------------------------------

# By the name of a precision, how far from a value the nearest one that it has may lie.
ROUNDING = {"tf32": 2.0**-11, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def by_precision(p: Problem, precision: str | None, **options: Any) -> dict[str, Any]:
    tape: Any = bptt.forward(p.cell, p.params, p.x, p.state, precision=precision, **options)
    assert tape.precision == precision
    return {**recorded(tape), **by_name(p.backward(tape))}


@pytest.mark.parametrize(
    ("cell", "precision", "way", "hidden"),
    [
        ("lstm", "tf32", "Cluster", 70),
        ("tanh", "float16", "OneBlock", 7),
        ("gru", "bfloat16", "Grid", 130),
    ],
)
def test_products_of_a_step_are_of_values_rounded_to_the_precision(
    cell: str, precision: str, way: str, hidden: int
) -> None:
    chip, facts, _ = WAYS[way]
    problem = make_problem(cell, 3, 9, 2, hidden, dtype="float32", seed=len(cell))
    wanted = problem.astype("float64").forward_backward("numpy")
    with host_gpu(chip, **facts) as launcher:
        found = by_precision(on(of_cupy, problem), precision)
    launches = [launch for _, launch in launcher.launched]
    assert any(launch.cluster > 1 for launch in launches) == (way == "Cluster")
    assert any(launch.cooperative for launch in launches) == (way == "Grid")
    expect_close(found, wanted, most=4 * ROUNDING[precision])
    error = np.abs(np.asarray(found["y"]) - wanted["y"]).max()
    assert error > ROUNDING[precision] / 16, "nothing was rounded"


def test_sequences_and_losses_in_a_precision(gpu: HostLauncher) -> None:
    problem = make_problem("gru", 5, 4, 2, 7, dtype="float32")
    most = 4 * ROUNDING["bfloat16"]
    reset = np.zeros((5, 4), bool)
    reset[0, 1] = reset[2, 1] = True
    for options in ({"reset": reset, "lengths": [3, 5, 0, 4]}, {"batch_sizes": [4, 2, 2, 1]}):
        given = arranged(problem, options)
        found = by_precision(on(of_cupy, given), "bfloat16", **options)
        wanted = passed(given.astype("float64"), options, "numpy")
        expect_close(found, wanted, most=most)
        minimal = by_precision(on(of_cupy, given), "bfloat16", save="minimal", **options)
        for name, value in minimal.items():
            np.testing.assert_array_equal(value, found[name])
    p = on(of_cupy, problem)
    layers = [p.params, replace(p.params, w_ih=p.params.w_hh)]
    stacks = [bptt.forward("gru", layers, p.x, precision=each) for each in (None, "bfloat16")]
    exact, rounded = (np.asarray(tape.y) for tape in stacks)
    assert stacks[1].precision == "bfloat16"
    assert 0 < np.abs(exact - rounded).max() < most
    for precision in (None, "bfloat16"):
        loss, grads = bptt.value_and_grad(
            "gru",
            p.params,
            p.x,
            p.ids,
            loss="cross_entropy",
            at="all",
            state=p.state,
            precision=precision,
        )
        found = {"loss": loss, **by_name(grads)}
        wanted = problem.astype("float64").value_and_grad("numpy", "cross_entropy", "all")
        expect_close(found, wanted, most=most)
        exact = abs(loss - wanted["loss"]) < 1e-6
        assert exact == (precision is None)


def test_no_steps_and_no_rows_are_defined_in_a_precision(gpu: HostLauncher) -> None:
    for sizes in ((0, 3), (3, 0)):
        problem = make_problem("gru", *sizes, 2, 7, dtype="float32")
        found = by_precision(on(of_cupy, problem), "bfloat16")
        expect_close(found, problem.astype("float64").forward_backward("numpy"), most=1e-6)


def test_a_precision_that_cannot_be_is_an_error_that_says_so(gpu: HostLauncher) -> None:
    problem = make_problem("lstm", 3, 2, 2, 7, dtype="float32")
    p = on(of_cupy, problem)
    with pytest.raises(ValueError, match=r"precision: expected one of tf32, bfloat16, float16, go"):
        bptt.forward("lstm", p.params, p.x, precision="float32")
    with pytest.raises(TypeError, match="precision: expected a string, got type"):
        bptt.forward("lstm", p.params, p.x, precision=np.float16)
    wide = problem.astype("float64")
    with pytest.raises(ValueError, match="precision: expected None with arrays of float64"):
        bptt.forward("lstm", on(of_cupy, wide).params, of_cupy(wide.x), precision="tf32")
    for backend in ("auto", "numpy"):
        with pytest.raises(ValueError, match="precision: for arrays on a GPU alone, those of the"):
            bptt.forward("lstm", problem.params, problem.x, backend=backend, precision="tf32")
        with pytest.raises(ValueError, match="precision: for arrays on a GPU alone, those of the"):
            bptt.value_and_grad(
                "lstm",
                problem.params,
                problem.x,
                problem.ids,
                loss="cross_entropy",
                at="all",
                backend=backend,
                precision="tf32",
            )
    of_host = make_problem("gru", 3, 2, 2, 7, dtype="float32")
    found = by_precision(of_host, "bfloat16", backend="cuda")  # copied there and back
    assert type(found["y"]) is np.ndarray
    with pytest.raises(ValueError, match="precision: expected None without device, got 'tf32'"):
        bptt.plan("lstm", 3, 2, 2, 7, precision="tf32")
    with pytest.raises(ValueError, match=r"precision: H100 SXM cannot hold W_hh of 2000 units of"):
        bptt.plan("lstm", 3, 2, 2, 2000, device="sm_90", precision="tf32")
    many = make_problem("tanh", 1, 1, 1, 1025, dtype="float32")
    before = len(gpu.launched)
    with pytest.raises(ValueError, match=r"precision: H100 SXM cannot hold W_hh of 1025 units of"):
        by_precision(on(of_cupy, many), "bfloat16")
    assert len(gpu.launched) == before


def recorded_of(problem: Problem) -> np.ndarray:
    return bptt.forward(problem.cell, problem.params, problem.x, problem.state).y


# --- What cannot be ------------------------------------------------------------------------------


def test_without_a_gpu_the_backend_says_why() -> None:
    status = bptt.backends()["cuda"]
    if status.available:
        pytest.skip("there is a GPU")
    p = make_problem("tanh", 2, 2, 2, 3)
    with pytest.raises(RuntimeError, match="backend 'cuda' is not available: "):
        p.forward_backward("cuda")
    assert status.reason in str(bptt.info())


def test_with_a_gpu_the_status_names_it(gpu: HostLauncher) -> None:
    assert bptt.backends()["cuda"].available
    assert "H100" in bptt.backends()["cuda"].reason


def test_arrays_on_different_devices_are_an_error_that_names_one(gpu: HostLauncher) -> None:
    problem = make_problem("lstm", 3, 2, 2, 7)
    there = on(of_cupy, problem)
    with pytest.raises(ValueError, match=r"x: .* on cuda:0 \(cupy\) as params are, got one on the"):
        bptt.forward("lstm", there.params, problem.x)
    with pytest.raises(ValueError, match=r"params: expected arrays on cuda:0 .*on the host"):
        bptt.forward("lstm", problem.params, there.x)
    with pytest.raises(ValueError, match=r"state\[0\]: .*on cuda:0 .*as x is, got one on the host"):
        bptt.forward("lstm", there.params, there.x, problem.state)
    arrays = there.params.arrays()
    with pytest.raises(ValueError, match=r"w_ih: .*on cuda:0 .*as w_hh is, got one on the host"):
        bptt.Params(**{**arrays, "w_ih": problem.params.w_ih})
    with pytest.raises(ValueError, match=r"b_hh: .* on the host as w_hh is, got one on cuda:0"):
        bptt.Params(**{**problem.params.arrays(), "b_hh": there.params.b_hh})
    tape = bptt.forward("lstm", there.params, there.x)
    with pytest.raises(ValueError, match=r"dy: .*on cuda:0 .*as x is, got one on the host"):
        tape.backward(problem.dy)
    with pytest.raises(ValueError, match=r"target: .*on cuda:0 .*as x is, got one on the host"):
        bptt.value_and_grad(
            "lstm", there.params, there.x, problem.target, loss="squared_error", at="all"
        )
    with pytest.raises(ValueError, match=r"target: .*on cuda:0 .*as x is, got one on the host"):
        bptt.value_and_grad(
            "lstm", there.params, there.x, problem.ids, loss="cross_entropy", at="all"
        )


def test_wrong_shapes_and_dtypes_are_errors_that_name_the_argument(gpu: HostLauncher) -> None:
    p = on(of_cupy, make_problem("tanh", 3, 2, 2, 7))
    with pytest.raises(ValueError, match=r"x: expected shape \(T, B, 2\) .*got \(3, 2, 1\)"):
        bptt.forward("tanh", p.params, p.x[..., :1])
    with pytest.raises(TypeError, match="x: expected dtype float64 like w_hh, got float32"):
        bptt.forward("tanh", p.params, p.x.astype("float32"))
    with pytest.raises(TypeError, match="x: expected float32 or float64 on a GPU, got float16"):
        bptt.forward("tanh", p.params, p.x.astype("float16"))
    with pytest.raises(ValueError, match=r"w_hh: expected shape \(28, 7\) for cell 'lstm'"):
        bptt.forward("lstm", p.params, p.x)
    with pytest.raises(TypeError, match=r"state: expected .* 'tanh' is one array, got tuple"):
        bptt.forward("tanh", p.params, p.x, (p.state, p.state))
    tape = bptt.forward("tanh", p.params, p.x)
    with pytest.raises(ValueError, match="dy, dstate, dc: expected at least one"):
        tape.backward()
    with pytest.raises(ValueError, match="dc: cell 'tanh' has no memory c"):
        tape.backward(dc=p.dy)
    with pytest.raises(AttributeError, match="no memory c"):
        _ = tape.c
    tape.release()
    assert tape.nbytes == 0
    with pytest.raises(RuntimeError, match="released"):
        tape.backward(p.dy)
    ids = of_cupy(np.array([0, 9]))
    with pytest.raises(ValueError, match=r"class ids in \[0, 3\), got values from 0 to 9"):
        bptt.value_and_grad("tanh", p.params, p.x, ids, loss="cross_entropy", at="last")


def test_what_a_gpu_has_not_is_an_error_that_says_so(gpu: HostLauncher) -> None:
    problem = make_problem("lstm", 3, 2, 2, 7)
    p = on(of_cupy, problem)
    for option in ({"memory_limit": 1 << 20}, {"checkpoint_every": 2}, {"out": object()}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}: not for arrays on a GPU"):
            bptt.forward("lstm", p.params, p.x, **option)
    tape = bptt.forward("lstm", p.params, p.x)
    for option in ({"truncate": 2}, {"per_row": "norm"}, {"accumulate": True}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}: not for arrays on a GPU"):
            tape.backward(p.dy, **option)
    with pytest.raises(ValueError, match="x: backend 'native' reads arrays of the host"):
        bptt.forward("lstm", p.params, p.x, backend="native")
    with pytest.raises(TypeError, match="backend 'cuda' does not compute cell 'mgu'"):
        bptt.forward("mgu", p.params, p.x)
    with pytest.raises(TypeError, match=r"params: expected arrays in the memory of the host.*cpu"):
        bptt.lag_gradients("lstm", p.params, problem.x, dy=problem.dy)
    with pytest.raises(TypeError, match="backend 'cuda' computes forward"):
        bptt.lag_gradients("lstm", problem.params, problem.x, dy=problem.dy, backend="cuda")
    for call in (lambda: p.params.astype("float32"), lambda: p.params.save("never-written")):
        with pytest.raises(TypeError, match="params: expected arrays in the memory of the host"):
            call()


@pytest.mark.parametrize("where", ["empty", "product"])
def test_what_does_not_fit_the_device_is_a_memory_error_that_says_how_much_it_is(
    where: str, gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    error = torch.OutOfMemoryError if where == "product" else OutOfMemoryError

    def none_left(*_: Any) -> Any:
        raise error("Out of memory allocating 336 bytes\nmore")

    p = make_problem("lstm", 3, 2, 2, 7)
    if where == "empty":
        p = on(of_cupy, p)
        monkeypatch.setattr(HostCupy._cupy, "empty", none_left)
    else:
        p = on(torch.tensor, p)
        monkeypatch.setattr(torch.Tensor, "__matmul__", none_left)
    with pytest.raises(MemoryError, match=r"^cuda:0: Out of memory allocating 336 bytes$"):
        bptt.forward("lstm", p.params, p.x)


# --- Plans ---------------------------------------------------------------------------------------


def test_a_plan_never_asks_for_more_than_a_chip_has() -> None:
    small = {"shared_bytes": 20 << 10, "multiprocessors": 3}
    for chip in cuda.CHIPS.values():
        for facts in ({}, small, {"cooperative": False}, {"most_cluster": 1}):
            having = replace(chip, **facts)
            for cell in CELLS:
                for hidden in (1, 64, 65, 200, 512, 1000, 1025, 4000):
                    for batch in (0, 1, 7, 64, 1000):
                        kind = bptt.CELLS[cell]
                        for itemsize in (4, 8):
                            passes = cuda.passes_for(having, kind, itemsize, batch, hidden)
                            expect_fits(passes, having, hidden, batch)
                        for precision in ("tf32", "bfloat16"):  # float16 is as large
                            if cuda.mma_tiles_for(having, kind, precision, hidden):
                                passes = cuda.passes_for(having, kind, 4, batch, hidden, precision)
                                expect_fits(passes, having, hidden, batch)


def expect_fits(passes: Any, chip: Any, hidden: int, batch: int) -> None:
    tile = passes.tile
    if tile is None:
        return
    assert tile.columns >= hidden
    assert tile.shared_bytes <= chip.shared_bytes
    assert tile.units * passes.blocks >= hidden
    assert tile.rows * passes.groups >= batch
    assert tile.exchange != "Cluster" or passes.blocks <= chip.most_cluster
    if tile.exchange == "Grid":
        assert chip.cooperative
        assert passes.blocks * passes.groups_at_once <= chip.multiprocessors
    assert tile.exchange != "OneBlock" or passes.blocks == 1
    if isinstance(tile, cuda.Tile):
        assert tile.held_values * tile.itemsize <= 512, "half of a thread's 255 registers"
    else:
        for product in (tile.ahead, tile.back):
            assert product.down * product.across - product.kept <= 27, "108 of 255 registers"


def test_a_plan_for_a_chip_tells_what_it_asks_for() -> None:
    plan = bptt.plan("lstm", 1024, 16, 256, 256, device="sm_90")
    assert (plan.exchange, plan.blocks, plan.units, plan.arch) == ("Cluster", 8, 32, "sm_90")
    assert plan.blocks * plan.units == 256
    assert plan.group_rows * plan.groups == 16
    assert 0 < plan.shared_bytes["forward"] < plan.most_shared_bytes == 227 << 10
    assert all(0 < count <= 255 for count in plan.registers.values())
    assert plan.seconds["total"] == plan.seconds["recurrence"] + plan.seconds["products"] > 0
    text = str(plan)
    for words in ("H100 SXM (sm_90)", "held by 8 blocks, which meet in clusters", "of 227 KiB"):
        assert words in text
    assert "predicted of assumed costs: nothing of this ran on a GPU" in text
    by_tensor_cores = bptt.plan("lstm", 1024, 16, 256, 768, device="sm_90", precision="bfloat16")
    assert by_tensor_cores.precision == "bfloat16"
    assert by_tensor_cores.blocks * by_tensor_cores.units >= 768
    assert "lstm float32 by bfloat16" in str(by_tensor_cores)
    exact = bptt.plan("lstm", 1024, 16, 256, 768, device="sm_90")
    assert by_tensor_cores.seconds["recurrence"] < exact.seconds["recurrence"]
    on_ampere = bptt.plan("lstm", 1024, 16, 256, 256, device="sm_80")
    assert on_ampere.exchange == "Grid"
    assert on_ampere.blocks * on_ampere.groups_at_once <= 108
    wide = bptt.plan("gru", 10, 16, 256, 2000, device="sm_86")
    assert wide.exchange is None
    assert set(wide.registers) == {"one_forward", "one_backward"}
    assert wide.to_dict()["rows"] == 160


def test_registers_of_a_plan_are_estimated_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bptt.device_plan.nvrtc_missing", lambda arch: "none")
    plan = bptt.plan("lstm", 10, 16, 256, 256, device="sm_90")
    assert plan.registers_from == "estimated"
    assert "registers (estimated)" in str(plan)


def test_a_plan_for_a_device_counts_the_steps_that_are_there() -> None:
    whole = bptt.plan("tanh", 10, 4, 3, 64, device="sm_90")
    ragged = bptt.plan("tanh", 10, 4, 3, 64, lengths=[5, 0, 2, 1], device="sm_90")
    assert (ragged.steps, ragged.rows) == (5, 8)
    assert ragged.seconds["recurrence"] == whole.seconds["recurrence"] / 2


def test_a_plan_for_a_device_that_is_none_is_an_error(gpu: HostLauncher) -> None:
    assert bptt.plan("tanh", 10, 4, 3, 64, device="cuda:0").device == "H100 SXM"
    with pytest.raises(TypeError, match="device: expected a string, got int"):
        bptt.plan("tanh", 10, 4, 3, 64, device=90)
    # It does not resemble sm_120 because its letters do.
    with pytest.raises(ValueError, match=r"device: expected one of sm_80, .*, got 'sm_10'$"):
        bptt.plan("tanh", 10, 4, 3, 64, device="sm_10")
    with pytest.raises(ValueError, match=r"^output_size: expected None with device$"):
        bptt.plan("tanh", 10, 4, 3, 64, output_size=2, device="sm_90")
    with pytest.raises(ValueError, match=r"^threads, checkpoint_every: expected None with device$"):
        bptt.plan("tanh", 10, 4, 3, 64, threads=1, checkpoint_every=5, device="sm_90")
    with pytest.raises(TypeError, match="dtype: expected float32 or float64 on a GPU, got float16"):
        bptt.plan("tanh", 10, 4, 3, 64, "float16", device="sm_90")
    with pytest.raises(TypeError, match="backend 'cuda' does not compute cell 'mgu'"):
        bptt.plan("mgu", 10, 4, 3, 64, device="sm_90")
