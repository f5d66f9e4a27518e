"""What people do with a module of PyTorch works with `bptt.torch`'s, and has the same results."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
from typing import Any

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)

import bptt.torch  # noqa: E402
from torch.nn.utils import parametrizations, spectral_norm, weight_norm  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_modules import (  # noqa: E402
    KINDS,
    PAIRS,
    SHAPE,
    Model,
    X,
    equal,
    grads_of,
    loss_of,
    made,
    pair,
    same,
    tensors,
)

# --- autograd -----------------------------------------------------------------------------------


def saved_by(module: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What a call saves for the way back."""
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        module(x)
    return saved


@KINDS
def test_nothing_is_kept_where_no_gradient_will_come(kind: type) -> None:
    module = made(kind)
    assert saved_by(module, X)
    with torch.no_grad():
        assert not saved_by(module, X)
        assert all(y.grad_fn is None for y in tensors(module(X)))
    with torch.inference_mode():
        assert all(y.is_inference() for y in tensors(module(X)))
    assert not saved_by(module.requires_grad_(False), X)


@KINDS
def test_frozen_weights_get_no_gradient_and_none_is_computed(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = made(kind).requires_grad_(False)
    wanted: list[list[int]] = []
    backward = bptt.torch.direct.backward

    def noted(*arguments: Any) -> Any:
        wanted.append([place for place, needed in enumerate(arguments[6]) if needed])
        return backward(*arguments)

    monkeypatch.setattr(bptt.torch.direct, "backward", noted)
    x = X.clone().requires_grad_()
    loss_of(module, x).backward()
    module.weight_hh_l0.requires_grad_()
    loss_of(module, X).backward()
    assert wanted == [[0], [4 if kind is torch.nn.LSTM else 3]]  # x; weight_hh_l0
    assert [p.grad is not None for p in module.parameters()] == [False, True, False, False]
    assert x.grad is not None


@KINDS
@pytest.mark.parametrize("what", ["weight_hh_l0", "y"])
def test_a_change_in_place_before_the_way_back_is_noticed(kind: type, what: str) -> None:
    module = made(kind)
    outputs = tensors(module(X))
    with torch.no_grad():
        (outputs[0] if what == "y" else module.weight_hh_l0).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs[0].sum().backward()


@KINDS
def test_the_last_state_may_be_changed_in_place_as_of_pytorch(kind: type) -> None:
    """As a stream whose finished rows start anew does it."""
    found = []
    for module in pair(kind, **SHAPE):
        y, *last = tensors(module(X))
        for part in last:
            part[:, 1:3] = 0
        (y.sum() + sum(part.sum() for part in last)).backward()
        found.append(module.weight_hh_l0.grad)
    torch.testing.assert_close(*found)


@KINDS
def test_a_second_way_back_needs_retain_graph(kind: type) -> None:
    module = made(kind)
    expected = grads_of(module)
    module.zero_grad()
    loss = loss_of(module)
    loss.backward(retain_graph=True)
    assert equal([p.grad for p in module.parameters()], expected)
    loss.backward()
    assert equal([p.grad for p in module.parameters()], [2 * g for g in expected])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@KINDS
def test_what_was_saved_is_released_by_the_way_back(kind: type) -> None:
    module, alive = made(kind), []

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            alive.append(id(self))

        def __del__(self) -> None:
            alive.remove(id(self))

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        y = tensors(module(X))[0].sum()
        assert alive
        y.backward()
    gc.collect()
    assert y.grad_fn is not None
    assert not alive


@KINDS
@pytest.mark.parametrize("reentrant", [False, True])
def test_under_a_checkpoint_the_gradients_are_the_same_bits(kind: type, reentrant: bool) -> None:
    module, x = made(kind), X.clone().requires_grad_()
    expected = [*grads_of(module, x), x.grad.clone()]
    module.zero_grad()
    x.grad = None
    outputs = checkpoint(lambda x: tuple(tensors(module(x))), x, use_reentrant=reentrant)
    sum(y.square().sum() for y in outputs).backward()
    assert equal([*(p.grad for p in module.parameters()), x.grad], expected)


@KINDS
def test_states_carried_from_call_to_call_pass_gradients_until_they_are_detached(
    kind: type,
) -> None:
    theirs, ours = pair(kind, **SHAPE)
    found = []
    for module in (theirs, ours):
        y, state = module(X)
        y, state = module(X, state)
        state = tuple(s.detach() for s in tensors(state))
        z, _ = module(X, state if len(state) > 1 else state[0])
        (y.square().sum() + z.square().sum()).backward()
        found.append([p.grad for p in module.parameters()])
    for e, f in zip(*found, strict=True):
        torch.testing.assert_close(f, e, atol=2e-4, rtol=1e-5)


# --- modules ------------------------------------------------------------------------------------


@KINDS
def test_hooks_are_called_with_what_pytorch_calls_them_with(kind: type) -> None:
    found = []
    for module in pair(kind, **SHAPE):
        seen: list[Any] = []
        module.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args))
        module.register_forward_hook(lambda m, args, out, seen=seen: seen.append(tensors(out)))
        module.register_full_backward_hook(lambda m, dx, dy, seen=seen: seen.append((dx, dy)))
        module.weight_hh_l0.register_hook(lambda grad, seen=seen: seen.append(grad))
        loss_of(module, X.clone().requires_grad_()).backward()
        found.append([[t.shape for t in tensors(each)] for each in seen])
    assert len(found[0]) == 4
    assert sorted(found[0]) == sorted(found[1])


