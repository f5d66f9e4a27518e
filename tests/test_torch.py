"""PyTorch's autograd finds the same gradients; its ``state_dict`` loads as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from problems import AT, Problem, by_name, make_problem, parts
from tolerance import output_scales, scales, tolerance

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)


# These layers are small, and the threads of two libraries at once only wait for each other.
torch.set_num_threads(1)


def new_layer(cell: str, *sizes: int, **options: Any) -> torch.nn.RNNBase:
    if cell in ("lstm", "gru"):
        return {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](*sizes, **options)
    return torch.nn.RNN(*sizes, nonlinearity=cell, **options)


def layer_of(p: Problem) -> torch.nn.RNNBase:
    """A layer of ``torch.nn`` with the weights of `p`."""
    w = p.params
    layer = new_layer(p.cell, w.input_size, w.hidden_size, dtype=torch.float64)
    names = {"weight_ih_l0": w.w_ih, "weight_hh_l0": w.w_hh, "bias_ih_l0": w.b_ih}
    names["bias_hh_l0"] = w.b_hh
    layer.load_state_dict({name: torch.from_numpy(array) for name, array in names.items()})
    return layer


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, requires_grad=array.dtype.kind == "f")


def linear(g_i: torch.Tensor, g_h: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    return g_i + g_h


def mgu(g_i: torch.Tensor, g_h: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    (i_f, i_n), (h_f, h_n) = g_i.chunk(2, -1), g_h.chunk(2, -1)
    f = torch.sigmoid(i_f + h_f)
    return (1 - f) * torch.tanh(i_n + f * h_n) + f * s


# Cells that torch.nn does not have.
STEPS = {"linear": linear, "mgu": mgu}


def run_torch(p: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The states (T, B, H), and the leaves that gradients are asked of, by the names of results."""
    states = {name: tensor(array) for name, array in parts("dstate", p.state).items()}
    leaves = {"dx": tensor(p.x), **states}
    if p.cell in STEPS:
        leaves.update({name: tensor(array) for name, array in p.params.arrays().items()})
        s, steps = leaves["dstate"], []
        for x_t in leaves["dx"]:
            g_i = x_t @ leaves["w_ih"].T + leaves["b_ih"]
            s = STEPS[p.cell](g_i, s @ leaves["w_hh"].T + leaves["b_hh"], s)
            steps.append(s)
        return torch.stack(steps), leaves
    layer = layer_of(p)
    state = tuple(s[None] for s in states.values())
    y, last = layer(leaves["dx"], as_given(state))
    leaves["w_ih"], leaves["w_hh"], leaves["b_ih"], leaves["b_hh"] = layer.parameters()
    leaves.update({name: tensor(getattr(p.params, name)) for name in ("w_ho", "b_o")})
    if len(state) > 1:
        leaves["last.c"] = last[1][0]
    return y, leaves


def torch_loss(p: Problem, o: torch.Tensor, loss: str, at: str) -> torch.Tensor:
    """The mean loss of the outputs (T, B, O)."""
    where, target = p.loss_at(at, loss)
    weights = torch.ones(o.shape[:2], dtype=o.dtype)
    if at == "weights":
        weights = torch.tensor(where)
    elif at != "all":
        o, weights = o[[-1 if at == "last" else where]], weights[:1]
        target = target[None]
    target = torch.tensor(target)
    if loss == "squared_error":
        rows = (o - target).square().sum(dim=-1) / 2
    else:
        rows = torch.nn.functional.cross_entropy(
            o.flatten(0, 1), target.flatten(), reduction="none"
        )
        rows = rows.reshape(weights.shape)
    return (rows * weights).sum() / weights.sum()


@pytest.mark.parametrize("at", AT)
def test_value_and_grad_is_autograd(at: str, loss: str, cell: str, backend: str) -> None:
    p = make_problem(cell, 17, 5, 3, 9, 4, seed=1)
    y, leaves = run_torch(p)
    value = torch_loss(p, y @ leaves["w_ho"].T + leaves["b_o"], loss, at)
    leaves.pop("last.c", None)
    value.backward()

    found = p.value_and_grad(backend, loss, at)
    assert found["loss"] == pytest.approx(value.item(), rel=1e-12)
    do, _ = output_scales(p, y.detach().numpy(), loss, at, "mean")
    scale = scales(p, do)
    assert leaves.keys() == found.keys() - {"loss"}
    for name, leaf in leaves.items():
        error = np.abs(found[name] - leaf.grad.numpy()).max()
        assert error <= tolerance(p, "float64", scale[name]), f"{name} of {p}: {error:.3g}"


