"""``torch.func``'s transforms and forward-mode differentiation go through `bptt.torch`'s layers.

Held against `torch.nn`'s own layers in float64, by plain autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)

import bptt.torch  # noqa: E402
from bptt.backends import REGISTRY  # noqa: E402
from bptt.torch.passes import Direction  # noqa: E402
from torch import func  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402

# Of PyTorch itself, when it opens a level of forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
torch.set_num_threads(1)

T, B, I, H = 4, 2, 2, 3  # noqa: E741
KINDS = ["RNN", "GRU", "LSTM"]


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """A layer of ours and the one of PyTorch with the same weights."""
    torch.manual_seed(0)
    ours = getattr(bptt.torch, kind)(I, H, dtype=torch.float64, **options)
    theirs = getattr(torch.nn, kind)(I, H, dtype=torch.float64, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def random(*shape: int) -> Any:
    return torch.randn(*shape, dtype=torch.float64)


def weights(module: Any) -> dict[str, Any]:
    return {name: w.detach() for name, w in module.named_parameters()}


def outputs(module: Any, w: dict[str, Any], x: Any, hx: Any = None) -> tuple[Any, ...]:
    y, last = func.functional_call(module, w, (x, hx))
    return (y, *(last if isinstance(last, tuple) else (last,)))


def loss(module: Any, w: dict[str, Any], x: Any, hx: Any = None) -> Any:
    return sum((t.sin() * (1 + t)).sum() for t in outputs(module, w, x, hx))


def gradient(module: Any, w: dict[str, Any], *inputs: Any) -> dict[str, Any]:
    leaves = {name: t.detach().clone().requires_grad_() for name, t in w.items()}
    found = torch.autograd.grad(loss(module, leaves, *inputs), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.fixture
def ways_back(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of the kernels' way back was asked for gradients of each row."""
    found: list[bool] = []
    backward = Direction.backward

    def counted(*arguments: Any, by_row: bool = False) -> Any:
        found.append(by_row)
        return backward(*arguments, by_row=by_row)

    monkeypatch.setattr(Direction, "backward", counted)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_func_grad_is_the_gradient(kind: str, ways_back: list[bool]) -> None:
    ours, theirs = pair(kind, num_layers=2, bidirectional=True)
    w, x = weights(ours), random(T, B, I)
    close(func.grad(lambda w: loss(ours, w, x))(w), gradient(theirs, w, x))
    assert ways_back == [False] * 4


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_samples_are_those_of_each_alone(
    kind: str, rows: int, ways_back: list[bool]
) -> None:
    ours, theirs = pair(kind, num_layers=2, batch_first=True)
    w, xs, h0 = weights(ours), random(3, rows, T, I), random(3, 2, rows, H)
    states = (h0, 2 * h0) if kind == "LSTM" else h0
    of_sample = func.grad(lambda w, x, h: loss(ours, w, x, h))
    found = func.vmap(of_sample, (None, 0, 0))(w, xs, states)
    assert ways_back == [True] * 2  # one call for all samples in each layer
    for i, x in enumerate(xs):
        hx = (h0[i], 2 * h0[i]) if kind == "LSTM" else h0[i]
        close({name: g[i] for name, g in found.items()}, gradient(theirs, w, x, hx))


def test_gradients_of_samples_that_take_much_memory_are_computed_one_by_one(
    ways_back: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bptt.torch.transforms, "_MOST_BYTES", 8 * 3 * 2 * 3 * H * (I + H))
    ours, theirs = pair("GRU")
    w, xs = weights(ours), random(3, T, 2, I)
    found = func.vmap(func.grad(lambda w, x: loss(ours, w, x)), (None, 0))(w, xs)
    assert ways_back == [False] * 3
    for i, x in enumerate(xs):
        close({name: g[i] for name, g in found.items()}, gradient(theirs, w, x))


def test_samples_may_share_what_they_read_and_lie_along_any_axis() -> None:
    ours, theirs = pair("LSTM")
    w, xs, h = weights(ours), random(T, 3, 1, I), random(1, 1, H)
    found = func.vmap(func.grad(lambda w, x: loss(ours, w, x, (h, h))), (None, 1))(w, xs)
    scales = random(3)
    scaled = func.vmap(lambda s: func.grad(lambda w: s * loss(ours, w, xs[:, 0]))(w))(scales)
    for i in range(3):
        expected = gradient(theirs, w, xs[:, i], (h, h))
        close({name: g[i] for name, g in found.items()}, expected)
        expected = gradient(theirs, w, xs[:, 0])
        close({n: g[i] for n, g in scaled.items()}, {n: scales[i] * g for n, g in expected.items()})


