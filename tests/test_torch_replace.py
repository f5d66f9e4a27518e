"""What `bptt` does not compute goes to PyTorch, and that is said; `replace` and `restore`."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)

import bptt.torch  # noqa: E402
from bptt.torch import telling  # noqa: E402
from torch_modules import KINDS, SHAPE, Model, X, grads_of, pair, same, tensors  # noqa: E402

# --- what goes to PyTorch -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    telling._told.clear()


def agree(theirs: torch.nn.Module, ours: torch.nn.Module, *args: Any) -> None:
    expected, found = tensors(theirs(*args)), tensors(ours(*args))
    assert len(expected) > 1
    for e, f in zip(expected, found, strict=True):
        assert (f.dtype, f.device) == (e.dtype, e.device)
        assert e.device.type == "meta" or torch.equal(f, e)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_by_pytorch_which_is_said_once(
    kind: type, dtype: torch.dtype
) -> None:
    theirs, ours = (module.to(dtype) for module in pair(kind, **SHAPE))
    x = X.to(dtype)
    why = f"input is of {dtype}; there are kernels for float32 and float64"
    assert bptt.torch.why(ours, x) == f"torch: {why}"
    with pytest.warns(UserWarning, match=f"{kind.__name__} is computed by PyTorch.*{why}") as told:
        agree(theirs, ours, x)
    assert told[0].filename == __file__
    agree(theirs, ours, x)  # and not again


@KINDS
def test_autocast_is_pytorchs(kind: type) -> None:
    theirs, ours = pair(kind, **SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "autocast" in bptt.torch.why(ours, X)
        with pytest.warns(UserWarning, match="autocast"):
            agree(theirs, ours, X)
    assert bptt.torch.why(ours, X).startswith("bptt ")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projections_are_pytorchs() -> None:
    theirs, ours = pair(torch.nn.LSTM, **SHAPE, proj_size=2)
    assert "proj_size" in bptt.torch.why(ours, X)
    with pytest.warns(UserWarning, match="proj_size"):
        agree(theirs, ours, X)


@KINDS
def test_what_is_about_one_call_is_not_warned_of(kind: type) -> None:
    theirs, ours = pair(kind, **SHAPE)
    assert bptt.torch.why(ours, X[:, :0]) == "torch: input is empty, of shape (6, 0, 3)"
    assert bptt.torch.why(ours, X[..., :2]).startswith("torch: shapes do not fit")
    agree(theirs, ours, X[:, :0])
    agree(theirs.to("meta"), ours.to("meta"), X.to("meta"))


@KINDS
def test_a_module_comes_back_from_half_precision(kind: type) -> None:
    theirs, ours = pair(kind, **SHAPE)
    same(theirs.half().float(), ours.half().float(), (X,))
    same(theirs.double(), ours.double(), (X.double(),))


# --- replace and restore ------------------------------------------------------------------------


class Mine(torch.nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(2 * input, hx)


def test_replace_leaves_the_objects_and_restore_undoes_it() -> None:
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    layers, expected, weights = [*model.modules()], model(X), [*model.parameters()]
    assert bptt.torch.replace(model) == ["below", "above.0", "above.1"]
    assert bptt.torch.replace(model) == []  # and no warning
    assert [*map(id, model.modules())] == [*map(id, layers)]
    assert [*map(id, model.parameters())] == [*map(id, weights)]
    torch.testing.assert_close(model(X), expected)
    grads_of(model)
    optimizer.step()
    assert not torch.equal(model(X), expected)
    assert bptt.torch.restore(model) == ["below", "above.0", "above.1"]
    assert bptt.torch.restore(model) == []
    assert type(model.below) is torch.nn.GRU


def test_a_class_of_ones_own_is_left_alone_and_that_is_said() -> None:
    model = Model(Mine)
    with pytest.warns(UserWarning, match=r"above\.1 is left alone: Mine is a class of its own"):
        assert bptt.torch.replace(model) == ["below", "above.0"]
    assert type(model.above[1]) is Mine


def test_a_model_that_would_silently_get_nothing_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"Sequential has no RNN, GRU or LSTM of torch\.nn"):
        assert bptt.torch.replace(torch.nn.Sequential(torch.nn.Linear(2, 2))) == []
    model = torch.nn.Sequential(torch.nn.LSTM(3, 5)).bfloat16()
    bptt.torch.replace(model)
    with pytest.warns(UserWarning, match="bfloat16"):
        model(X.bfloat16())


def test_bad_arguments_are_named() -> None:
    for call in (bptt.torch.replace, bptt.torch.restore):
        with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got int"):
            call(3)
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.RNN, GRU or LSTM, got L"):
        bptt.torch.why(torch.nn.Linear(1, 1), X)
    assert "not a module of bptt.torch" in bptt.torch.why(torch.nn.GRU(3, 5), X)
