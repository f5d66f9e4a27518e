"""`bptt.torch.LagMonitor` measures what `lag_gradients` finds of a step of training."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import bptt
import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)

import bptt.torch  # noqa: E402
from bptt.torch import LagMonitor, Recurrent  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_modules import PAIRS  # noqa: E402

T, B, H = 9, 4, 5
CELL = {torch.nn.RNN: "tanh", torch.nn.GRU: "gru", torch.nn.LSTM: "lstm"}
KINDS = pytest.mark.parametrize("kind", CELL, ids=lambda kind: kind.__name__)
X = torch.randn(T, B, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
DY = torch.randn(T, B, H, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def made(kind: type, layers: int = 1, **options: Any) -> torch.nn.RNNBase:
    torch.manual_seed(0)
    return PAIRS[kind](3, H, layers, dtype=torch.float64, **options)


def params_of(module: torch.nn.Module) -> list[bptt.Params]:
    weights = [w.detach().numpy() for w in module.parameters()]
    return [bptt.Params(*weights[n : n + 4]) for n in range(0, len(weights), 4)]


def expected_of(module: torch.nn.Module, *args: Any, **options: Any) -> bptt.LagGradients:
    layers = params_of(module)
    params = layers[0] if len(layers) == 1 else layers
    options = {name: np.asarray(value) for name, value in options.items()}
    return bptt.lag_gradients(CELL[type(module).__mro__[2]], params, *args, **options)


def same(found: bptt.LagGradients | None, expected: bptt.LagGradients) -> None:
    assert found is not None
    for name in expected.norm:
        np.testing.assert_allclose(
            found.norm[name], expected.norm[name][found.lags], rtol=1e-9, atol=1e-12
        )


def every(module: torch.nn.Module, **options: Any) -> LagMonitor:
    return LagMonitor(module, every=1, max_lag=T - 1, lags=None, **options)


@KINDS
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("hx", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("of_torch", [False, True], ids=["ours", "torch.nn"])
def test_a_step_is_measured_as_lag_gradients_measures_it(
    kind: type, layers: int, hx: bool, batch_first: bool, of_torch: bool
) -> None:
    module = made(kind, layers, batch_first=batch_first)
    states = [torch.randn(layers, B, H, dtype=torch.float64) for _ in range(2)]
    states = states[: 2 if kind is torch.nn.LSTM else 1]
    given = (tuple(states) if len(states) > 1 else states[0],) if hx else ()
    state = [np.asarray(s if layers > 1 else s[0]) for s in states] if hx else [None]
    expected = bptt.lag_gradients(
        CELL[kind],
        params_of(module) if layers > 1 else params_of(module)[0],
        X.numpy(),
        dy=DY.numpy(),
        state=tuple(state) if len(state) > 1 else state[0],
    )
    module = bptt.torch.restore(module) and module if of_torch else module
    monitor = every(module)
    x, dy = (t.transpose(0, 1) if batch_first else t for t in (X, DY))
    y, _ = module(x, *given)
    (y * dy).sum().backward()
    same(monitor.last, expected)
    (record,) = monitor.history
    assert (record.step, record.horizon) == (0, monitor.last.horizon(0.05))


@KINDS
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_a_gradient_at_the_last_state_counts_at_the_last_step(
    kind: type, layers: int, packed: bool
) -> None:
    module, lengths = made(kind, layers), [4, 9, 1, 6] if packed else [T] * B
    dy = DY.clone()
    for b, n in enumerate(lengths):
        dy[n - 1, b] += DY[0, b]
    expected = expected_of(module, X.numpy(), dy=dy, lengths=lengths)
    monitor = every(module)
    if packed:
        y, last = module(pack_padded_sequence(X, lengths, enforce_sorted=False))
        y, _ = pad_packed_sequence(y)
    else:
        y, last = module(X)
    h = last[0] if kind is torch.nn.LSTM else last
    ((y * DY).sum() + (h[-1] * DY[0]).sum()).backward()
    same(monitor.last, expected)
    last = module(X)[1]
    (last[0] if kind is torch.nn.LSTM else last)[-1].sum().backward()  # no gradient at y at all
    assert monitor.steps == 2


def test_one_sequence_without_a_batch() -> None:
    module = made(torch.nn.LSTM, 2, batch_first=True)
    expected = expected_of(module, X[:, :1].numpy(), dy=DY[:, :1])
    monitor = every(module)
    hx = tuple(torch.zeros(2, H, dtype=torch.float64) for _ in range(2))
    (module(X[:, 0], hx)[0] * DY[:, 0]).sum().backward()
    same(monitor.last, expected)


@pytest.mark.parametrize("name", ["linear", "mgu"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_any_cell_on_sequences_of_any_kind(name: str, reverse: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    module = Recurrent(name, 3, H, batch_first=batch_first, dtype=torch.float64)
    how = {"lengths": [9, 2, 0, 7], "reverse": reverse}
    turn = (lambda t: t.transpose(0, 1)) if batch_first else (lambda t: t)
    state = DY[1]
    dy = DY.numpy().copy()
    for b, n in enumerate(how["lengths"]):
        if n:
            dy[0 if reverse else n - 1, b] += DY[0, b].numpy()
    params = params_of(module)[0]
    options = {"dy": dy, "state": state.numpy(), "backend": "numpy", **how}
    expected = bptt.lag_gradients(name, params, X.numpy(), **options)
    monitor = every(module, backend="numpy")
    monitor_of_none = module.eval()(turn(X), **how)[0]
    assert monitor_of_none.requires_grad
    y, last = module.train()(turn(X), state=state, **how)
    ((turn(y) * DY).sum() + (last * DY[0]).sum()).backward()
    same(monitor.last, expected)
    assert monitor.steps == 1


def test_steps_are_calls_in_training_that_get_a_gradient() -> None:
    module = made(torch.nn.GRU)
    monitor = every(module)
    with torch.no_grad():
        module(X)
    module(X)
    module.eval()(X)[0].sum().backward()
    assert monitor.steps == 0
    y = module.train()(X)[0].sum()
    y.backward(retain_graph=True)
    y.backward()
    assert monitor.steps == 1
    module.requires_grad_(False)(X)
    assert monitor.steps == 1
    module(X.clone().requires_grad_())[0].sum().backward()
    assert monitor.steps == 2
    monitor.remove()
    module.requires_grad_()(X)[0].sum().backward()
    assert (monitor.steps, len(monitor.history)) == (2, 2)
    assert not module._forward_hooks


def test_the_budget_is_that_of_the_monitor_of_arrays() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, module = Clock(), made(torch.nn.GRU)
    monitor, of_arrays = LagMonitor(module, every=4, clock=clock), bptt.LagMonitor(every=4)
    for _ in range(10):
        of_arrays.step("gru", params_of(module)[0], X.numpy(), dy=DY.numpy())
        (module(X)[0] * DY).sum().backward()
        clock.now += 1.0
    steps = [record.step for record in monitor.history]
    assert steps == [record.step for record in of_arrays.history] == [0, 4, 8]
    assert monitor.history[0].horizon == of_arrays.history[0].horizon
    assert (monitor.steps, monitor.overhead) == (10, 0.0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_a_checkpoint_a_call_is_one_step(reentrant: bool) -> None:
    module = made(torch.nn.GRU)
    expected = expected_of(module, X.numpy(), dy=DY)
    monitor = every(module)
    x = X.clone().requires_grad_()
    y, _ = checkpoint(module, x, use_reentrant=reentrant)
    (y * DY).sum().backward()
    same(monitor.last, expected)
    assert monitor.steps == 1


def test_other_dtypes_are_measured_in_float32() -> None:
    torch.manual_seed(0)
    module = torch.nn.GRU(3, H).bfloat16()
    monitor = every(module)
    module(X.bfloat16())[0].sum().backward()
    assert monitor.last.total["w_hh"].dtype == np.float32
    module = made(torch.nn.GRU).float()
    monitor = every(module)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.warns(UserWarning, match="autocast"):
        y = module(X.float())[0]
    y.sum().backward()
    assert monitor.steps == 1


def test_parametrizations_are_read_and_not_disturbed() -> None:
    found = []
    for watched in (False, True):
        torch.manual_seed(0)
        module = parametrizations.spectral_norm(made(torch.nn.GRU), "weight_hh_l0")
        monitor = every(module) if watched else None
        for _ in range(3):
            module(X)[0].sum().backward()
        found.append([t.clone() for t in module.state_dict().values()])
    assert all(map(torch.equal, *found))
    assert monitor.steps == 3


def test_what_cannot_be_measured_is_left_out_and_said() -> None:
    module = made(torch.nn.LSTM, 2)
    every(module)
    y, (h, c) = module(X)
    with pytest.warns(UserWarning, match="comes in at the last c is left out"):
        (y.sum() + c.sum()).backward()
    y, (h, c) = module(X)
    with pytest.warns(UserWarning, match="at the last h of layers below the top is left out"):
        (y.sum() + h.sum()).backward()


def test_a_writer_gets_the_scalars() -> None:
    class Writer:
        def __init__(self) -> None:
            self.rows: list[tuple[str, float, int]] = []

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.rows.append((tag, value, step))

    writer, module = Writer(), made(torch.nn.GRU, 2)
    monitor = every(module, writer=writer, name="encoder")
    for _ in range(2):
        module(X)[0][-1].sum().backward()
    assert [row[::2] for row in writer.rows[:4]] == [
        ("encoder/horizon", 0),
        ("encoder/half_life", 0),
        ("encoder/horizon/layer_0", 0),
        ("encoder/horizon/layer_1", 0),
    ]
    assert writer.rows[0][1] == monitor.history[0].horizon
    assert writer.rows[6][1:] == (monitor.last.horizon(of="layers[0]"), 1)


def test_copies_of_a_module_are_not_measured_and_nothing_is_kept_alive() -> None:
    module = made(torch.nn.GRU)
    monitor = every(module)
    other = copy.deepcopy(module)
    other(X)[0].sum().backward()
    assert monitor.steps == 0
    loaded = pickle.loads(pickle.dumps(module))
    loaded(X)[0].sum().backward()
    assert monitor.steps == 0

    x = X.clone()
    seen = weakref.ref(x)
    y, _ = module(x)
    del x
    y.sum().backward()
    gc.collect()
    assert seen() is None  # although y is there
    x = X.clone()
    seen = weakref.ref(x)
    y, _ = module(x)
    gc.disable()
    try:
        del x, y, _  # without a way back
        assert seen() is None
    finally:
        gc.enable()


def test_plots_and_dictionaries_are_those_of_the_history() -> None:
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot as plt

    module = made(torch.nn.GRU)
    monitor = every(module)
    for _ in range(2):
        module(X)[0].sum().backward()
    assert len(monitor.to_dict()["history"]) == 2
    plt.close(monitor.plot())
    figure, axes = plt.subplots()
    monitor.draw(axes)
    assert axes.lines
    plt.close(figure)
    assert repr(monitor).endswith("of GRU")


def test_bad_arguments_are_named() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.GRU(2, 2))
    for module, error, message in (
        (3, TypeError, "module: expected an RNN, GRU, LSTM or Recurrent, got int"),
        (model, TypeError, "got Sequential, which has these: 1$"),
        (made(torch.nn.GRU, bidirectional=True), ValueError, "got bidirectional=True"),
        (torch.nn.LSTM(3, 5, proj_size=2), ValueError, "no projections, got proj_size=2"),
    ):
        with pytest.raises(error, match=message):
            LagMonitor(module)
    module = made(torch.nn.GRU)
    with pytest.raises(TypeError, match="writer: expected an object with add_scalar, got int"):
        LagMonitor(module, writer=3)
    with pytest.raises(ValueError, match="budget: expected a positive number"):
        LagMonitor(module, budget=0)
    assert not module._forward_hooks


def test_a_batch_of_nothing_is_no_step() -> None:
    layer = Recurrent("tanh", 3, H)
    monitor = LagMonitor(layer, every=1)
    y, _ = layer(torch.randn(T, 0, 3))
    y.sum().backward()
    assert monitor.steps == 0