def test_samples_of_samples() -> None:
    ours, theirs = pair("GRU")
    w, xs = weights(ours), random(2, 3, T, 2, I)
    of_samples = func.vmap(func.grad(lambda w, x: loss(ours, w, x)), (None, 0))
    found = func.vmap(of_samples, (None, 0))(w, xs)
    for i in range(2):
        for j in range(3):
            expected = gradient(theirs, w, xs[i, j])
            close({name: g[i, j] for name, g in found.items()}, expected)


def test_an_ensemble_of_layers() -> None:
    ours, theirs = pair("LSTM")
    w, x = weights(ours), random(T, B, I)
    several = {name: torch.stack([t, -2 * t]) for name, t in w.items()}
    values = func.vmap(lambda w: loss(ours, w, x))(several)
    found = func.vmap(func.grad(lambda w: loss(ours, w, x)))(several)
    for i in range(2):
        own = {name: t[i] for name, t in several.items()}
        close(values[i], loss(theirs, own, x))
        close({name: g[i] for name, g in found.items()}, gradient(theirs, own, x))


@pytest.mark.parametrize("rows", [1, 3])
def test_the_gradients_of_samples_have_gradients(rows: int) -> None:
    ours, theirs = pair("LSTM")
    w, xs = weights(ours), random(3, T, rows, I)

    def penalty(w: dict[str, Any]) -> Any:
        each = func.vmap(func.grad(lambda w, x: loss(ours, w, x)), (None, 0))(w, xs)
        return sum(g.square().sum() for g in each.values())

    leaves = {name: t.clone().requires_grad_() for name, t in w.items()}
    expected = 0
    for x in xs:
        value = loss(theirs, leaves, x)
        own = torch.autograd.grad(value, list(leaves.values()), create_graph=True)
        expected = expected + sum(g.square().sum() for g in own)
    expected.backward()
    close(func.grad(penalty)(w), {name: t.grad for name, t in leaves.items()})


NESTS: dict[str, Callable[..., Any]] = {
    "reverse over reverse": lambda f: func.jacrev(func.jacrev(f)),
    "forward over reverse": lambda f: func.jacfwd(func.jacrev(f)),
    "reverse over forward": lambda f: func.jacrev(func.jacfwd(f)),
    "forward over forward": lambda f: func.jacfwd(func.jacfwd(f)),
}


