"""`bptt.torch.layer` and `Recurrent` on tensors of a GPU, for which CPU tensors stand here: the
kernels run on fibres (host_launcher.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bptt
import pytest
from host_launcher import HostLauncher, host_gpu
from problems import make_problem

torch = pytest.importorskip("torch")
import bptt.torch  # noqa: E402
from bptt.backends import REGISTRY  # noqa: E402
from bptt.torch import gpu_passes, passes  # noqa: E402

T, B, INPUTS, H = 4, 3, 2, 7


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostLauncher]:
    monkeypatch.setattr(gpu_passes, "on_host", lambda x: False)
    with host_gpu() as launcher:
        yield launcher


def leaves(cell: str) -> dict[str, Any]:
    """Weights, x and the state of a problem as tensors that want gradients."""
    p = make_problem(cell, T, B, INPUTS, H)
    states = p.state if isinstance(p.state, tuple) else (p.state,)
    arrays = {**p.params.arrays(), "x": p.x, **{f"s{i}": s for i, s in enumerate(states)}}
    arrays = {name: a for name, a in arrays.items() if name not in ("w_ho", "b_o")}
    return {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}


def run(cell: str, given: dict[str, Any], **options: Any) -> list[Any]:
    """y and the last state."""
    weights = {name: t for name, t in given.items() if name[0] in "wb"}
    states = tuple(t for name, t in given.items() if name[0] == "s")
    state = states if len(states) > 1 else states[0]
    y, last = bptt.torch.layer(cell, weights, given["x"], state, **options)
    return [y, *(last if isinstance(last, tuple) else (last,))]


def gradients(outputs: list[Any], given: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    loss = sum((o * torch.randn_like(o)).sum() for o in outputs)
    return dict(zip(given, torch.autograd.grad(loss, list(given.values())), strict=True))


@pytest.mark.parametrize("cell", ["linear", "lstm", "gru"])
@pytest.mark.parametrize("options", [{}, {"lengths": [2, 4, 0], "reverse": True}])
def test_values_and_gradients_are_those_of_the_cpu(
    cell: str, options: dict[str, Any], gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = leaves(cell)
    found = run(cell, given, **options)
    there = gradients(found, given)
    assert {name for name, _ in gpu.launched} == {"forward", "backward"}
    monkeypatch.setattr(gpu_passes, "on_host", lambda x: True)
    wanted = run(cell, given, **options)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for name, gradient in gradients(wanted, given).items():
        torch.testing.assert_close(there[name], gradient, rtol=0, atol=1e-12)


def test_without_a_gradient_to_come_no_gates_are_kept(gpu: HostLauncher) -> None:
    given = leaves("gru")
    with torch.no_grad():
        y = run("gru", given)[0]
    assert not y.requires_grad
    assert [name for name, _ in gpu.launched] == ["forward"]


def test_second_derivatives_are_those_of_the_cpu(
    gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = leaves("tanh")
    x = given["x"]

    def derivatives() -> list[Any]:
        y = run("tanh", given)[0]
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return [first, *torch.autograd.grad(first.square().sum(), x)]

    there = derivatives()
    assert gpu.launched
    monkeypatch.setattr(gpu_passes, "on_host", lambda x: True)
    for ours, theirs in zip(there, derivatives(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_autocast_around_a_call_changes_nothing(gpu: HostLauncher) -> None:
    # It leaves float64 alone.
    given = {n: t.detach().float().requires_grad_() for n, t in leaves("lstm").items()}
    found = run("lstm", given)
    plain = gradients(found, given)
    with torch.autocast("cpu", torch.bfloat16):
        again = run("lstm", given)
        under = gradients(again, given)
    for one, other in zip((*again, *under.values()), (*found, *plain.values()), strict=True):
        assert torch.equal(one, other)


def test_a_module_of_any_cell_runs_there(gpu: HostLauncher) -> None:
    module = bptt.torch.Recurrent("linear", INPUTS, H, dtype=torch.float64)
    y, _ = module(torch.randn(T, B, INPUTS, dtype=torch.float64))
    y.sum().backward()
    assert module.weight_hh_l0.grad.abs().max() > 0
    assert len(gpu.launched) == 2


def test_a_program_that_is_compiled_calls_the_same_kernels(gpu: HostLauncher) -> None:
    given = leaves("lstm")
    compiled = torch.compile(lambda: run("lstm", given)[0], backend="eager")
    torch.testing.assert_close(compiled(), run("lstm", given)[0], rtol=0, atol=0)
    assert [name for name, _ in gpu.launched] == ["forward", "forward"]


def test_operators_keep_gates_whatever_there_is_for_the_cpu(
    gpu: HostLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "resolve", lambda *_: REGISTRY["numpy"])
    given = leaves("lstm")
    compiled = torch.compile(lambda: run("lstm", given)[0], backend="eager")
    compiled().sum().backward()
    assert [name for name, _ in gpu.launched] == ["forward", "backward"]


def test_what_is_not_computed_there_is_an_error_that_says_so(gpu: HostLauncher) -> None:
    weights = {"w_ih": torch.ones(2 * H, INPUTS), "w_hh": torch.ones(2 * H, H)}
    with pytest.raises(TypeError, match="cell 'mgu' has no kernels for a GPU"):
        bptt.torch.layer("mgu", weights, torch.ones(T, B, INPUTS))


def test_without_the_backend_the_error_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    status = bptt.backends()["cuda"]
    if status.available:
        pytest.skip("there is a GPU")
    monkeypatch.setattr(gpu_passes, "on_host", lambda x: False)
    monkeypatch.setattr(gpu_passes, "place_of", lambda x: object())
    with pytest.raises(RuntimeError, match="backend 'cuda' is not available: "):
        run("tanh", leaves("tanh"))
