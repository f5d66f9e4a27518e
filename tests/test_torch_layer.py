"""`bptt.torch.layer` and `Recurrent`: any cell on sequences of any kind, differentiable."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)

import bptt.torch  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence  # noqa: E402
from torch_modules import tensors  # noqa: E402

pytestmark = pytest.mark.pairs  # of cells, kinds of sequences and what is wanted

T, B, INPUTS, H = 6, 4, 3, 5
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
RESET = np.random.default_rng(5).random((T, B)) < 0.3
KINDS = {
    "dense": {},
    "lengths": {"lengths": [3, 6, 0, 5]},
    "lengths in a tensor": {"lengths": torch.tensor([6, 6, 1, 2])},
    "no lengths": {"lengths": [0] * B},
    "packed": {"batch_sizes": [4, 4, 3, 1]},
    "packed rows in a tensor": {"batch_sizes": torch.tensor([3, 2, 2])},
    "reset": {"reset": RESET},
    "reset everywhere": {"reset": np.ones((T, B), bool)},
    "reset in a tensor, lengths": {"reset": torch.from_numpy(RESET), "lengths": [2, 6, 4, 0]},
    "reverse": {"reverse": True},
    "reverse, lengths": {"reverse": True, "lengths": [1, 2, 6, 3]},
    "reverse, packed": {"reverse": True, "batch_sizes": [4, 4, 3, 1]},
    "batch_first": {"batch_first": True},
    "batch_first, all": {
        "batch_first": True,
        "reset": RESET.T,
        "reverse": True,
        "lengths": [2, 6, 4, 0],
    },
}


@pytest.fixture(autouse=True)
def no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of one's own by NumPy: Numba, which "auto" takes, compiles for seconds."""

    chosen = bptt.torch.passes.resolve

    def resolve(name: str, cell: bptt.Cell, dtype: Any) -> Any:
        return chosen(name if cell.step is None else "numpy", cell, dtype)

    monkeypatch.setattr(bptt.torch.passes, "resolve", resolve)


def backend_of(cell: str) -> str:
    return "auto" if bptt.CELLS[cell].step is None else "numpy"


def shape_of(kind: str) -> tuple[int, ...]:
    sizes = KINDS[kind].get("batch_sizes")
    if sizes is not None:
        return (int(sum(sizes)),)
    return (B, T) if KINDS[kind].get("batch_first") else (T, B)


def arrays(cell: str, kind: str, dtype: str = "float64") -> tuple[bptt.Params, Any, Any]:
    rng = np.random.default_rng(2)
    params = bptt.init_params(cell, input_size=INPUTS, hidden_size=H, rng=rng, dtype=dtype)
    batch = int(max(KINDS[kind].get("batch_sizes", [B])))
    states = tuple(rng.standard_normal((batch, H)).astype(dtype) for _ in bptt.CELLS[cell].states)
    return params, rng.standard_normal((*shape_of(kind), INPUTS)).astype(dtype), states


def leaf(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy()).requires_grad_()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "state"])
def test_a_layer_has_the_bits_of_forward_and_backward(
    cell: str, kind: str, given: bool, dtype: str
) -> None:
    params, x, states = arrays(cell, kind, dtype)
    keywords = {k: getattr(v, "numpy", lambda v=v: v)() for k, v in KINDS[kind].items()}
    keywords["backend"] = backend_of(cell)
    tape = bptt.forward(cell, params, x, as_given(states) if given else None, **keywords)
    rng = np.random.default_rng(3)
    dy = rng.standard_normal(tape.y.shape).astype(dtype)
    dstate = tuple(rng.standard_normal(s.shape).astype(dtype) for s in states)
    expected = tape.backward(dy, as_given(dstate))

    weights = {name: leaf(getattr(params, name)) for name in WEIGHTS}
    of_x, of_state = leaf(x), tuple(map(leaf, states))
    y, last = bptt.torch.layer(
        cell, weights, of_x, as_given(of_state) if given else None, **KINDS[kind]
    )
    assert np.array_equal(y.detach(), tape.y)
    for found, e in zip(as_tuple(last), as_tuple(tape.state), strict=True):
        assert np.array_equal(found.detach(), e)
    incoming = tuple(map(torch.from_numpy, (dy, *dstate)))
    torch.autograd.backward((y, *as_tuple(last)), incoming)
    found = {name: weight.grad for name, weight in weights.items()}
    for name in WEIGHTS:
        assert np.array_equal(found[name], getattr(expected, name)), name
    assert np.array_equal(of_x.grad, expected.x)
    if given:
        for part, e in zip(of_state, as_tuple(expected.state), strict=True):
            assert np.array_equal(part.grad, e)


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("wanted", ["first order", "second order"])
def test_derivatives_are_those_of_finite_differences(cell: str, kind: str, wanted: str) -> None:
    params, x, states = arrays(cell, kind)
    inputs = [leaf(x), *map(leaf, states), *(leaf(getattr(params, name)) for name in WEIGHTS)]
    parts = len(states)

    def call(x: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = as_given(more[:parts])
        return tuple(tensors(bptt.torch.layer(cell, more[parts:], x, state, **KINDS[kind])))

    if wanted == "first order":
        assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    elif bptt.CELLS[cell].step is None:
        assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
    else:
        y = call(*inputs)[0]
        with pytest.raises(NotImplementedError, match=f"cell '{cell}': "):
            torch.autograd.grad(y.sum(), inputs[0], create_graph=True)


@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0)], ids=str)
def test_of_nothing_comes_nothing(cell: str, shape: tuple[int, int]) -> None:
    params = arrays(cell, "dense")[0]
    weights = [leaf(getattr(params, name)) for name in WEIGHTS]
    x = torch.zeros(*shape, INPUTS, dtype=torch.float64, requires_grad=True)
    y, last = bptt.torch.layer(cell, weights, x)
    assert y.shape == (*shape, H)
    assert {part.shape for part in as_tuple(last)} == {(shape[1], H)}
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not weights[0].grad.any()