@pytest.mark.full_product
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("kind", KINDS)
def test_hessians_by_any_nest(kind: str, nest: str) -> None:
    ours, theirs = pair(kind)
    w, x = weights(ours), random(T, B, I)
    expected = torch.autograd.functional.hessian(lambda x: loss(theirs, w, x), x)
    close(NESTS[nest](lambda x: loss(ours, w, x))(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_by_any_way(kind: str) -> None:
    ours, theirs = pair(kind, bidirectional=True)
    x = random(T, B, I)
    of = torch.autograd.functional.jacobian
    expected = of(lambda x: theirs(x)[0], x)
    for transform in (func.jacrev, func.jacfwd):
        close(transform(lambda x: ours(x)[0])(x), expected)
    for strategy in ("reverse-mode", "forward-mode"):
        close(of(lambda x: ours(x)[0], x, vectorize=True, strategy=strategy), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_tangents_of_all_inputs(kind: str) -> None:
    ours, theirs = pair(kind, num_layers=2)
    w, x = weights(ours), random(T, B, I)
    along, dx = {name: torch.randn_like(t) for name, t in w.items()}, torch.randn_like(x)
    found = func.jvp(lambda w, x: loss(ours, w, x), (w, x), (along, dx))[1]
    of_x = torch.autograd.functional.jacobian(lambda x: loss(theirs, w, x), x)
    g = gradient(theirs, w, x)
    expected = (of_x * dx).sum() + sum((g[name] * along[name]).sum() for name in w)
    close(found, expected)
    with forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(t, along[name]) for name, t in w.items()}
        close(
            forward_ad.unpack_dual(loss(ours, dual, forward_ad.make_dual(x, dx))).tangent, expected
        )


def test_tangents_that_come_in_on_the_way_back_go_through() -> None:
    ours, _ = pair("LSTM")
    x = random(T, B, I).requires_grad_()
    dy, along = random(T, B, H), random(T, B, H)
    (expected,) = torch.autograd.grad(ours(x)[0], x, along)
    y = ours(x)[0]
    with forward_ad.dual_level():
        (dx,) = torch.autograd.grad(y, x, forward_ad.make_dual(dy, along))
        close(forward_ad.unpack_dual(dx).tangent, expected)
    _, pull = func.vjp(lambda x: ours(x)[0], x.detach())
    close(func.jvp(pull, (dy,), (along,))[1][0], expected)


@pytest.mark.parametrize("batched", [True, False])
def test_many_gradients_at_once(batched: bool) -> None:
    ours, theirs = pair("GRU")
    x, dys = random(T, B, I).requires_grad_(), random(3, T, B, H)
    several = [x, *ours.parameters()]
    if batched:
        found = torch.autograd.grad(ours(x)[0], several, dys, is_grads_batched=True)
    else:
        found = func.vmap(lambda dy: torch.autograd.grad(ours(x)[0], several, dy))(dys)
    for i, dy in enumerate(dys):
        expected = torch.autograd.grad(theirs(x)[0], [x, *theirs.parameters()], dy)
        close([g[i] for g in found], list(expected))


def test_gradcheck_of_all_kinds() -> None:
    ours, _ = pair("GRU")
    leaves = [random(3, 2, I).requires_grad_(), random(1, 2, H).requires_grad_()]
    names = [name for name, _ in ours.named_parameters()]

    def run(x: Any, h: Any, *own: Any) -> tuple[Any, ...]:
        return outputs(ours, dict(zip(names, own, strict=True)), x, h)

    every = (*leaves, *ours.parameters())
    fast: dict[str, Any] = {"fast_mode": True}
    assert torch.autograd.gradcheck(
        run, every, check_forward_ad=True, check_batched_grad=True, **fast
    )
    assert torch.autograd.gradgradcheck(run, every, check_fwd_over_rev=True, **fast)


def test_packed_sequences() -> None:
    ours, theirs = pair("LSTM", bidirectional=True)
    w, sizes = weights(ours), torch.tensor([3, 3, 1])
    xs = random(2, 7, I)

    def value(module: Any, w: dict[str, Any], x: Any) -> Any:
        packed, last = func.functional_call(module, w, (PackedSequence(x, sizes),))
        return sum(t.sin().sum() for t in (packed.data, *last))

    of_samples = func.vmap(func.grad(lambda w, x: value(ours, w, x)), (None, 0))(w, xs)
    along = torch.randn_like(xs[0])
    tangents = func.jvp(lambda x: value(ours, w, x), (xs[0],), (along,))[1]
    dx = torch.autograd.functional.jacobian(lambda x: value(theirs, w, x), xs[0])
    close(tangents, (dx * along).sum())
    for i, x in enumerate(xs):
        leaves = {name: t.clone().requires_grad_() for name, t in w.items()}
        value(theirs, leaves, x).backward()
        close({n: g[i] for n, g in of_samples.items()}, {n: t.grad for n, t in leaves.items()})


def test_a_backend_that_keeps_its_gates_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair("LSTM")
    monkeypatch.setattr("bptt.torch.passes.resolve", lambda *_: REGISTRY["numpy"])
    w, xs = weights(ours), random(3, T, 1, I)
    found = func.vmap(func.grad(lambda w, x: loss(ours, w, x)), (None, 0))(w, xs)
    for i, x in enumerate(xs):
        close({name: g[i] for name, g in found.items()}, gradient(theirs, w, x))
    x, dys = xs[0].requires_grad_(), random(2, T, 1, H)
    (dx,) = torch.autograd.grad(ours(x)[0], x, dys, is_grads_batched=True)
    close(dx[1], torch.autograd.grad(theirs(x)[0], x, dys[1])[0])


def test_who_computes_is_said() -> None:
    ours, _ = pair("LSTM")
    x = random(T, B, I)
    said = []
    func.grad(lambda x: (said.append(bptt.torch.why(ours, x)), x.sum())[1])(x)
    func.jvp(lambda x: (said.append(bptt.torch.why(ours, x)), x.sum())[1], (x,), (x,))
    assert said == [bptt.torch.why(ours, x), "bptt composite"]
    assert said[0].startswith("bptt ")
