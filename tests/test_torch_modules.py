"""`bptt.torch`'s modules do what PyTorch's do: its own cases of them, values, gradients, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)

import bptt.torch  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_sequence  # noqa: E402
from torch_modules import KINDS, PAIRS, SHAPE, error, pair, same, state_of, tensors  # noqa: E402

pytestmark = pytest.mark.pairs  # of modules, dtypes, shapes and options

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

# --- PyTorch's own cases ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def infos() -> dict[type, Any]:
    """What PyTorch tests of each module."""
    pytest.importorskip("expecttest", reason="PyTorch's own test cases need it")
    from torch.testing._internal.common_modules import module_db

    return {info.module_cls: info for info in module_db if info.module_cls in PAIRS}


def cases_of(info: Any, dtype: torch.dtype, **more: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Ours and theirs with the same weights, and the arguments of a call."""
    options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": True, **more}
    for case in info.module_inputs_func(info, **options):
        made = case.constructor_input
        theirs, ours = pair(info.module_cls, *made.args, **made.kwargs, dtype=dtype)
        assert not case.forward_input.kwargs
        yield theirs, ours, case.forward_input.args


@KINDS
@DTYPES
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.full_product
def test_cases_of_pytorch_agree(
    infos: dict[type, Any], kind: type, dtype: torch.dtype, packed: bool
) -> None:
    count = 0
    for theirs, ours, args in cases_of(infos[kind], dtype, with_packed_sequence=packed):
        if not theirs.proj_size:  # which goes to PyTorch
            assert bptt.torch.why(ours, *args).startswith("bptt ")
            same(theirs, ours, args)
            count += 1
        assert repr(ours) == repr(theirs)
    assert count >= 16


@KINDS
@pytest.mark.full_product
def test_derivatives_of_both_orders_are_those_of_finite_differences(
    infos: dict[type, Any], kind: type
) -> None:
    for number, (theirs, ours, args) in enumerate(cases_of(infos[kind], torch.float64)):
        if number % 8 != 3 or theirs.proj_size:
            continue
        leaves = [*tensors(args), *ours.parameters()]

        def call(*_: torch.Tensor, ours: Any = ours, args: Any = args) -> tuple[torch.Tensor, ...]:
            return tuple(tensors(ours(*args)))

        assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


@KINDS
@DTYPES
def test_errors_of_pytorch_are_ours(infos: dict[type, Any], kind: type, dtype: torch.dtype) -> None:
    options = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": False}
    for case in infos[kind].module_error_inputs_func(infos[kind], **options):
        made, given = (
            case.module_error_input.constructor_input,
            case.module_error_input.forward_input,
        )

        def call(of: type, made: Any = made, given: Any = given) -> None:
            module = of(*made.args, **made.kwargs)
            module(*given.args, **given.kwargs)

        found = error(call, PAIRS[kind])
        assert found == error(call, kind)
        assert found[0] is case.error_type
        assert re.search(case.error_regex, found[1])


# --- as people call them ------------------------------------------------------------------------


@KINDS
@DTYPES
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize("batch", [None, 1, 4, 0])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_values_and_gradients_are_those_of_pytorch(
    kind: type,
    dtype: torch.dtype,
    given: bool,
    batch: int | None,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    bias: bool,
) -> None:
    torch.manual_seed(0)
    options = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
    theirs, ours = pair(kind, **SHAPE, num_layers=layers, dtype=dtype, **options)
    x = torch.randn(7, 3, dtype=dtype)
    if batch is not None:
        x = torch.randn(7, batch, 3, dtype=dtype)
        x = x.transpose(0, 1) if batch_first else x
    of_batch = () if batch is None else (batch,)
    same(theirs, ours, (x, state_of(ours, *of_batch, dtype=dtype)) if given else (x,))