@KINDS
@pytest.mark.parametrize("norm", ["weight_norm", "parametrized", "spectral_norm"])
def test_a_norm_of_the_weights_takes_part(kind: type, norm: str) -> None:
    apply = {
        "weight_norm": weight_norm,
        "parametrized": parametrizations.weight_norm,
        "spectral_norm": spectral_norm,
    }[norm]
    theirs, ours = pair(kind, **SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the old one
        for module in (theirs, ours):
            torch.manual_seed(1)
            apply(module, "weight_hh_l0")
    assert bptt.torch.why(ours, X).startswith("bptt ")
    same(theirs, ours, (X,))
    with torch.no_grad():
        for module in (theirs, ours):
            for p in module.parameters():
                p.add_(0.1)
    same(theirs, ours, (X,))


@KINDS
def test_copies_and_files_hold_the_same_module(kind: type) -> None:
    module = made(kind, num_layers=2)
    expected = grads_of(module)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert type(other) is PAIRS[kind]
        assert repr(other) == repr(module)
        assert equal(grads_of(other), expected)
        assert not {p.data_ptr() for p in other.parameters()} & {
            p.data_ptr() for p in module.parameters()
        }


@KINDS
def test_a_state_dict_goes_both_ways(kind: type) -> None:
    ours, theirs = made(kind, num_layers=2), kind(**SHAPE, num_layers=2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    same(theirs, ours, (X,))
    again = made(kind, num_layers=2)
    again.load_state_dict(theirs.state_dict(), assign=True)
    assert equal(grads_of(again), grads_of(ours))


@KINDS
def test_weights_that_are_put_in_their_place_are_used(kind: type) -> None:
    theirs, ours = pair(kind, **SHAPE)
    for module in (theirs, ours):
        torch.manual_seed(3)
        module.weight_hh_l0 = torch.nn.Parameter(torch.randn_like(module.weight_hh_l0))
    same(theirs, ours, (X,))
    others = {name: 2 * p.detach() for name, p in ours.named_parameters()}
    found = torch.func.functional_call(ours, others, (X,))
    expected = torch.func.functional_call(theirs, others, (X,))
    for e, f in zip(tensors(expected), tensors(found), strict=True):
        torch.testing.assert_close(f, e, atol=2e-5, rtol=0)


def test_a_weight_of_another_shape_is_an_error_of_pytorch() -> None:
    module = made(torch.nn.GRU)
    module.weight_hh_l0 = torch.nn.Parameter(torch.randn(3, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        module(X)


# --- many processes -----------------------------------------------------------------------------


@pytest.fixture
def one_process(tmp_path: Any) -> Any:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("PyTorch was built without gloo")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor")
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])
def test_a_distributed_model_has_the_same_gradients(one_process: Any, sharded: bool) -> None:
    model = Model()
    bptt.torch.replace(model)
    expected = grads_of(model)
    if sharded:
        from torch.distributed.fsdp import fully_shard

        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        for module in (model.below, *model.above, model):
            fully_shard(module, mesh=mesh)
        computed = []
        model.below.register_forward_pre_hook(
            lambda module, args: computed.append(bptt.torch.why(module, *args))
        )
        found = [g.full_tensor() for g in grads_of(model)]
        assert computed[0].startswith("bptt ")
    else:
        found = grads_of(torch.nn.parallel.DistributedDataParallel(model))
    assert equal(found, expected)