def test_biases_may_be_missing(cell: str) -> None:
    params, x, _ = arrays(cell, "dense")
    w_ih, w_hh = (torch.from_numpy(getattr(params, name)) for name in ("w_ih", "w_hh"))
    bare = bptt.Params(params.w_ih, params.w_hh)
    expected = bptt.forward(cell, bare, x, backend=backend_of(cell)).y
    x = torch.from_numpy(x)
    for weights in ([w_ih, w_hh], (w_ih, w_hh, None), {"w_hh": w_hh, "w_ih": w_ih, "b_ih": None}):
        assert np.array_equal(bptt.torch.layer(cell, weights, x)[0], expected)


BAD = {
    "cell": (("rnn", {}, None), ValueError, "cell: expected one of"),
    "params": (("tanh", 3, None), TypeError, "params: expected a mapping or a sequence of tensors"),
    "one": (("tanh", [torch.ones(2, 2)], None), ValueError, "params: expected 2 to 4 tensors"),
    "name": (("tanh", {"w": None}, None), ValueError, "params: expected names among w_ih"),
    "missing": (("tanh", {"w_ih": None}, None), TypeError, "w_hh: expected a torch.Tensor, got"),
    "stack": (("tanh", [[], []], None), TypeError, "w_hh: expected a torch.Tensor, got list"),
    "rows": (
        ("gru", [torch.ones(5, 3), torch.ones(5, 5)], None),
        ValueError,
        r"w_hh: expected shape \(15, 5\) for cell 'gru' with hidden_size=5, got",
    ),
    "half": (
        ("tanh", [torch.ones(5, 3).half(), torch.ones(5, 5).half()], None),
        TypeError,
        "w_hh: expected a tensor of float32 or float64, got torch.float16",
    ),
    "mixed": (
        ("tanh", [torch.ones(5, 3).double(), torch.ones(5, 5)], None),
        TypeError,
        "w_ih: expected torch.float32 like w_hh, got torch.float64",
    ),
    "bias": (
        ("tanh", [torch.ones(5, 3), torch.ones(5, 5), torch.ones(4)], None),
        ValueError,
        r"b_ih: expected shape \(5,\) to match .*, got \(4,\)",
    ),
    "x": (
        ("tanh", None, np.ones((T, B, INPUTS), "f")),
        TypeError,
        "x: expected a torch.Tensor, got nd",
    ),
    "axes": (("tanh", None, torch.ones(T, INPUTS)), ValueError, r"x: expected shape \(T, B, 3\)"),
    "meta": (("tanh", None, torch.ones(T, B, INPUTS, device="meta")), ValueError, "x: .* on meta"),
    "sparse": (
        ("tanh", None, torch.ones(T, B, INPUTS).to_sparse()),
        TypeError,
        r"x: expected a strided tensor, got layout torch\.sparse_coo",
    ),
    "state": (
        ("tanh", None, None, torch.ones(3, H)),
        ValueError,
        r"state: expected shape \(4, 5\) to match x and w_hh, got \(3, 5\)",
    ),
    "pair": (
        ("lstm", [torch.ones(20, 3), torch.ones(20, 5)], None, torch.ones(B, H)),
        TypeError,
        r"state: expected a pair \(h, c\) of tensors for cell 'lstm', got Tensor",
    ),
    "no pair": (
        ("tanh", None, None, (torch.ones(B, H),) * 2),
        TypeError,
        "state: expected a tensor for cell 'tanh', got tuple of length 2",
    ),
}


@pytest.mark.parametrize("wrong", BAD)
@pytest.mark.full_product
def test_what_is_wrong_is_named(wrong: str) -> None:
    (cell, params, x, *state), error, message = BAD[wrong]
    params = [torch.ones(5, 3), torch.ones(5, 5)] if params is None else params
    x = torch.ones(T, B, INPUTS) if x is None else x
    with pytest.raises(error, match=message):
        bptt.torch.layer(cell, params, x, *state)


