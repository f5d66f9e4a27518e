"""Weights of other libraries compute here what they compute there, and go back unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import bptt
import numpy as np
import pytest

T, B, I, H = 7, 3, 4, 5  # noqa: E741
CELLS = ["tanh", "lstm", "gru"]
each_cell = pytest.mark.parametrize("cell", CELLS)


def data(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((T, B, I), dtype=np.float32)


def run(cell: str, params: bptt.Params, x: np.ndarray, state: Any = None) -> np.ndarray:
    return bptt.forward(cell, params, x, state).y


def assert_equal(found: bptt.Params, expected: bptt.Params) -> None:
    assert found.arrays().keys() == expected.arrays().keys()
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


# --- PyTorch ------------------------------------------------------------------------------------


@pytest.fixture
def torch() -> Iterator[Any]:
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    module.manual_seed(0)
    return module


def torch_layer(torch: Any, cell: str, **options: Any) -> Any:
    kind = {"tanh": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    return kind(I, H, **options)


@each_cell
@pytest.mark.parametrize("bias", [True, False])
def test_torch_computes_the_same(torch: Any, cell: str, bias: bool, tmp_path: Any) -> None:
    layer = torch_layer(torch, cell, num_layers=2, bidirectional=True, bias=bias)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")  # as PyTorch itself writes it
    state_dict = torch.load(tmp_path / "layer.pt", weights_only=True)
    params = bptt.Params.from_torch(state_dict)
    back = bptt.Params.from_torch(state_dict, reverse=True)
    second = bptt.Params.from_torch(state_dict, layer=1)
    x = data()
    first = np.concatenate([run(cell, params, x), run(cell, back, x[::-1].copy())[::-1]], axis=-1)
    expected, _ = layer(torch.from_numpy(x))
    found = run(cell, second, np.ascontiguousarray(first))
    np.testing.assert_allclose(found, expected[..., :H].detach().numpy(), atol=1e-6)


@each_cell
def test_to_torch_is_a_state_dict(torch: Any, cell: str) -> None:
    params = bptt.init_params(cell, input_size=I, hidden_size=H, output_size=2, rng=0)
    layer = torch_layer(torch, cell)
    layer.load_state_dict(params.to_torch())
    again = bptt.Params.from_torch(layer.state_dict())
    params.w_ho = params.b_o = None
    assert_equal(again, params)


def test_what_torch_has_and_bptt_has_not_is_refused(torch: Any) -> None:
    projected = torch.nn.LSTM(I, H, proj_size=2).state_dict()
    with pytest.raises(ValueError, match=r"^state_dict: layer 0 has a projection"):
        bptt.Params.from_torch(projected)
    with pytest.raises(ValueError, match=r"expected 'weight_ih_l1', got weight_ih_l0"):
        bptt.Params.from_torch(torch.nn.LSTM(I, H).state_dict(), layer=1)
    with pytest.raises(ValueError, match=r"^layer: expected an integer of at least 0, got -1"):
        bptt.Params.from_torch(torch.nn.LSTM(I, H).state_dict(), layer=-1)


# --- Keras --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    if "KERAS_BACKEND" not in os.environ:
        os.environ["KERAS_BACKEND"] = "jax"
        pytest.importorskip("jax")
    return pytest.importorskip("keras")


def keras_layer(keras: Any, cell: str, **options: Any) -> Any:
    name = {"tanh": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}[cell]
    return getattr(keras.layers, name)(H, return_sequences=True, **options)


@pytest.mark.filterwarnings("ignore")
@each_cell
@pytest.mark.parametrize("bias", [True, False])
def test_keras_computes_the_same(keras: Any, cell: str, bias: bool, tmp_path: Any) -> None:
    layer = keras_layer(keras, cell, use_bias=bias, bias_initializer="uniform")
    model = keras.Sequential([keras.Input((T, I)), layer])
    model.save(tmp_path / "model.keras")  # as Keras itself writes it
    weights = keras.saving.load_model(tmp_path / "model.keras").layers[-1].get_weights()
    params = bptt.Params.from_keras(weights, cell)
    x = data()
    expected = np.asarray(model(x.swapaxes(0, 1))).swapaxes(0, 1)  # batch first there
    np.testing.assert_allclose(run(cell, params, x), expected, atol=2e-6)
    for found, wanted in zip(params.to_keras(cell), weights, strict=True):
        np.testing.assert_array_equal(found, wanted)


@each_cell
def test_both_biases_become_what_keras_has(cell: str) -> None:
    params = bptt.init_params(cell, input_size=I, hidden_size=H, rng=0, dtype="float64")
    again = bptt.Params.from_keras(params.to_keras(cell), cell)
    x = data().astype("float64")
    np.testing.assert_allclose(run(cell, again, x), run(cell, params, x), atol=1e-14)


BAD_KERAS = [
    ("gru", [(I, 3 * H), (H, 3 * H), (3 * H,)], r"^weights\[2\]: .*reset_after=False"),
    ("lstm", [(I, 4 * H), (H, 4 * H), (4 * H,), (H,), (H,), (H,)], r"got 6 arrays; peepholes"),
    ("lstm", [(I, 3 * H), (H, 3 * H), (3 * H,)], r"^weights\[1\]: .*\(5, 20\) .*'lstm', got \(5"),
    ("lstm", [(I, 9), (H, 4 * H)], r"^weights\[0\]: expected shape \(I, 20\) .*got \(4, 9\)"),
    ("tanh", [(I, H), (H, H), (9,)], r"^weights\[2\]: expected shape \(5,\) .*got \(9,\)"),
]


@pytest.mark.parametrize(("cell", "shapes", "words"), BAD_KERAS)
def test_keras_weights_that_do_not_fit_are_refused(
    cell: str, shapes: list[tuple[int, ...]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        bptt.Params.from_keras([np.zeros(shape, "f4") for shape in shapes], cell)


# --- ONNX ---------------------------------------------------------------------------------------


def onnx_outputs(onnx: Any, cell: str, inputs: dict[str, np.ndarray], x: np.ndarray) -> Any:
    """Y and the last states, by ONNX's own reference."""
    helper, kind = onnx.helper, {"tanh": "RNN", "lstm": "LSTM", "gru": "GRU"}[cell]
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    states = ["Y", "Y_h", *(["Y_c"] if cell == "lstm" else [])]
    node = helper.make_node(kind, ["X", "W", "R", "B"], states, hidden_size=H, **options)
    feeds = {"X": x, **inputs}
    graph = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape)
            for n, a in feeds.items()
        ],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in states],
    )
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(helper.make_model(graph)).run(None, feeds)


