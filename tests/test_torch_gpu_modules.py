"""`bptt.torch.RNN`, `GRU` and `LSTM` on tensors of a GPU, for which CPU tensors stand here: the
kernels run on fibres (host_launcher.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import bptt
import pytest
from host_launcher import HostLauncher, host_gpu

torch = pytest.importorskip("torch")
import bptt.torch  # noqa: E402
from bptt.torch import autograd, compiling, gpu_passes, gpu_use, telling  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_sequence  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch_modules import KINDS, PAIRS, error, pair, results, same, state_of, tensors  # noqa: E402

INPUTS, H = 3, 7
SIZES = {"input_size": INPUTS, "hidden_size": H, "dtype": torch.float64}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostLauncher]:
    monkeypatch.setattr(gpu_passes, "on_host", lambda x: False)
    telling._told.clear()
    with host_gpu() as launcher:
        yield launcher


def names(gpu: HostLauncher) -> list[str]:
    return [name for name, _ in gpu.launched]


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def packed() -> PackedSequence:
    of_lengths = [drawn(length, INPUTS) for length in (2, 4, 1)]
    return pack_sequence(of_lengths, enforce_sorted=False)


# --- the values of PyTorch -----------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.pairs
def test_values_and_gradients_are_those_of_pytorch(
    kind: type,
    given: bool,
    batch: int | None,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    bias: bool,
    gpu: HostLauncher,
) -> None:
    torch.manual_seed(0)
    options = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias}
    theirs, ours = pair(kind, **SIZES, batch_first=batch_first, **options)
    sizes = () if batch is None else (batch,)
    x = drawn(*sizes, 4, INPUTS) if batch_first else drawn(4, *sizes, INPUTS)
    args = (x, state_of(ours, *sizes, dtype=torch.float64)) if given else (x,)
    assert bptt.torch.why(ours, *args).startswith("bptt cuda: nobody has timed")
    same(theirs, ours, args)
    directions = layers * (1 + bidirectional)
    assert names(gpu) == ["forward"] * directions + ["backward"] * directions


@KINDS
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_packed_sequences_go_in_and_come_out(
    kind: type, given: bool, options: dict[str, Any], gpu: HostLauncher
) -> None:
    theirs, ours = pair(kind, **SIZES, **options)
    args = (packed(), state_of(ours, 3, dtype=torch.float64)) if given else (packed(),)
    same(theirs, ours, args)
    assert len(gpu.launched) == (8 if options else 2)
    (found, _), (expected, _) = ours(*args), theirs(*args)
    assert found._replace(data=expected.data) == expected


def test_float32(gpu: HostLauncher) -> None:
    theirs, ours = pair(torch.nn.LSTM, INPUTS, H)
    same(theirs, ours, (drawn(4, 3, INPUTS, dtype=torch.float32),))
    assert gpu.launched


def test_dropout_between_layers(gpu: HostLauncher) -> None:
    theirs, ours = pair(torch.nn.LSTM, **SIZES, num_layers=2, dropout=0.5)
    x = drawn(4, 3, INPUTS)
    torch.manual_seed(3)
    first = ours(x)[0]
    assert not torch.equal(ours(x)[0], first)
    torch.manual_seed(3)
    torch.testing.assert_close(theirs(x)[0], first)
    same(theirs.eval(), ours.eval(), (x,))


def test_relu(gpu: HostLauncher) -> None:
    theirs, ours = pair(torch.nn.RNN, **SIZES, nonlinearity="relu")
    same(theirs, ours, (drawn(4, 3, INPUTS),))
    assert gpu.launched


def test_replaced_layers_run_there(gpu: HostLauncher) -> None:
    model = torch.nn.Sequential(torch.nn.GRU(**SIZES))
    x = drawn(4, 3, INPUTS)
    expected = results(model, (x,))
    assert bptt.torch.replace(model) == ["0"]
    assert not gpu.launched
    for e, f in zip(expected, results(model, (x,)), strict=True):
        torch.testing.assert_close(f, e)
    assert names(gpu) == ["forward", "backward"]


@KINDS
def test_second_derivatives_and_those_of_samples(kind: type, gpu: HostLauncher) -> None:
    theirs, ours = pair(kind, **SIZES)
    x = drawn(3, 2, INPUTS)

    def penalty(module: torch.nn.Module) -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(module(leaf)[0].square().sum(), leaf, create_graph=True)
        module.zero_grad()
        first.square().sum().backward()
        return [first.detach(), leaf.grad, *(w.grad for w in module.parameters())]

    for found, expected in zip(penalty(ours), penalty(theirs), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    assert gpu.launched

    def loss(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(ours, w, (x,))[0].square().sum()

    weights = {name: w.detach() for name, w in ours.named_parameters()}
    samples = drawn(4, 3, 2, INPUTS)
    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, samples)
    for v, sample in enumerate(samples):
        of_one = torch.func.grad(loss)(weights, sample)
        for name, gradient in of_one.items():
            torch.testing.assert_close(found[name][v], gradient)


def test_a_compiled_model_calls_the_same_kernels(
    gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling.allow_compile()
    theirs, ours = pair(torch.nn.LSTM, **SIZES, num_layers=2)
    x = drawn(4, 3, INPUTS)
    try:
        torch._dynamo.reset()
        compiled = torch.compile(ours, backend="eager", fullgraph=True)
        for found, expected in zip(results(compiled, (x,)), results(theirs, (x,)), strict=True):
            torch.testing.assert_close(found, expected)
        assert names(gpu) == ["forward"] * 2 + ["backward"] * 2
        # And what it may not take is PyTorch's, there as in eager mode.
        monkeypatch.setattr(gpu_use._Chosen, "allowed", False)
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(ours, backend="eager")(x)[0], theirs(x)[0])
    finally:
        compiling.allow_compile(False)
        torch._dynamo.reset()
    assert len(gpu.launched) == 4


@KINDS
@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"num_layers": 2}], ids=str)
@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.masked_fill_(y < 0, 0.0),
        lambda y: y.__setitem__(0, 0.0),
        lambda y: torch.nn.functional.dropout(y, 0.5, inplace=True),
    ],
    ids=["masked_fill_", "setitem", "dropout"],
)
def test_y_may_be_changed_in_place(
    kind: type,
    options: dict[str, Any],
    change: Callable[[torch.Tensor], object],
    gpu: HostLauncher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, ours = pair(kind, **SIZES, **options)
    found = []
    for of_host in (False, True):
        monkeypatch.setattr(gpu_passes, "on_host", lambda x, host=of_host: host)
        torch.manual_seed(3)
        y, _ = ours(drawn(4, 3, INPUTS))
        change(y)
        found.append(y)
        # BPTT reads y.
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    torch.testing.assert_close(*found)
    assert gpu.launched


# --- nothing waits for the device ----------------------------------------------------------------


WAITS = frozenset(
    re.findall(
        r"\w+",
        """
        cpu cuda to item tolist numpy nonzero masked_select unique equal allclose is_nonzero
        argwhere tensor as_tensor from_numpy asarray from_dlpack __array__ __bool__ __int__
        __float__ __index__ __contains__ pin_memory synchronize repeat_interleave
        """,
    )
)


class Watched(TorchFunctionMode):
    """Notes what waits for a device, or copies to it or from it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        by_mask = name in ("__getitem__", "__setitem__", "where", "index_put_") and any(
            isinstance(a, torch.Tensor) and a.dtype is torch.bool for a in args[1:2]
        )
        if name in WAITS or (by_mask and len(args) < 4):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def waits(gpu: HostLauncher, step: Callable[[], object]) -> list[str]:
    step()  # kernels are compiled
    gpu.copies.clear()
    watched, back = Watched(), autograd._Differentiable.backward

    def seen(*given: Any) -> Any:
        with watched:  # which PyTorch leaves for the way back
            return back(*given)

    with pytest.MonkeyPatch.context() as patch, watched:
        patch.setattr(autograd._Differentiable, "backward", staticmethod(seen))
        step()
    assert gpu.launched
    return [*watched.seen, *gpu.copies]


