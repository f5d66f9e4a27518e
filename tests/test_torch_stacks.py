"""A module of ``torch.nn`` with several layers, in one or both directions, is a stack here."""

from __future__ import annotations

from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)
torch.set_num_threads(1)

T, B, I, H, O = 9, 3, 4, 5, 2  # noqa: E741
TOLERANCE = 1e-10


class Net(torch.nn.Module):  # type: ignore[misc]
    """A recurrent module and a readout, seeded."""

    def __init__(self, cell: str, layers: int, directions: int) -> None:
        super().__init__()
        torch.manual_seed(10 * layers + directions)
        options: dict[str, Any] = {"num_layers": layers, "bidirectional": directions == 2}
        options["dtype"] = torch.float64
        if cell in ("tanh", "relu"):
            self.rnn = torch.nn.RNN(I, H, nonlinearity=cell, **options)
        else:
            self.rnn = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](I, H, **options)
        self.out = torch.nn.Linear(directions * H, O, dtype=torch.float64)


def layers_of(net: Net) -> list[Any]:
    return bptt.Params.from_torch(net.state_dict(), "all", prefix="rnn.", readout="out.")


def leaf(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, requires_grad=True)


def close(found: np.ndarray, theirs: torch.Tensor | None) -> bool:
    assert theirs is not None
    return np.allclose(found, theirs.detach().numpy(), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.full_product
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("of", ["tanh", "relu", "lstm", "gru"])
def test_outputs_states_and_all_gradients_are_those_of_torch(
    of: str, layers: int, directions: int
) -> None:
    net, rng = Net(of, layers, directions), np.random.default_rng(0)
    parts = len(bptt.CELLS[of].states)
    x, dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, directions * H))
    state, dstate = (
        tuple(rng.standard_normal((layers * directions, B, H)) for _ in range(parts))
        for _ in range(2)
    )
    their_x, their_state = leaf(x), tuple(map(leaf, state))
    their_y, their_last = net.rnn(their_x, as_given(their_state))
    their_last = as_tuple(their_last)
    loss = (their_y * torch.tensor(dy)).sum()
    for last, d in zip(their_last, dstate, strict=True):
        loss = loss + (last * torch.tensor(d)).sum()
    loss.backward()

    tape = bptt.forward(of, layers_of(net), x, as_given(state))
    grads = tape.backward(dy, as_given(dstate))
    assert close(tape.y, their_y)
    assert all(map(close, as_tuple(tape.state), their_last))
    assert close(grads.x, their_x.grad)
    assert all(close(a, b.grad) for a, b in zip(as_tuple(grads.state), their_state, strict=True))
    found = bptt.Params.layers_to_torch(grads.layers, prefix="rnn.")
    theirs = {name: p.grad for name, p in net.named_parameters() if name.startswith("rnn.")}
    assert found.keys() == theirs.keys()
    for name, gradient in found.items():
        assert close(gradient.numpy(), theirs[name]), name


@pytest.mark.full_product
@pytest.mark.parametrize("at", ["all", "last", 2])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("of", ["tanh", "relu", "lstm", "gru"])
def test_the_loss_of_a_whole_net_and_its_gradients_are_those_of_torch(
    of: str, directions: int, at: Any
) -> None:
    net, rng = Net(of, 2, directions), np.random.default_rng(0)
    x, ids = rng.standard_normal((T, B, I)), rng.integers(0, O, (T, B))
    steps = {"all": slice(None), "last": slice(T - 1, T)}.get(at, slice(2, 3))
    their_x = leaf(x)
    logits = net.out(net.rnn(their_x)[0][steps])
    their_loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, O), torch.tensor(ids[steps].reshape(-1))
    )
    their_loss.backward()

    target = ids if at == "all" else ids[steps][0]
    loss, grads = bptt.value_and_grad(of, layers_of(net), x, target, loss="cross_entropy", at=at)
    assert np.isclose(loss, their_loss.item(), rtol=TOLERANCE)
    assert close(grads.x, their_x.grad)
    found = bptt.Params.layers_to_torch(grads.layers, prefix="rnn.", readout="out.")
    theirs = {name: p.grad for name, p in net.named_parameters()}
    assert found.keys() == theirs.keys()
    for name, gradient in found.items():
        assert close(gradient.numpy(), theirs[name]), name


@pytest.mark.full_product
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("of", ["tanh", "lstm", "gru"])
def test_packed_sequences_are_those_of_torch(of: str, directions: int, packed: bool) -> None:
    net, rng = Net(of, 2, directions), np.random.default_rng(0)
    lengths = [T, 6, 6, 1] if packed else [6, 1, T, 6]
    x = rng.standard_normal((T, len(lengths), I))
    their_x = leaf(x)
    theirs = torch.nn.utils.rnn.pack_padded_sequence(their_x, lengths, enforce_sorted=False)
    their_packed, their_last = net.rnn(theirs)
    their_y, _ = torch.nn.utils.rnn.pad_packed_sequence(their_packed)
    dy = rng.standard_normal(their_y.shape)
    (their_y * torch.tensor(dy)).sum().backward()

    if packed:
        data, sizes = theirs.data.detach(), theirs.batch_sizes
        tape = bptt.forward(of, layers_of(net), data, batch_sizes=sizes)
        rows = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(dy), lengths)
        grads = tape.backward(rows.data)
        dx = torch.nn.utils.rnn.PackedSequence(torch.from_numpy(grads.x), sizes)
        padded_dx = torch.nn.utils.rnn.pad_packed_sequence(dx)[0].numpy()
        assert close(tape.y, their_packed.data)
    else:
        tape = bptt.forward(of, layers_of(net), x, lengths=lengths)
        grads = tape.backward(dy)
        padded_dx = grads.x
        assert close(tape.y, their_y)
    assert all(map(close, as_tuple(tape.state), as_tuple(their_last)))
    assert close(padded_dx, their_x.grad)
    found = bptt.Params.layers_to_torch(grads.layers, prefix="rnn.")
    for name, p in net.named_parameters():
        assert not name.startswith("rnn.") or close(found[name].numpy(), p.grad), name


@pytest.mark.parametrize("directions", [1, 2])
def test_a_state_dict_comes_back_as_it_was(directions: int) -> None:
    net = Net("gru", 3, directions)
    back = bptt.Params.layers_to_torch(layers_of(net), prefix="rnn.", readout="out.")
    assert list(back) == list(net.state_dict())
    assert all(torch.equal(back[name], tensor) for name, tensor in net.state_dict().items())


def test_a_state_dict_without_the_layer_or_the_readout_tells_what_there_is() -> None:
    found = Net("gru", 2, 2).state_dict()
    with pytest.raises(ValueError, match=r"expected 'weight_ih_l0'.*prefix='rnn\.'"):
        bptt.Params.from_torch(found, "all")
    with pytest.raises(ValueError, match=r"expected 'o\.weight'.*readout='out\.'"):
        bptt.Params.from_torch(found, "all", prefix="rnn.", readout="o.")
    with pytest.raises(ValueError, match=r"layer: expected one of all, got 'al'"):
        bptt.Params.from_torch(found, "al", prefix="rnn.")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="reverse: expected False"):
        bptt.Params.from_torch(found, "all", prefix="rnn.", reverse=True)  # type: ignore[call-overload]
    narrow = Net("gru", 2, 1).state_dict()
    wrong = {**found, "out.weight": narrow["out.weight"]}
    with pytest.raises(ValueError, match=r"out.weight: expected shape \(O, 10\)"):
        bptt.Params.from_torch(wrong, "all", prefix="rnn.", readout="out.")
