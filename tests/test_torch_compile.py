"""torch.compile, torch.export and whatever else traces see `bptt.torch`'s layers as operators."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)

import bptt.torch  # noqa: E402
from bptt.backends import REGISTRY  # noqa: E402
from torch import func  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts  # noqa: E402

# Of PyTorch itself: when it opens a level of forward mode, and as it traces.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
torch.set_num_threads(1)

T, B, I, H = 4, 2, 3, 5  # noqa: E741
KINDS = ["RNN", "GRU", "LSTM"]


@pytest.fixture
def allowed() -> Iterator[None]:
    bptt.torch.allow_compile()
    torch._dynamo.reset()
    yield
    bptt.torch.allow_compile(False)
    torch._dynamo.reset()


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """A layer of ours and the one of PyTorch with the same weights."""
    torch.manual_seed(0)
    ours, theirs = (getattr(m, kind)(I, H, **options) for m in (bptt.torch, torch.nn))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def value(output: Any) -> Any:
    y, last = output
    return sum(t.sin().sum() for t in (y, *(last if isinstance(last, tuple) else (last,))))


def same_gradients(ours: Any, theirs: Any, x: Any, of: Any = None) -> None:
    """`of` is the module whose weights those of `ours` are."""
    x = x.detach().requires_grad_()
    found, expected = value(ours(x)), value(theirs(x))
    torch.testing.assert_close(found, expected)
    found = torch.autograd.grad(found, [x, *(of or ours).parameters()])
    for a, b in zip(found, torch.autograd.grad(expected, [x, *theirs.parameters()]), strict=True):
        torch.testing.assert_close(a, b)


def operators(graph: Any) -> list[str]:
    return [str(n.target) for n in graph.nodes if str(n.target).startswith("bptt")]


# --- torch.compile -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_layer_is_one_graph_with_the_same_gradients(kind: str, allowed: None) -> None:
    ours, theirs = pair(kind, num_layers=2, bidirectional=kind == "LSTM", batch_first=True)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    same_gradients(compiled, theirs, torch.randn(B, T, I), ours)
    with torch.no_grad():
        x = torch.randn(B, T, I)
        torch.testing.assert_close(compiled(x)[0], theirs(x)[0])


def test_lengths_and_batches_that_vary_take_one_graph(allowed: None) -> None:
    ours, theirs = pair("GRU")
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled = torch.compile(ours, backend=backend, fullgraph=True, dynamic=True)
    for steps, batch in ((4, 2), (7, 3), (5, 6)):
        same_gradients(compiled, theirs, torch.randn(steps, batch, I), ours)
    assert len(graphs) == 1
    assert len(operators(graphs[0].graph)) == 1


def test_a_compiled_layer_asks_little_of_this_package_before_each_call(allowed: None) -> None:
    ours, _ = pair("LSTM", num_layers=2, bidirectional=True, dropout=0.1)
    guards = torch._dynamo.explain(ours)(torch.randn(T, B, I)).out_guards
    functions = {g.name for g in guards if g.create_fn_name() == "CLOSURE_MATCH"}
    assert "G['forward_traced']" in functions
    assert len(functions) <= 6
    assert len({g.name for g in guards if "bptt" in g.name}) <= 12


def test_compiled_shapes_that_do_not_fit_are_errors(allowed: None) -> None:
    ours, _ = pair("LSTM")
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    h = torch.randn(1, B + 1, H)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Expected hidden"):
        compiled(torch.randn(T, B, I), (h, h))
    ours.weight_hh_l0 = torch.nn.Parameter(torch.randn(4 * H + 1, H))
    with pytest.raises(Exception, match="shapes do not fit together"):
        compiled(torch.randn(T, B, I))


def test_without_permission_the_error_says_what_to_do(allowed: None) -> None:
    model = torch.nn.Sequential(pair("GRU")[0])
    bptt.torch.allow_compile(False)
    x = torch.randn(T, B, I)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"allow_rnn=True"):
        torch.compile(model, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))
    bptt.torch.allow_compile()
    torch.compile(model, backend="eager", fullgraph=True)(x)


def test_the_last_state_may_be_changed_in_place(allowed: None) -> None:
    ours, theirs = pair("GRU")
    x = torch.randn(T, B, I)

    def changed(module: Any, w: Any) -> Any:
        y, h = func.functional_call(module, w, (x,))
        return (y.sum() * h.mul_(2)).sum()

    w = dict(theirs.named_parameters())
    expected = torch.autograd.grad(changed(theirs, w), list(w.values()))
    w = dict(ours.named_parameters())
    compiled = torch.compile(partial(changed, ours), backend="aot_eager")
    for found in (
        torch.autograd.grad(compiled(w), list(w.values())),
        tuple(func.grad(partial(changed, ours))(w).values()),
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("batch_first", [False, True])
def test_layers_of_other_cells_are_compiled(batch_first: bool) -> None:
    torch._dynamo.reset()
    layer = bptt.torch.Recurrent("linear", I, H, batch_first=batch_first)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    same_gradients(compiled, layer, torch.randn(T, B, I), layer)
    h = torch.randn(T if batch_first else B, H)
    x = torch.randn(T, B, I)
    torch.testing.assert_close(compiled(x, h), layer(x, h))


@pytest.mark.slow
@pytest.mark.parametrize("nest", ["grad", "vmap of grad", "jvp", "jacrev"])
def test_transforms_within_a_compiled_function(nest: str, allowed: None) -> None:
    ours, _ = pair("LSTM")
    w = {name: t.detach() for name, t in ours.named_parameters()}

    def loss(w: Any, x: Any) -> Any:
        return value(func.functional_call(ours, w, (x,)))

    xs = torch.randn(2, 2, B, I)
    f = {
        "grad": lambda w, xs: func.grad(loss)(w, xs[0]),
        "vmap of grad": lambda w, xs: func.vmap(func.grad(loss), (None, 0))(w, xs),
        "jvp": lambda w, xs: func.jvp(loss, (w, xs.sum(0)), (w, xs.sum(0)))[1],
        "jacrev": lambda w, xs: func.jacrev(lambda x: ours(x)[0])(xs[0]),
    }[nest]
    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(w, xs), f(w, xs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_packed_sequences_in_a_compiled_model(allowed: None) -> None:
    ours, theirs = pair("LSTM")

    def run(layer: Any, x: Any, lengths: Any) -> Any:
        return pad_packed_sequence(layer(pack_padded_sequence(x, lengths))[0])[0].sin()

    x, lengths = torch.randn(T, B, I), torch.tensor([T, 2])
    found = torch.compile(partial(run, ours), backend="aot_eager")(x, lengths)
    torch.testing.assert_close(found, run(theirs, x, lengths))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (T, B)])
def test_compiled_to_machine_code(
    shape: tuple[int, int], allowed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair("GRU", num_layers=2)
    # What is cached may be of operators as they were once.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    same_gradients(torch.compile(ours, fullgraph=True), theirs, torch.randn(*shape, I), ours)


# --- torch.export and other tracing ------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_layer_runs_at_any_length_and_trains(strict: bool) -> None:
    ours, theirs = pair("LSTM", num_layers=2)
    dims = {0: torch.export.Dim("T"), 1: torch.export.Dim("B")}
    x = torch.randn(T, B, I)
    program = torch.export.export(ours, (x,), dynamic_shapes=(dims,), strict=strict)
    assert operators(program.graph) == ["bptt.layer.default"] * 2
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for exported in (program.module(), torch.export.load(file).module()):
        same_gradients(exported, theirs, torch.randn(9, 3, I))


def test_tensors_without_values_have_shapes() -> None:
    meta = bptt.torch.GRU(I, H, 2, bidirectional=True, device="meta")
    x = torch.empty(T, B, I, device="meta")
    y, h = meta(x)
    assert (y.shape, h.shape) == ((T, B, 2 * H), (4, B, H))
    y.sum().backward()
    assert meta.weight_ih_l1.grad.shape == (3 * H, 2 * H)
    assert bptt.torch.why(meta, x).startswith("bptt ")
    with FakeTensorMode() as mode:
        fake = bptt.torch.LSTM(I, H)
        y, (_, c) = fake(torch.empty(T, B, I))
        assert isinstance(y, FakeTensor)
    assert c.shape == (1, B, H)
    assert fake(y.new_empty(T, B, I))[0].shape == (T, B, H)
    with mode:
        y.sum().backward()
    assert fake.weight_hh_l0.grad.shape == (4 * H, H)


def test_traced_gradients_are_operators_too() -> None:
    ours, theirs = pair("GRU")
    w = {name: t.detach() for name, t in ours.named_parameters()}

    def gradients(module: Any, w: Any, xs: Any) -> Any:
        of = func.grad(lambda w, x: value(func.functional_call(module, w, (x,))))
        return func.vmap(of, (None, 0))(w, xs)

    xs = torch.randn(3, T, 1, I)
    graph = make_fx(partial(gradients, ours))(w, xs)
    assert operators(graph.graph) == [
        "bptt.layer_kernel.default",
        "bptt.layer_backward_kernel.default",
    ]
    found = graph(w, xs)
    for i, x in enumerate(xs):
        expected = torch.autograd.grad(value(theirs(x)), list(theirs.parameters()))
        torch.testing.assert_close([g[i] for g in found.values()], list(expected))


def test_checkpointing_knows_the_operator() -> None:
    ours, theirs = pair("LSTM")
    kept = partial(create_selective_checkpoint_contexts, [torch.ops.bptt.layer_kernel.default])

    def run(x: Any) -> Any:
        return checkpoint(ours, x, use_reentrant=False, context_fn=kept)

    same_gradients(run, theirs, torch.randn(T, B, I), ours)


# --- the operators themselves ------------------------------------------------------------------


def arguments(kind: str, dtype: Any) -> tuple[str, list[Any]]:
    """The cell, and what a layer reads."""
    layer = getattr(bptt.torch, kind)(I, H, dtype=dtype)
    parts = 2 if kind == "LSTM" else 1
    state = [torch.randn(B, H, dtype=dtype, requires_grad=True) for _ in range(parts)]
    x = torch.randn(T, B, I, dtype=dtype, requires_grad=True)
    return kind.lower(), [x, *state, *[None] * (2 - parts), *layer.parameters()]


@pytest.mark.full_product
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_opcheck_of_the_way_forward(kind: str) -> None:
    cell, reads = arguments(kind, torch.float32)
    torch.library.opcheck(torch.ops.bptt.layer.default, (cell, *reads, kind == "LSTM"))


@pytest.mark.full_product
@pytest.mark.parametrize("samples", [None, B])
def test_opcheck_of_the_way_back(samples: int | None) -> None:
    cell, reads = arguments("GRU", torch.float64)
    results = [t.detach() for t in torch.ops.bptt.layer(cell, *reads, True)]
    kept = [*results[:2], results[4]]
    needed = [True, True, False, True, samples is None, True, False]
    incoming = [torch.randn_like(kept[0]).requires_grad_(), None, None]
    given = (cell, needed, samples, *reads, *incoming, *kept)
    torch.library.opcheck(torch.ops.bptt.layer_backward.default, given)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_operators_have_second_derivatives(kind: str) -> None:
    cell, reads = arguments(kind, torch.float64)
    there = [t for t in reads if t is not None]

    def run(*values: Any) -> Any:
        given = iter(values)
        results = torch.ops.bptt.layer(
            cell, *(None if t is None else next(given) for t in reads), True
        )
        return results[0], results[2]

    assert torch.autograd.gradcheck(run, there, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, there, fast_mode=True)


@pytest.mark.parametrize("cell", ["lstm", "gru", "mgu"])
def test_the_operators_take_a_backend_that_saves_gates_in_several_arrays(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bptt.torch.passes, "resolve", lambda *_: REGISTRY["numpy"])
    monkeypatch.setattr(bptt.torch.direct, "_tensors", None)
    gates = bptt.CELLS[cell].gates * 4
    x, w_ih, w_hh = (
        torch.randn(*shape, requires_grad=True) for shape in ((5, 2, 3), (gates, 3), (gates, 4))
    )
    y = torch.ops.bptt.layer(cell, x, None, None, w_ih, w_hh, None, None, True)[0]
    expected, _ = bptt.torch.layer(cell, [w_ih, w_hh], x)
    torch.testing.assert_close(y, expected)
    read = [x, w_ih, w_hh]
    found, wanted = (torch.autograd.grad(of.sum(), read) for of in (y, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