@KINDS
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "dropout": 0.5}], ids=str
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_training_step_of_a_dense_batch_waits_for_nothing(
    kind: type, options: dict[str, Any], batch_first: bool, gpu: HostLauncher
) -> None:
    module = PAIRS[kind](**SIZES, batch_first=batch_first, **options)
    x, hx = drawn(3, 3, INPUTS), state_of(module, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)

    def step() -> None:
        optimizer.zero_grad()
        sum(y.square().sum() for y in tensors(module(x, hx))).backward()

    assert waits(gpu, step) == []


def test_what_waits_is_noticed(gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    module = bptt.torch.GRU(**SIZES)
    sequences = packed()
    assert waits(gpu, lambda: module(sequences)), "the index of packed rows is copied"
    run = gpu_passes.run_forward

    def of_sum(layer: Any, **options: Any) -> Any:
        if layer.x.sum() > 1e9:
            raise AssertionError
        return run(layer, **options)

    x = drawn(3, 3, INPUTS)
    assert waits(gpu, lambda: module(x)) == []
    monkeypatch.setattr(gpu_passes, "run_forward", of_sum)
    assert waits(gpu, lambda: module(x)) == ["__bool__"]
    monkeypatch.setattr(gpu_passes, "run_forward", run)
    run_back = gpu_passes.run_backward

    def of_copy(layer: Any, *given: Any) -> Any:
        layer.x.cpu()
        return run_back(layer, *given)

    assert waits(gpu, lambda: module(x)[0].sum().backward()) == []
    monkeypatch.setattr(gpu_passes, "run_backward", of_copy)
    assert waits(gpu, lambda: module(x)[0].sum().backward()) == ["cpu"]


@KINDS
def test_an_index_of_packed_rows_is_copied_once(kind: type, gpu: HostLauncher) -> None:
    module = PAIRS[kind](**SIZES, num_layers=2, bidirectional=True)
    for _ in range(2):
        gpu.copies.clear()
        module(packed())[0].data.sum().backward()
        assert gpu.copies == ["upload"] * 3, "offsets, the last rows, and those of the step before"


# --- what is PyTorch's ---------------------------------------------------------------------------


def expect_pytorch(
    gpu: HostLauncher, modules: tuple[Any, Any], args: tuple[Any, ...], reason: str
) -> None:
    theirs, ours = modules
    assert reason in bptt.torch.why(ours, *args)
    for found, expected in zip(tensors(ours(*args)), tensors(theirs(*args)), strict=True):
        assert torch.equal(found, expected)
    assert not gpu.launched


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_autocast_half_precision_and_projections_are_pytorchs(gpu: HostLauncher) -> None:
    x = drawn(4, 3, INPUTS, dtype=torch.float32)
    modules = pair(torch.nn.LSTM, INPUTS, H)
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(UserWarning, match="autocast"):
        expect_pytorch(gpu, modules, (x,), "torch: autocast")
    half = tuple(module.bfloat16() for module in modules)
    with pytest.warns(UserWarning, match="bfloat16"):
        expect_pytorch(gpu, half, (x.bfloat16(),), "torch: input is of torch.bfloat16")
    projected = pair(torch.nn.LSTM, INPUTS, H, proj_size=2)
    with pytest.warns(UserWarning, match="proj_size"):
        expect_pytorch(gpu, projected, (x,), "torch: proj_size")


def test_one_call_leaves_gpus_to_pytorch(gpu: HostLauncher) -> None:
    modules, x = pair(torch.nn.GRU, **SIZES), drawn(4, 3, INPUTS)
    bptt.torch.allow_cuda(False)
    try:
        reason = "torch: input is on cpu, and bptt.torch.allow_cuda(False) leaves GPUs to PyTorch"
        expect_pytorch(gpu, modules, (x,), reason)
    finally:
        bptt.torch.allow_cuda()
    modules[1](x)
    assert gpu.launched
    with pytest.raises(TypeError, match="allow: expected True or False, got str"):
        bptt.torch.allow_cuda("no")


def test_without_the_backend_they_are_pytorchs_which_is_said_once(
    gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_use._missing.cache_clear()
    monkeypatch.setattr(gpu, "missing", lambda: "no GPU for us")
    modules, x = pair(torch.nn.GRU, **SIZES), drawn(4, 3, INPUTS)
    with pytest.warns(UserWarning, match="backend 'cuda' is not available: no GPU for us"):
        expect_pytorch(gpu, modules, (x,), "torch: input is on cpu, and backend 'cuda' is not")
    expect_pytorch(gpu, modules, (x,), "no GPU for us")
    gpu_use._missing.cache_clear()


def test_other_devices_and_mixed_ones_are_pytorchs(gpu: HostLauncher) -> None:
    theirs, ours = pair(torch.nn.GRU, **SIZES)
    x, hx = drawn(4, 3, INPUTS), torch.empty(1, 3, H, dtype=torch.float64, device="meta")
    assert bptt.torch.why(ours, x, hx) == (
        "torch: hx is on meta and input on cpu, which PyTorch has to judge"
    )
    assert error(ours, x, hx) == error(theirs, x, hx)
    assert not gpu.launched


def test_lack_of_memory_is_pytorchs_error(
    gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    module, x = bptt.torch.LSTM(**SIZES), drawn(4, 3, INPUTS)
    y, _ = module(x)
    monkeypatch.setattr(torch.Tensor, "__matmul__", none_left)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 20 GiB"):
        module(x)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 20 GiB"):
        y.sum().backward()