@KINDS
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize("lengths", [(4, 4, 4), (6, 2, 1), (2, 6, 1, 6)], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
def test_packed_sequences_come_out_as_they_went_in(
    kind: type, given: bool, lengths: tuple[int, ...], bidirectional: bool
) -> None:
    torch.manual_seed(0)
    theirs, ours = pair(kind, **SHAPE, num_layers=2, bidirectional=bidirectional)
    packed = pack_sequence([torch.randn(n, 3) for n in lengths], enforce_sorted=False)
    args = (packed, state_of(ours, len(lengths))) if given else (packed,)
    same(theirs, ours, args)
    expected, found = theirs(*args)[0], ours(*args)[0]
    assert isinstance(found, PackedSequence)
    for e, f in zip(expected[1:], found[1:], strict=True):
        assert torch.equal(e, f)


@KINDS
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_dropout_draws_the_random_numbers_of_pytorch(
    kind: type, packed: bool, training: bool
) -> None:
    torch.manual_seed(0)
    theirs, ours = pair(kind, **SHAPE, num_layers=3, dropout=0.4, bidirectional=True)
    theirs.train(training)
    ours.train(training)
    x = torch.randn(6, 4, 3)
    same(theirs, ours, (pack_sequence([x[:n, 0] for n in (6, 3, 2)]) if packed else x,))


def test_relu_of_the_elman_cell() -> None:
    theirs, ours = pair(torch.nn.RNN, **SHAPE, nonlinearity="relu")
    same(theirs, ours, (torch.randn(5, 2, 3),))


@KINDS
def test_a_tensor_as_it_lies_in_memory_is_read_right(kind: type) -> None:
    """Strided, expanded, overlapping, and with a sign that is kept as a bit."""
    theirs, ours = pair(kind, **SHAPE)
    whole = torch.randn(3, 8, 6)
    negated = torch.view_as_complex(torch.randn(4, 2, 3, 2)).conj().imag
    assert negated.is_neg()
    for x in (whole.permute(2, 1, 0)[::2, ::3], whole[:1, :, ::2].expand(4, 8, 3), negated):
        assert bptt.torch.why(ours, x).startswith("bptt ")
        with torch.no_grad():
            for e, f in zip(tensors(theirs(x)), tensors(ours(x)), strict=True):
                torch.testing.assert_close(f, e, atol=2e-5, rtol=0)


# --- bad input ----------------------------------------------------------------------------------


def wrong_calls(kind: type) -> dict[str, tuple[Any, ...]]:
    x, h = torch.randn(4, 2, 3), torch.randn(1, 2, 5)
    one = (lambda t: (t, t)) if kind is torch.nn.LSTM else (lambda t: t)
    packed = pack_sequence([x[:, 0], x[:3, 1]])
    return {
        "one axis": (x[0, 0],),
        "four axes": (x[None],),
        "features": (x[..., :2],),
        "no steps": (x[:0],),
        "float64": (x.double(),),
        "integers": (x.long(),),
        "another device": (x.to("meta"),),
        "hx of another device": (x, one(h.to("meta"))),
        "hx of another batch": (x, one(h[:, :1])),
        "hx of other layers": (x, one(h.expand(2, 2, 5))),
        "hx of another dtype": (x, one(h.double())),
        "hx without its batch": (x, one(h[:, 0])),
        "hx with a batch": (x[:, 0], one(h)),
        "no pair": (x, h if kind is torch.nn.LSTM else (h, h)),
        "three": (x, (h, h, h)),
        "one alone": (x, (h,)),
        "hx of numbers": (x, one(1.0)),
        "a list": ([1.0],),
        "None": (None,),
        "an array": (x.numpy(),),
        "packed, float64": (packed.to(torch.float64),),
        "packed, hx of another batch": (packed, one(h[:, :1])),
        "packed, hx without its batch": (packed, one(h[:, 0])),
        "packed, sizes too large": (packed._replace(batch_sizes=torch.tensor([2, 2, 2, 2])),),
        "packed, sizes too small": (packed._replace(batch_sizes=torch.tensor([2, 2, 2])),),
        "packed, sizes that grow": (packed._replace(batch_sizes=torch.tensor([1, 2, 2, 2])),),
        "packed, three axes": (packed._replace(data=packed.data[:, None]),),
    }


def outcome(module: torch.nn.Module, *args: Any) -> Any:
    """The error of a call, or the shapes and devices of what comes out: PyTorch lets some pass."""
    try:
        found = module(*args)
    except Exception as raised:
        return type(raised), str(raised)
    return [(t.shape, t.device) for t in tensors(found)]


@KINDS
@pytest.mark.parametrize("wrong", wrong_calls(torch.nn.RNN))
@pytest.mark.full_product
def test_a_wrong_call_raises_what_pytorch_raises(kind: type, wrong: str) -> None:
    theirs, ours = pair(kind, **SHAPE)
    args = wrong_calls(kind)[wrong]
    expected, found = outcome(theirs, *args), outcome(ours, *args)
    assert found == expected


@KINDS
def test_a_module_of_another_dtype_or_device_than_its_input_raises_what_pytorch_raises(
    kind: type,
) -> None:
    x = torch.randn(4, 2, 3)
    for change in (torch.nn.Module.half, torch.nn.Module.double, lambda m: m.to("meta")):
        theirs, ours = map(change, pair(kind, **SHAPE))
        assert error(ours, x) == error(theirs, x)


@KINDS
def test_second_derivatives_under_autocast_are_those_without(kind: type) -> None:
    module = PAIRS[kind](3, 7)
    x = torch.randn(4, 3, 3)

    def penalty(enabled: bool) -> tuple[torch.Tensor, ...]:
        leaf = x.clone().requires_grad_()
        y = module(leaf)[0]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (first,) = torch.autograd.grad(y.sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        return first.detach(), second

    for found, expected in zip(penalty(True), penalty(False), strict=True):
        assert torch.equal(found, expected)
