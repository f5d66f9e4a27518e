"""What a layer of Keras or a node of ONNX says of itself, held against what a cell computes.

Weights alone do not tell their activations, and with other ones they compute something else. What
differs is refused by name; what only says how the data lie (`layout`), what the layer returns
(`return_sequences`) or how it is trained (`dropout`) is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_keras", "check_onnx", "keras_layer"]

_KERAS_CELLS = {"SimpleRNN": ("tanh", "relu", "linear"), "LSTM": ("lstm",), "GRU": ("gru",)}
# activation and recurrent_activation of each cell.
_KERAS_ACTIVATIONS = {
    "linear": ("linear", None),
    "tanh": ("tanh", None),
    "relu": ("relu", None),
    "lstm": ("tanh", "sigmoid"),
    "gru": ("tanh", "sigmoid"),
}
_ONNX_ACTIVATIONS = {
    "linear": ["Affine"],
    "tanh": ["Tanh"],
    "relu": ["Relu"],
    "lstm": ["Sigmoid", "Tanh", "Tanh"],
    "gru": ["Sigmoid", "Tanh"],
}
_ONNX_ATTRIBUTES = (
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
    "layout",
    "linear_before_reset",
    "output_sequence",
)

_FROM_ITS_END = "; with reverse=True, and x reversed in time, the cell computes the same"


def keras_layer(layer: Any, cell: str | None) -> tuple[list[Any], str, dict[str, Any]]:
    """Weights, cell and configuration of a Keras layer; `cell` if it is one that the layer may be.

    Raises
    ------
    ValueError
        If the layer is of another kind, or not of `cell`.
    """
    names = [base.__name__ for base in type(layer).__mro__]
    kind = next((name for name in names if name in _KERAS_CELLS), None)
    if kind is None:
        hint = "; give its forward_layer, or its backward_layer with reverse=True"
        raise ValueError(
            f"weights: expected a SimpleRNN, LSTM or GRU, or its get_weights(), got {names[0]}"
            + (hint if "Bidirectional" in names else "")
        )
    config, cells = layer.get_config(), _KERAS_CELLS[kind]
    if cell is None:
        activation = _keras_activation(config.get("activation"))
        cell = activation if activation in cells else cells[0]
    elif cell not in cells:
        raise ValueError(f"cell: expected one of {', '.join(cells)} for a {kind}, got {cell!r}")
    return layer.get_weights(), cell, config


def check_keras(config: Any, cell: str, hidden: int, *, has_bias: bool, reverse: bool) -> None:
    """Raise ValueError where ``layer.get_config()`` is not what `cell` computes."""
    if not isinstance(config, Mapping):
        got = type(config).__name__
        raise TypeError(f"config: expected layer.get_config(), a dict, got {got}")
    if cell not in _KERAS_ACTIVATIONS:
        raise ValueError(f"config: cell {cell!r} is none that Keras has")
    activation, recurrent_activation = _KERAS_ACTIVATIONS[cell]
    wanted = {
        "units": (hidden, " by the shapes of the weights"),
        "activation": (activation, f", which cell {cell!r} computes"),
        "recurrent_activation": (recurrent_activation, f", which cell {cell!r} computes"),
        "use_bias": (has_bias, " by the number of arrays"),
        "go_backwards": (reverse, "" if reverse else _FROM_ITS_END),
    }
    if cell == "gru":
        wanted["reset_after"] = (True, ": the reset gate acts after the recurrent product")
    if not wanted.keys() & config.keys():
        raise ValueError(
            f"config: expected layer.get_config(), got the keys {', '.join(map(str, config))}"
        )
    for name, (value, why) in wanted.items():
        if name not in config or value is None:
            continue
        got = config[name]
        if (_keras_activation(got) if name.endswith("activation") else got) != value:
            raise ValueError(f"config: {name}: expected {value!r}{why}; got {got!r}")


def _keras_activation(name: Any) -> Any:
    return "linear" if name is None else name


def check_onnx(
    attributes: Any, cell: str, hidden: int, directions: int, direction: int, *, reverse: bool
) -> None:
    """Raise ValueError where a node with these attributes is not what `cell` computes.

    `linear_before_reset` is left to the caller.
    """
    if not isinstance(attributes, Mapping):
        raise TypeError(
            "attributes: expected {a.name: onnx.helper.get_attribute_value(a) for a in "
            f"node.attribute}}, a dict, got {type(attributes).__name__}"
        )
    if cell not in _ONNX_ACTIVATIONS:
        raise ValueError(f"attributes: cell {cell!r} is none that ONNX has")
    told = {name: _onnx_value(value) for name, value in attributes.items()}
    unknown = sorted(told.keys() - set(_ONNX_ATTRIBUTES))
    if unknown:
        raise ValueError(f"attributes: expected those of RNN, LSTM or GRU, got {unknown[0]!r}")
    _check_onnx_activations(told, cell, directions, direction)
    one_way = "reverse" if reverse else "forward"
    wanted = {
        "clip": None,
        "direction": "bidirectional" if directions == 2 else one_way,
        "hidden_size": hidden,
        "input_forget": 0,
    }
    told.setdefault("direction", "forward")
    for name, value in wanted.items():
        if told.get(name, value) != value:
            hint = _FROM_ITS_END if (value, told[name]) == ("forward", "reverse") else ""
            raise ValueError(f"attributes: {name}: expected {value!r}{hint}; got {told[name]!r}")


def _check_onnx_activations(
    told: Mapping[str, Any], cell: str, directions: int, direction: int
) -> None:
    """Those of one direction, of the functions of all; the case of letters is free."""
    wanted = _ONNX_ACTIVATIONS[cell]
    count = len(wanted)
    default = (["Tanh"] if count == 1 else wanted) * directions
    got = told.get("activations", default)
    mine = [str(name).lower() for name in got[direction * count : (direction + 1) * count]]
    if len(got) != len(default) or mine != [name.lower() for name in wanted]:
        source = "" if "activations" in told else ", the default of ONNX"
        raise ValueError(
            f"attributes: activations: expected {wanted * directions}, which cell {cell!r} "
            f"computes; got {got}{source}"
        )
    # Affine(x) = alpha x + beta. The other functions take neither.
    for name, value in {
        "activation_alpha": float(cell == "linear"),
        "activation_beta": 0.0,
    }.items():
        if any(number != value for number in told.get(name, ())):
            raise ValueError(f"attributes: {name}: expected {value} for {wanted}; got {told[name]}")


def _onnx_value(value: Any) -> Any:
    """Strings as such: ``onnx.helper.get_attribute_value`` gives them as bytes."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (list, tuple)):
        return [_onnx_value(each) for each in value]
    return value