def test_wrong_sequences_are_named() -> None:
    weights, x = [torch.ones(5, 3), torch.ones(5, 5)], torch.ones(T, B, INPUTS)
    for keywords, error, message in (
        ({"lengths": [7] * B}, ValueError, "lengths: expected lengths from 0 to 6"),
        ({"lengths": torch.ones(B)}, TypeError, "lengths: expected integers"),
        ({"reset": np.ones((T, B))}, TypeError, "reset: expected an array of bools"),
        ({"reverse": 1}, TypeError, "reverse: expected True or False"),
        ({"batch_first": None}, TypeError, "batch_first: expected True or False"),
        ({"batch_sizes": [4]}, ValueError, r"x: expected shape \(N, 3\)"),
    ):
        with pytest.raises(error, match=message):
            bptt.torch.layer("tanh", weights, x, **keywords)


# --- Recurrent ----------------------------------------------------------------------------------

SIZES = {"input_size": INPUTS, "hidden_size": H}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM])
def test_a_module_starts_with_the_weights_of_pytorchs(kind: type, bias: bool) -> None:
    torch.manual_seed(0)
    theirs = kind(**SIZES, bias=bias)
    torch.manual_seed(0)
    cell = {"RNN": "tanh"}.get(kind.__name__, kind.__name__.lower())
    ours = bptt.torch.Recurrent(cell, **SIZES, bias=bias)
    expected, found = theirs.state_dict(), ours.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    x = torch.randn(T, B, INPUTS)
    y, last = ours(x)
    e, e_last = theirs(x)
    torch.testing.assert_close(y, e)
    for part, of_theirs in zip(tensors(last), tensors(e_last), strict=True):
        torch.testing.assert_close(part, of_theirs[0])


def test_a_module_runs_any_cell_on_sequences_of_any_kind(cell: str) -> None:
    torch.manual_seed(0)
    module = bptt.torch.Recurrent(cell, **SIZES, dtype=torch.float64)
    weights = list(module.parameters())
    for kind, keywords in KINDS.items():
        _, x, states = arrays(cell, kind)
        x, state = torch.from_numpy(x), as_given(tuple(map(torch.from_numpy, states)))
        expected = tensors(bptt.torch.layer(cell, weights, x, state, **keywords))
        module.batch_first = "batch_first" in keywords
        more = {name: value for name, value in keywords.items() if name != "batch_first"}
        for e, found in zip(expected, tensors(module(x, state, **more)), strict=True):
            assert torch.equal(found, e), kind


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_module_takes_a_packed_sequence_as_pytorchs_do(cell: str, batch_first: bool) -> None:
    torch.manual_seed(0)
    module = bptt.torch.Recurrent(cell, **SIZES, batch_first=batch_first)
    x, lengths = torch.randn(*((B, T) if batch_first else (T, B)), INPUTS), [2, 6, 3, 6]
    state = tuple(torch.randn(B, H) for _ in module.cell.states)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False, batch_first=batch_first)
    y, last = module(packed, as_given(state))
    e, e_last = module(x, as_given(state), lengths=lengths)
    e = pack_padded_sequence(e, lengths, enforce_sorted=False, batch_first=batch_first)
    assert torch.equal(y.data, e.data)
    assert torch.equal(y.unsorted_indices, packed.unsorted_indices)
    for part, expected in zip(tensors(last), tensors(e_last), strict=True):
        assert torch.equal(part, expected)


def test_a_module_is_a_module() -> None:
    module = bptt.torch.Recurrent("mgu", 3, 5, bias=False, batch_first=True)
    assert repr(module) == "Recurrent(mgu, 3, 5, bias=False, batch_first=True)"
    x = torch.randn(2, 7, 3)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x)[0], module(x)[0])
    assert module.double()(x.double())[0].dtype is torch.float64
    assert bptt.torch.Recurrent("gru", 3, 5, device="meta").weight_ih_l0.is_meta
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    before = module(x.double())[0].square().sum()
    before.backward()
    optimizer.step()
    assert module(x.double())[0].square().sum() < before


def test_bad_arguments_of_a_module_are_named() -> None:
    for args, error, message in (
        (("rnn", 3, 5), ValueError, "cell: expected one of .*did you mean 'tanh'"),
        (("tanh", 0, 5), ValueError, "input_size: expected an integer of at least 1"),
        (("tanh", 3, 5.0), TypeError, "hidden_size: expected an integer, got float"),
        (("tanh", 3, 5, 1), TypeError, "bias: expected True or False"),
        (("tanh", 3, 5, True, None), TypeError, "batch_first: expected True or False"),
    ):
        with pytest.raises(error, match=message):
            bptt.torch.Recurrent(*args)
    module, packed = bptt.torch.Recurrent("tanh", 3, 5), pack_sequence([torch.ones(2, 3)])
    with pytest.raises(ValueError, match="expected neither beside a PackedSequence"):
        module(packed, lengths=[2])
    with pytest.raises(ValueError, match=r"state: expected shape \(1, 5\)"):
        module(packed, torch.ones(2, 5))