def read_onnx(cell: str, *arrays: np.ndarray, **options: Any) -> bptt.Params:
    return bptt.Params.from_onnx(cell, *arrays, **{"linear_before_reset": 1, **options})


@pytest.mark.filterwarnings("ignore")
@each_cell
def test_onnx_computes_the_same(cell: str) -> None:
    onnx = pytest.importorskip("onnx")
    params = bptt.init_params(cell, input_size=I, hidden_size=H, rng=0)
    inputs, x = params.to_onnx(cell), data()
    y, *_ = onnx_outputs(onnx, cell, inputs, x)
    np.testing.assert_allclose(run(cell, params, x), y[:, 0], atol=2e-6)
    assert_equal(read_onnx(cell, *inputs.values()), params)


@each_cell
def test_onnx_directions_are_apart(cell: str) -> None:
    both = [bptt.init_params(cell, input_size=I, hidden_size=H, rng=n) for n in range(2)]
    inputs = [params.to_onnx(cell) for params in both]
    stacked = [np.concatenate([one[name] for one in inputs]) for name in ("W", "R", "B")]
    for n, params in enumerate(both):
        assert_equal(read_onnx(cell, *stacked, direction=n), params)


@pytest.mark.parametrize(
    ("cell", "changed", "words"),
    [
        ("gru", {"linear_before_reset": 0}, r"^linear_before_reset: expected 1, got 0"),
        ("lstm", {"peepholes": np.ones((1, 3 * H))}, r"^peepholes: expected none, or zeros"),
        ("lstm", {"direction": 1}, r"^direction: expected less than 1, got 1"),
        ("lstm", {"r": np.zeros((1, 3 * H, H), "f4")}, r"^r: .*\(1, 20, 5\) .*'lstm'"),
        ("gru", {"w": np.zeros((1, 7, I), "f4")}, r"^w: expected shape \(1, 15, I\) .*\(1, 7, 4\)"),
        ("gru", {"b": np.zeros((1, 7), "f4")}, r"^b: expected shape \(1, 30\) .*\(1, 7\)"),
    ],
)
def test_onnx_weights_that_do_not_fit_are_refused(
    cell: str, changed: dict[str, Any], words: str
) -> None:
    w, r, b = bptt.init_params(cell, input_size=I, hidden_size=H, rng=0).to_onnx(cell).values()
    with pytest.raises(ValueError, match=words):
        read_onnx(cell, **{"w": w, "r": r, "b": b, **changed})
    read_onnx(cell, w, r, b)
