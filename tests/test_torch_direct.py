"""Tensors that the compiled kernels read as they lie, and those that they leave to others."""

from __future__ import annotations

from typing import Any

import bptt
import pytest
from bptt.backends import REGISTRY
from conftest import BACKENDS

torch = pytest.importorskip("torch")
import bptt.torch  # noqa: E402
from bptt.torch import direct  # noqa: E402

pytestmark = pytest.mark.skipif(
    "native" not in BACKENDS or not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"),
    reason="needs the native backend, and tensors that DLPack shows to C",
)
T, B, I, H = 5, 2, 3, 4  # noqa: E741
KINDS = pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of the kernels was made on tensors."""
    found: list[bool] = []
    for name in ("forward", "backward"):
        call = getattr(direct, name)

        def noted(*arguments: Any, call: Any = call) -> Any:
            result = call(*arguments)
            found.append(result is not None)
            return result

        monkeypatch.setattr(direct, name, noted)
    return found


def pair(kind: str, **how: Any) -> tuple[Any, Any]:
    theirs = getattr(torch.nn, kind)(I, H, **how)
    ours = getattr(bptt.torch, kind)(I, H, **how)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def gradients(module: Any, x: Any, hx: Any = None) -> list[Any]:
    y, last = module(x, hx)
    last = last if isinstance(last, tuple) else (last,)
    loss = (y * y.detach().cos()).sum() + sum((part * part).sum() for part in last)
    leaves = [t for t in (x, *module.parameters()) if t.requires_grad]
    return [y, *last, *torch.autograd.grad(loss, leaves)]


def close(found: Any, expected: Any) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@KINDS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("state", [True, False])
def test_a_layer_is_one_call_each_way(
    kind: str, bias: bool, state: bool, taken: list[bool]
) -> None:
    ours, theirs = pair(kind, bias=bias)
    x, h = torch.randn(T, B, I, requires_grad=True), torch.randn(1, B, H)
    hx = ((h, -h) if kind == "LSTM" else h) if state else None
    close(gradients(ours, x, hx), gradients(theirs, x, hx))
    assert taken == [True, True]


def negated(x: Any) -> Any:
    return torch._neg_view(-x)


@KINDS
@pytest.mark.parametrize(
    "make",
    [
        negated,
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.cat([x, x], -1)[..., ::2],
        lambda x: x[:1].expand(T, B, I),
    ],
)
def test_tensors_that_do_not_lie_as_their_axes_say(kind: str, make: Any, taken: list[bool]) -> None:
    ours, theirs = pair(kind)
    x = torch.randn(T, B, I)
    close(gradients(ours, make(x)), gradients(theirs, make(x)))
    assert taken == [True, True]


@KINDS
def test_a_negated_or_transposed_weight(kind: str, taken: list[bool]) -> None:
    ours, theirs = pair(kind)
    for module in (ours, theirs):
        module.weight_hh_l0.data = negated(module.weight_hh_l0.detach())
        module.weight_ih_l0.data = module.weight_ih_l0.detach().T.contiguous().T
    x = torch.randn(T, B, I)
    close(gradients(ours, x), gradients(theirs, x))
    assert taken == [True, True]


@KINDS
@pytest.mark.parametrize("case", ["x", "state", "rank", "dtype", "type"])
def test_what_does_not_fit_is_an_error_of_pytorch(kind: str, case: str) -> None:
    x = torch.randn(T, B, I)
    errors = []
    for module in pair(kind):
        given: Any = {
            "x": (torch.randn(T, B, I + 1), None),
            "state": (x, torch.zeros(1, B + 1, H)),
            "rank": (x, torch.zeros(B, H)),
            "dtype": (x.double(), None),
            "type": (x, [[1.0]]),
        }[case]
        state = given[1]
        with pytest.raises(Exception) as raised:  # noqa: PT011
            module(given[0], (state, state) if kind == "LSTM" and state is not None else state)
        errors.append((raised.type, str(raised.value)))
    assert errors[0] == errors[1]


@KINDS
def test_results_are_memory_of_their_own(kind: str) -> None:
    ours, _ = pair(kind)
    x = torch.randn(T, B, I)
    first = ours(x)
    kept = [t.clone() for t in gradients(ours, x)]
    large = bptt.torch.LSTM(64, 256)  # whose gates lie in pages of their own
    y, _ = large(torch.randn(40, 32, 64))
    y.square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in large.parameters())
    del first, y, large
    close(gradients(ours, x), kept)


def test_gradients_of_each_row() -> None:
    cell = bptt.CELLS["gru"]
    flat = tuple(torch.randn(*s) for s in ((T, B, I), (B, H), (12, I), (12, H), (12,), (12,)))
    found = direct.forward(cell, flat, None, False, True)
    assert found is not None
    y, _, gates = found
    needed, dy = (False, False, True, True, True, True), torch.randn(T, B, H)
    ways = [
        direct.backward(cell, flat, None, False, (y, gates), (dy, None), needed, apart)
        for apart in (False, True)
    ]
    assert ways[0] is not None
    assert ways[1] is not None
    for whole, rows in zip(ways[0][2:], ways[1][2:], strict=True):
        assert rows is not None
        torch.testing.assert_close(rows.sum(0), whole)


@pytest.mark.skipif("numba" not in BACKENDS, reason="needs Numba")
def test_without_the_compiled_module_another_backend_takes_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct, "_tensors", None)
    monkeypatch.setattr(bptt.torch.arrays, "core", None)
    monkeypatch.setattr(bptt.torch.passes, "resolve", lambda *_: REGISTRY["numba"])
    ours, theirs = pair("LSTM")
    x = torch.randn(T, B, I)
    close(gradients(ours, x), gradients(theirs, x))


def test_tensors_without_memory_are_left_to_others() -> None:
    ours, theirs = pair("LSTM")
    x = torch._efficientzerotensor((T, B, I))
    torch.testing.assert_close(ours(x)[0], theirs(torch.zeros(T, B, I))[0])


def test_half_a_state_is_an_error_of_torch() -> None:
    ours, theirs = pair("LSTM")
    x, h = torch.randn(T, B, I), torch.randn(1, B, H)
    for hx in ((None, h), (h, None), (None, None)):
        with pytest.raises(AttributeError):
            theirs(x, hx)
        with pytest.raises(AttributeError):
            ours(x, hx)
