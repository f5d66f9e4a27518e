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


def torch_model(torch: Any, **options: Any) -> Any:
    """A network as people write one: a recurrent layer, and a Linear that reads its states."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(I, H, **options)
            self.norm = torch.nn.LayerNorm(H)
            self.out = torch.nn.Linear(H, 2)

        def forward(self, x: Any) -> Any:
            return self.out(self.rnn(x)[0])

    return Net()


def test_layer_and_readout_of_a_whole_model_compute_the_same(torch: Any) -> None:
    net, x = torch_model(torch), data()
    params = bptt.Params.from_torch(net.state_dict(), prefix="rnn.", readout="out.")
    found = run("lstm", params, x) @ params.w_ho.T + params.b_o
    expected = net(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_to_torch_has_the_prefixes_of_the_model(torch: Any) -> None:
    params = bptt.init_params("lstm", input_size=I, hidden_size=H, output_size=2, rng=0)
    net = torch_model(torch)
    left_out = net.load_state_dict(params.to_torch(prefix="rnn.", readout="out."), strict=False)
    assert left_out.missing_keys == ["norm.weight", "norm.bias"]
    assert_equal(bptt.Params.from_torch(net.state_dict(), prefix="rnn.", readout="out."), params)
    params.w_ho = params.b_o = None
    with pytest.raises(ValueError, match=r"^readout: expected None"):
        params.to_torch(readout="out.")


@pytest.mark.parametrize(
    ("prefixes", "words"),
    [
        (
            {},
            r"expected 'weight_ih_l0', got rnn\.weight_ih_l0, .*; there is one with prefix='rnn\.'",
        ),
        (
            {"prefix": "rnn"},
            r"expected 'rnnweight_ih_l0', got .*; there is one with prefix='rnn\.'",
        ),
        ({"prefix": "rnn.", "layer": 1}, r"expected 'rnn\.weight_ih_l1', got [^;]*$"),
        (
            {"prefix": "rnn.", "readout": "fc."},
            r"expected 'fc\.weight', got .*; there is one with readout='out\.'$",
        ),
    ],
)
def test_prefixes_that_a_model_has_are_named(
    torch: Any, prefixes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=f"^state_dict: {words}"):
        bptt.Params.from_torch(torch_model(torch).state_dict(), **prefixes)


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cell", ["linear", "relu", *CELLS])
def test_a_keras_layer_tells_its_cell_and_computes_the_same(keras: Any, cell: str) -> None:
    options = {} if cell in CELLS else {"activation": cell}
    layer = keras_layer(keras, cell if cell in CELLS else "tanh", stateful=True, **options)
    x = data()
    expected = np.asarray(layer(x.swapaxes(0, 1))).swapaxes(0, 1)
    np.testing.assert_allclose(run(cell, bptt.Params.from_keras(layer), x), expected, atol=2e-6)
    told = bptt.Params.from_keras(layer.get_weights(), cell, config=layer.get_config())
    assert_equal(told, bptt.Params.from_keras(layer, cell))


@pytest.mark.filterwarnings("ignore")
@each_cell
def test_a_keras_layer_that_reads_from_the_end_computes_the_same_of_x_reversed(
    keras: Any, cell: str
) -> None:
    layer, x = keras_layer(keras, cell, go_backwards=True), data()
    expected = np.asarray(layer(x.swapaxes(0, 1))).swapaxes(0, 1)
    with pytest.raises(ValueError, match=r"^config: go_backwards: expected False; .*reverse=True"):
        bptt.Params.from_keras(layer)
    params = bptt.Params.from_keras(layer, reverse=True)
    np.testing.assert_allclose(run(cell, params, x[::-1].copy()), expected, atol=2e-6)


@pytest.mark.filterwarnings("ignore")
def test_keras_layers_that_compute_something_else_are_refused(keras: Any) -> None:
    def refused(layer: Any, words: str, **options: Any) -> None:
        layer(data().swapaxes(0, 1))
        with pytest.raises(ValueError, match=words):
            bptt.Params.from_keras(layer, **options)

    hard = keras_layer(keras, "lstm", recurrent_activation="hard_sigmoid")
    refused(hard, r"^config: recurrent_activation: expected 'sigmoid', .*; got 'hard_sigmoid'")
    before = keras_layer(keras, "gru", reset_after=False, use_bias=False)
    refused(before, r"^config: reset_after: expected True: .*; got False")
    refused(keras_layer(keras, "tanh", activation="elu"), r"activation: expected 'tanh', .*'elu'")
    refused(
        keras_layer(keras, "gru"), r"^cell: expected one of gru for a GRU, got 'lstm'", cell="lstm"
    )
    both = keras.layers.Bidirectional(keras_layer(keras, "gru"))
    refused(both, r"got Bidirectional; give its forward_layer, or its backward_layer")
    refused(keras.layers.Dense(H), r"^weights: expected a SimpleRNN, LSTM or GRU.*, got Dense")


KERAS_CONFIG = {
    "units": H,
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "reset_after": True,
    "go_backwards": False,
    "stateful": True,
    "dropout": 0.5,
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"activation": "relu"},
            "activation: expected 'tanh', which cell 'gru' computes; got 'relu'",
        ),
        ({"activation": None}, "activation: expected 'tanh', .*; got None"),
        ({"activation": {"config": "mine"}}, "activation: expected 'tanh', .*; got {'config'"),
        ({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation: expected 'sigmoid', "),
        ({"reset_after": False}, "reset_after: expected True: "),
        ({"use_bias": False}, "use_bias: expected True by the number of arrays; got False"),
        ({"units": 7}, "units: expected 5 by the shapes of the weights; got 7"),
        ({"go_backwards": True}, "go_backwards: expected False; .*; got True"),
    ],
)
def test_a_keras_configuration_that_no_cell_computes_is_refused(
    changed: dict[str, Any], words: str
) -> None:
    weights = [np.zeros(shape, "f4") for shape in ((I, 3 * H), (H, 3 * H), (2, 3 * H))]
    bptt.Params.from_keras(weights, "gru", config=KERAS_CONFIG)
    with pytest.raises(ValueError, match=f"^config: {words}"):
        bptt.Params.from_keras(weights, "gru", config={**KERAS_CONFIG, **changed})


def test_what_is_no_keras_configuration_is_refused() -> None:
    weights = [np.zeros(shape, "f4") for shape in ((I, H), (H, H), (H,))]
    with pytest.raises(
        ValueError, match=r"^config: expected layer.get_config\(\), got the keys mod"
    ):
        bptt.Params.from_keras(weights, "tanh", config={"module": "keras.layers", "config": {}})
    with pytest.raises(TypeError, match=r"^config: expected layer.get_config\(\), .* got list"):
        bptt.Params.from_keras(weights, "tanh", config=[])
    with pytest.raises(ValueError, match=r"^cell: expected the name of a cell"):
        bptt.Params.from_keras(weights)


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


@each_cell
def test_the_direction_of_a_node_of_onnx_says_what_is_read(cell: str) -> None:
    both = [bptt.init_params(cell, input_size=I, hidden_size=H, rng=n) for n in range(2)]
    inputs = [params.to_onnx(cell) for params in both]
    stacked = [np.concatenate([one[name] for one in inputs]) for name in ("W", "R", "B")]
    (pair,) = read_onnx(cell, *stacked, direction="bidirectional")  # type: ignore[misc]
    for found, params in zip(pair, both, strict=True):
        assert_equal(found, params)
    for direction in ("forward", "reverse"):
        attributes = told(cell, direction=direction)
        one = list(inputs[0].values())
        assert_equal(read_onnx(cell, *one, direction=direction, attributes=attributes), both[0])
        with pytest.raises(ValueError, match=r"^w: expected shape \(1, .*direction='"):
            read_onnx(cell, *stacked, direction=direction)
    with pytest.raises(ValueError, match=r"^w: expected shape \(2, .*direction='bidirectional'"):
        read_onnx(cell, *inputs[0].values(), direction="bidirectional")
    with pytest.raises(ValueError, match=r"^direction: expected one of forward, .*'backward'"):
        read_onnx(cell, *stacked, direction="backward")
    with pytest.raises(ValueError, match=r"^reverse: expected False"):
        read_onnx(cell, *stacked, direction="bidirectional", reverse=True)


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


def told(cell: str, **changed: Any) -> dict[str, Any]:
    """The attributes of a node that computes `cell`, as onnx.helper gives them."""
    activations = {"relu": {"activations": [b"Relu"]}, "linear": {"activations": [b"Affine"]}}
    gru = {"linear_before_reset": 1} if cell == "gru" else {}
    return {"hidden_size": H, **gru, **activations.get(cell, {}), **changed}


@pytest.mark.parametrize("cell", ["linear", "relu", *CELLS])
def test_a_node_of_onnx_that_computes_the_cell_is_taken(cell: str) -> None:
    params = bptt.init_params(cell, input_size=I, hidden_size=H, rng=0)
    arrays = params.to_onnx(cell).values()
    assert_equal(bptt.Params.from_onnx(cell, *arrays, attributes=told(cell, layout=1)), params)


@pytest.mark.filterwarnings("ignore")
def test_attributes_of_a_node_are_read_as_onnx_gives_them() -> None:
    onnx = pytest.importorskip("onnx")
    names = ["X", "W", "R", "B"]
    params = bptt.init_params("relu", input_size=I, hidden_size=H, rng=0)
    arrays = params.to_onnx("relu")
    for activation, words in (("Relu", None), ("Elu", r"expected \['Relu'\].*; got \['Elu'\]")):
        node = onnx.helper.make_node("RNN", names, ["Y"], hidden_size=H, activations=[activation])
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if words is None:
            found = bptt.Params.from_onnx("relu", *arrays.values(), attributes=attributes)
            assert_equal(found, params)
        else:
            with pytest.raises(ValueError, match=words):
                bptt.Params.from_onnx("relu", *arrays.values(), attributes=attributes)


@pytest.mark.parametrize(
    ("cell", "changed", "words"),
    [
        ("lstm", {"activations": ["HardSigmoid", "Tanh", "Tanh"]}, r"activations: expected \['Sig"),
        ("lstm", {"activations": ["Sigmoid", "Tanh"]}, "activations: expected "),
        (
            "relu",
            {"activations": ["Tanh"]},
            r"activations: expected \['Relu'\], .*; got \['Tanh'\]",
        ),
        (
            "linear",
            {"activation_alpha": [0.5]},
            r"activation_alpha: expected 1\.0 for \['Affine'\]",
        ),
        ("linear", {"activation_beta": [0.5]}, r"activation_beta: expected 0\.0 for"),
        (
            "gru",
            {"activation_alpha": [0.2]},
            r"activation_alpha: expected 0\.0 for \['Sigmoid', 'T",
        ),
        ("gru", {"clip": 5.0}, "clip: expected None; got 5.0"),
        ("lstm", {"input_forget": 1}, "input_forget: expected 0; got 1"),
        ("lstm", {"hidden_size": 7}, "hidden_size: expected 5; got 7"),
        ("lstm", {"direction": b"reverse"}, "direction: expected 'forward'; .*reverse=True, .*"),
        ("lstm", {"direction": "bidirectional"}, "direction: expected 'forward'; got 'bidir"),
        ("lstm", {"peephole": 1}, "expected those of RNN, LSTM or GRU, got 'peephole'"),
    ],
)
def test_a_node_of_onnx_that_computes_something_else_is_refused(
    cell: str, changed: dict[str, Any], words: str
) -> None:
    arrays = bptt.init_params(cell, input_size=I, hidden_size=H, rng=0).to_onnx(cell).values()
    bptt.Params.from_onnx(cell, *arrays, attributes=told(cell))
    with pytest.raises(ValueError, match=f"^attributes: {words}"):
        bptt.Params.from_onnx(cell, *arrays, attributes=told(cell, **changed))


def test_what_a_node_of_onnx_leaves_out_has_the_default() -> None:
    arrays = {
        cell: bptt.init_params(cell, input_size=I, hidden_size=H, rng=0).to_onnx(cell).values()
        for cell in ("relu", "gru")
    }
    with pytest.raises(ValueError, match=r"got \['Tanh'\], the default of ONNX"):
        bptt.Params.from_onnx("relu", *arrays["relu"], attributes={"hidden_size": H})
    with pytest.raises(ValueError, match=r"^linear_before_reset: expected 1, got 0"):
        bptt.Params.from_onnx("gru", *arrays["gru"], attributes={"hidden_size": H})
    with pytest.raises(TypeError, match=r"^attributes: expected {a.name: .*, got list"):
        bptt.Params.from_onnx("relu", *arrays["relu"], attributes=[])


def test_both_directions_of_a_node_of_onnx_have_activations_of_their_own() -> None:
    params = bptt.init_params("tanh", input_size=I, hidden_size=H, rng=0)
    both = [np.concatenate([array, array]) for array in params.to_onnx("tanh").values()]
    attributes = told("tanh", direction="bidirectional", activations=["Tanh", "Relu"])
    for direction, cell, other in ((0, "tanh", "relu"), (1, "relu", "tanh")):
        options = {"attributes": attributes, "direction": direction}
        assert_equal(bptt.Params.from_onnx(cell, *both, **options), params)
        with pytest.raises(ValueError, match=r"^attributes: activations: "):
            bptt.Params.from_onnx(other, *both, **options)


def test_a_node_of_onnx_that_reads_from_the_end_is_taken_where_that_is_said() -> None:
    params = bptt.init_params("lstm", input_size=I, hidden_size=H, rng=0)
    arrays, attributes = params.to_onnx("lstm").values(), told("lstm", direction="reverse")
    options = {"attributes": attributes, "reverse": True}
    assert_equal(bptt.Params.from_onnx("lstm", *arrays, **options), params)
    with pytest.raises(ValueError, match=r"^attributes: direction: expected 'reverse'; got 'forw"):
        bptt.Params.from_onnx("lstm", *arrays, attributes=told("lstm"), reverse=True)
