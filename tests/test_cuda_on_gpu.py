"""The backend cuda on a real GPU, where there is one with PyTorch: none was there when this was
written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends import cuda
from problems import make_problem
from sequences import NAMED
from test_cuda_backend import ROUNDING, arranged, by_precision, expect_close, on, passed
from test_cuda_stacks import there
from test_stack_sequences import call_of, in_one_call

torch = pytest.importorskip("torch")
import bptt.torch  # noqa: E402

STATUS = bptt.backends()["cuda"]
pytestmark = pytest.mark.skipif(
    not (STATUS.available and torch.cuda.is_available()),
    reason=f"backend cuda is {STATUS}; PyTorch sees a GPU: {torch.cuda.is_available()}",
)


def on_gpu(array: np.ndarray) -> Any:
    return torch.tensor(array, device="cuda")


def to_host(found: dict[str, Any]) -> dict[str, Any]:
    return {n: a.cpu().numpy() if isinstance(a, torch.Tensor) else a for n, a in found.items()}


@pytest.mark.parametrize("cell", sorted(cuda.CELLS))
@pytest.mark.parametrize("sizes", [(0, 3, 7), (3, 0, 7), (7, 3, 7), (33, 9, 70), (17, 31, 300)])
def test_the_values_are_those_of_the_reference(cell: str, sizes: tuple[int, int, int]) -> None:
    steps, batch, hidden = sizes
    problem = make_problem(cell, steps, batch, 5, hidden)
    found = to_host(on(on_gpu, problem).forward_backward("auto"))
    expect_close(found, problem.forward_backward("numpy"))


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_layers_that_no_chip_holds_are_run_step_by_step(cell: str) -> None:
    problem = make_problem(cell, 5, 3, 5, 1100)
    assert bptt.plan(cell, 5, 3, 5, 1100, "float64", device="cuda").exchange is None
    found = to_host(on(on_gpu, problem).forward_backward("auto"))
    expect_close(found, problem.forward_backward("numpy"))


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_sequences_of_several_lengths(cell: str) -> None:
    problem = make_problem(cell, 5, 4, 2, 70)
    for options in ({"lengths": [3, 5, 0, 4], "reverse": True}, {"batch_sizes": [4, 2, 2, 1]}):
        of_case = arranged(problem, options)
        found = to_host(passed(on(on_gpu, of_case), options, "auto"))
        expect_close(found, passed(of_case, options, "numpy"))


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("sizes", [(0, 3, 7), (7, 3, 7), (33, 9, 70), (17, 31, 300)])
def test_products_of_a_step_by_tensor_cores(precision: str, sizes: tuple[int, int, int]) -> None:
    steps, batch, hidden = sizes
    for cell in ("tanh", "lstm", "gru"):
        problem = make_problem(cell, steps, batch, 5, hidden, dtype="float32")
        found = to_host(by_precision(on(on_gpu, problem), precision))
        wanted = problem.astype("float64").forward_backward("numpy")
        expect_close(found, wanted, most=32 * ROUNDING[precision])  # after some steps


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_a_loss_and_its_gradients(loss: str) -> None:
    problem = make_problem("gru", 9, 3, 2, 70)
    for at in ("last", "weights"):
        found = to_host(on(on_gpu, problem).value_and_grad("auto", loss, at))
        expect_close(found, problem.value_and_grad("numpy", loss, at))


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("name", ["plain", "lengths", "all of padded rows", "batch_sizes"])
def test_stacks(cell: str, name: str) -> None:
    call = call_of(NAMED[name], cell, (2, 1))
    found = to_host(in_one_call(there(call, on_gpu), cell, "auto"))
    expect_close(found, in_one_call(call, cell, "numpy"))


def test_the_same_call_has_the_same_bits_also_on_another_stream() -> None:
    p = on(on_gpu, make_problem("lstm", 40, 16, 64, 256, dtype="float32"))
    first = to_host(p.forward_backward("auto"))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        again = p.forward_backward("auto")
    stream.synchronize()
    for name, value in to_host(again).items():
        np.testing.assert_array_equal(value, first[name])


def test_no_call_waits_for_the_device() -> None:
    p = on(on_gpu, make_problem("lstm", 10, 16, 64, 256, dtype="float32"))
    expect_no_waiting(lambda: p.backward(bptt.forward("lstm", p.params, p.x, p.state)))


def test_no_training_step_of_a_module_waits_for_the_device() -> None:
    module = bptt.torch.LSTM(64, 256, num_layers=2, bidirectional=True, dropout=0.1).cuda()
    x = torch.randn(10, 16, 64, device="cuda")
    assert bptt.torch.why(module, x).startswith("bptt cuda")
    expect_no_waiting(lambda: module(x)[0].square().mean().backward())


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("packed", [False, True])
def test_modules_have_the_values_of_pytorch(kind: str, packed: bool) -> None:
    options = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64}
    theirs = getattr(torch.nn, kind)(5, 70, **options).cuda()
    ours = getattr(bptt.torch, kind)(5, 70, **options).cuda()
    ours.load_state_dict(theirs.state_dict())
    x: Any = torch.randn(9, 3, 5, dtype=torch.float64, device="cuda")
    if packed:
        lengths = [4, 9, 1]
        x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    found = []
    for module in (theirs, ours):
        y = module(x)[0]
        (y.data if packed else y).square().sum().backward()
        found.append([y.data.detach(), *(w.grad for w in module.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def expect_no_waiting(step: Callable[[], Any]) -> None:
    step()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