def test_forward_and_backward_are_autograd(cell: str, backend: str) -> None:
    p = make_problem(cell, 33, 5, 3, 17, seed=2)
    y, leaves = run_torch(p)
    p = replace(p, dc=None)  # PyTorch does not show c_t
    ends = (y[-1], *([leaves.pop("last.c")] if "last.c" in leaves else []))
    torch.autograd.backward([y, *ends], [torch.tensor(d) for d in (p.dy, *as_tuple(p.dstate))])
    scale = scales(p)
    found = p.forward_backward(backend)
    expected = {name: leaf.grad for name, leaf in leaves.items() if name not in ("w_ho", "b_o")}
    expected["y"] = y.detach()
    for name, array in expected.items():
        error = np.abs(found[name] - array.numpy()).max()
        assert error <= tolerance(p, "float64", scale[name]), f"{name} of {p}: {error:.3g}"


@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
def test_a_state_dict_loads_as_it_is(cell: str, backend: str) -> None:
    torch.manual_seed(0)
    layer = new_layer(cell, 3, 9)
    weights = layer.state_dict()
    params = bptt.Params(
        weights["weight_ih_l0"],
        weights["weight_hh_l0"],
        weights["bias_ih_l0"],
        weights["bias_hh_l0"],
    )
    x = torch.randn(17, 5, 3)
    tape = bptt.forward(cell, params, x, backend=backend)
    expected, last = layer(x)
    np.testing.assert_allclose(tape.y, expected.detach().numpy(), atol=2e-6)
    for found, wanted in zip(as_tuple(tape.state), as_tuple(last), strict=True):
        np.testing.assert_allclose(found, wanted[0].detach().numpy(), atol=2e-6)
    assert type(tape.y) is np.ndarray
    assert set(by_name(tape.backward(torch.randn(17, 5, 9)))) >= {"dx", "w_hh", "b_hh"}


def test_tensors_are_read_in_place_and_never_written(backend: str) -> None:
    params = bptt.init_params("tanh", input_size=3, hidden_size=5, output_size=2, rng=0)
    x, target = torch.randn(7, 2, 3), torch.tensor([0, 1])
    before = x.clone(), target.clone()
    loss, grads = bptt.value_and_grad(
        "tanh", params, x, target, loss="cross_entropy", at="last", backend=backend
    )
    assert torch.equal(x, before[0])
    assert torch.equal(target, before[1])
    assert not np.shares_memory(grads.x, x.numpy())
    same, _ = bptt.value_and_grad(
        "tanh", params, x.numpy(), target.numpy(), loss="cross_entropy", at="last", backend=backend
    )
    assert loss == same


def test_a_tensor_that_needs_its_gradient_is_refused_in_words(backend: str) -> None:
    """Reading it in silence would cut it off from the caller's graph."""
    params = bptt.init_params("tanh", input_size=3, hidden_size=5, rng=0)
    x = torch.randn(7, 2, 3, requires_grad=True)
    with pytest.raises(TypeError, match=r"^x: .*(requires_grad|detach)"):
        bptt.forward("tanh", params, x, backend=backend)


def test_a_view_that_torch_negates_or_conjugates_when_it_is_read_has_its_own_values() -> None:
    values = torch.complex(torch.zeros(5, 2, 3), torch.randn(5, 2, 3))
    x = values.conj().imag
    assert x.is_neg()
    params = bptt.init_params("tanh", input_size=3, hidden_size=4, rng=0)
    y = bptt.forward("tanh", params, x).y
    np.testing.assert_array_equal(y, bptt.forward("tanh", params, x.resolve_neg()).y)
    with pytest.raises(TypeError, match=r"^x: expected a float array, got dtype complex64"):
        bptt.forward("tanh", params, values.conj())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.requires_grad_(), r".*\.detach\(\)"),
        (lambda x: (1j * x).requires_grad_().conj().imag, r".*\.detach\(\)"),
        (lambda x: x.bfloat16(), r".*; NumPy has no bfloat16, cast it to float32"),
        (lambda x: x.half(), r"expected dtype float32 like w_hh, got float16; cast"),
        (lambda x: x.to("meta"), r".* meta"),
        (lambda x: x.to_sparse(), r".*layout"),
    ],
)
def test_a_tensor_that_cannot_be_read_is_refused_with_the_remedy(change: Any, words: str) -> None:
    params = bptt.init_params("tanh", input_size=3, hidden_size=4, rng=0)
    with pytest.raises(TypeError, match=rf"^x: {words}"):
        bptt.forward("tanh", params, change(torch.ones(5, 2, 3)))
