"""Weights in the layouts of other libraries: PyTorch's, Keras's and ONNX's, read and written.

Every layout holds the same numbers; they differ in the order of the gates, in which way matrices
lie, and in whether both biases are kept. None of these libraries is imported, but by `to_torch`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import checks, layer_options
from .cells import Cell, get_cell
from .checks import Array

__all__ = [
    "all_from_torch",
    "all_to_torch",
    "from_keras",
    "from_onnx",
    "from_torch",
    "onnx_directions",
    "to_keras",
    "to_onnx",
    "to_torch",
]

# Where each library has the gates of `Cell.gate_names`.
KERAS_ORDER = {"lstm": ("i", "f", "g", "o"), "gru": ("z", "r", "n")}
ONNX_ORDER = {"lstm": ("i", "o", "f", "g"), "gru": ("z", "r", "n")}

_TORCH = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


def from_torch(
    state_dict: Mapping[str, Any],
    layer: int = 0,
    *,
    reverse: bool = False,
    prefix: str = "",
    readout: str | None = None,
) -> dict[str, Array]:
    """The arrays of one layer of a ``torch.nn`` module; see `Params.from_torch`."""
    if not isinstance(state_dict, Mapping):
        got = type(state_dict).__name__
        raise TypeError(f"state_dict: expected module.state_dict(), a mapping, got {got}")
    names = _torch_names(layer, reverse, prefix, readout)
    suffix = names["w_ih"].removeprefix(f"{prefix}weight_ih")
    if f"{prefix}weight_hr{suffix}" in state_dict:
        raise ValueError(
            f"state_dict: layer {layer} has a projection (proj_size), which no cell computes"
        )
    arrays = {}
    for name, theirs in names.items():
        if theirs in state_dict:
            arrays[name] = _copy(theirs, state_dict[theirs])
        elif name.startswith("w_"):
            argument, given = ("readout", readout) if name == "w_ho" else ("prefix", prefix)
            inputs = arrays["w_hh"].shape[1] if name == "w_ho" else None
            raise ValueError(
                f"state_dict: expected {theirs!r}, got {_some(state_dict) or 'nothing'}"
                + _where_it_is(state_dict, argument, theirs.removeprefix(given or ""), inputs)
            )
    return arrays


def to_torch(
    arrays: Mapping[str, Array],
    layer: int = 0,
    *,
    reverse: bool = False,
    prefix: str = "",
    readout: str | None = None,
) -> dict[str, Any]:
    """A ``state_dict`` of one layer, of tensors; see `Params.to_torch`."""
    import torch

    names = _torch_names(layer, reverse, prefix, readout)
    present = dict(arrays)
    if "b_ih" in present or "b_hh" in present:
        present["b_ih"], present["b_hh"] = _both_biases(arrays)
    if readout is not None and "w_ho" not in present:
        raise ValueError("readout: expected None, since these parameters have no readout")
    return {
        theirs: torch.from_numpy(np.array(present[name]))
        for name, theirs in names.items()
        if name in present
    }


def all_from_torch(
    state_dict: Mapping[str, Any], *, prefix: str = "", readout: str | None = None
) -> list[list[dict[str, Array]]]:
    """The arrays of every layer, of each of its directions; see `Params.from_torch`."""
    bottom = from_torch(state_dict, prefix=prefix)  # or an error that tells what is there
    both = f"{prefix}weight_ih_l0_reverse" in state_dict
    count = next(k for k in itertools.count(1) if f"{prefix}weight_ih_l{k}" not in state_dict)
    found = [
        [
            from_torch(state_dict, k, reverse=reverse, prefix=prefix)
            for reverse in ((False, True) if both else (False,))
        ]
        for k in range(count)
    ]
    if readout is None:
        return found
    hidden = (1 + both) * bottom["w_hh"].shape[1]
    names = _torch_names(0, False, prefix, readout)
    w_ho, top = _readout_of(state_dict, names["w_ho"], readout, hidden), found[-1]
    for arrays, columns in zip(top, np.split(w_ho, len(top), axis=1), strict=True):
        arrays["w_ho"] = np.ascontiguousarray(columns)
    if names["b_o"] in state_dict:
        top[0]["b_o"] = _copy(names["b_o"], state_dict[names["b_o"]])
    return found


def _readout_of(state_dict: Mapping[str, Any], name: str, readout: str, columns: int) -> Array:
    """W_o of a linear module that reads so many features."""
    if name not in state_dict:
        raise ValueError(
            f"state_dict: expected {name!r}, got {_some(state_dict) or 'nothing'}"
            + _where_it_is(state_dict, "readout", name.removeprefix(readout), columns)
        )
    w_ho = _copy(name, state_dict[name])
    checks.expect_shape(name, w_ho, ("O", columns), "the top layer")
    return w_ho


def all_to_torch(
    layers: Sequence[Sequence[Mapping[str, Array]]], *, prefix: str = "", readout: str | None = None
) -> dict[str, Any]:
    """A ``state_dict`` of all layers; see `Params.layers_to_torch`."""
    found: dict[str, Any] = {}
    for k, directions in enumerate(layers):
        for reverse, arrays in enumerate(directions):
            found |= to_torch(arrays, k, reverse=bool(reverse), prefix=prefix)
    if readout is not None:
        top = layers[-1]
        joined = dict(top[0])
        if all("w_ho" in arrays for arrays in top):
            joined["w_ho"] = np.concatenate([arrays["w_ho"] for arrays in top], axis=1)
        last = to_torch(joined, len(layers) - 1, prefix=prefix, readout=readout)
        found |= {name: t for name, t in last.items() if name.startswith(readout)}
    return found


def _torch_names(layer: int, reverse: bool, prefix: str, readout: str | None) -> dict[str, str]:
    """The keys of a ``state_dict`` by the names of `Params`."""
    suffix = f"_l{checks.size('layer', layer, least=0)}{'_reverse' if reverse else ''}"
    names = {name: prefix + theirs + suffix for name, theirs in _TORCH.items()}
    if readout is not None:
        names |= {"w_ho": f"{readout}weight", "b_o": f"{readout}bias"}
    return names


def _where_it_is(state_dict: Mapping[str, Any], argument: str, ending: str, inputs: Any) -> str:
    """With which prefixes a ``state_dict`` has such a matrix, of `inputs` columns if known."""
    shapes = {str(key): tuple(getattr(t, "shape", ())) for key, t in state_dict.items()}
    found = [
        f"{argument}={key.removesuffix(ending)!r}"
        for key, shape in shapes.items()
        if key.endswith(ending) and (inputs is None or shape[1:] == (inputs,))
    ]
    return f"; there is one with {_some(found, ' or ')}" if found else ""


def _some(names: Iterable[Any], joint: str = ", ") -> str:
    """The first few of them."""
    first = [str(name) for name in itertools.islice(names, 9)]
    return joint.join(first[:8]) + (", ..." if len(first) == 9 else "")


def from_keras(
    weights: Any,
    cell: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    reverse: bool = False,
) -> dict[str, Array]:
    """The arrays of a Keras layer or of its weights; see `Params.from_keras`."""
    if hasattr(weights, "get_weights") and hasattr(weights, "get_config"):
        if config is not None:
            raise ValueError("config: expected None beside a layer, which has its own")
        weights, cell, config = layer_options.keras_layer(weights, cell)
    if cell is None:
        raise ValueError("cell: expected the name of a cell beside weights alone, got None")
    kind = get_cell(cell)
    if not isinstance(weights, Sequence) or len(weights) not in (2, 3):
        got = len(weights) if isinstance(weights, Sequence) else type(weights).__name__
        raise ValueError(
            "weights: expected [kernel, recurrent_kernel] or [kernel, recurrent_kernel, bias], as "
            f"layer.get_weights() gives them, got {got}"
            + (" arrays; peepholes are not computed" if isinstance(got, int) and got > 3 else "")
        )
    kernel, recurrent = (_copy(f"weights[{i}]", weights[i]) for i in range(2))
    checks.expect_shape("weights[0]", kernel, ("I", "G*H"))
    hidden = recurrent.shape[0] if recurrent.ndim == 2 else 0
    columns = kind.gates * hidden
    checks.expect_shape("weights[1]", recurrent, (hidden, columns), f"cell {cell!r}")
    checks.expect_shape("weights[0]", kernel, ("I", columns), "weights[1]")
    if config is not None:
        has_bias = len(weights) == 3
        layer_options.check_keras(config, kind.name, hidden, has_bias=has_bias, reverse=reverse)
    order = KERAS_ORDER.get(cell, kind.gate_names)
    arrays = {
        "w_ih": _reordered(kernel.T, order, kind),
        "w_hh": _reordered(recurrent.T, order, kind),
    }
    if len(weights) == 3:
        bias = _copy("weights[2]", weights[2])
        if cell == "gru" and bias.ndim == 1:
            raise ValueError(
                "weights[2]: a bias of shape (3*H,) is that of a GRU with reset_after=False, which "
                "applies the reset gate before the recurrent product; bptt computes "
                "reset_after=True, whose bias has shape (2, 3*H)"
            )
        shape = (2, columns) if cell == "gru" else (columns,)
        checks.expect_shape("weights[2]", bias, shape, "weights[1]")
        rows = bias if bias.ndim == 2 else bias[None]
        for name, row in zip(("b_ih", "b_hh"), rows, strict=False):
            arrays[name] = _reordered(row, order, kind)
    return arrays


def to_keras(arrays: Mapping[str, Array], cell: str) -> list[Array]:
    """What ``layer.set_weights`` takes; see `Params.to_keras`."""
    kind = get_cell(cell)
    order = KERAS_ORDER.get(cell, kind.gate_names)
    weights = [_put(arrays[name], order, kind).T.copy() for name in ("w_ih", "w_hh")]
    if "b_ih" in arrays or "b_hh" in arrays:
        b_ih, b_hh = _both_biases(arrays)
        if cell == "gru":
            weights.append(np.stack([_put(b, order, kind) for b in (b_ih, b_hh)]))
        else:
            weights.append(_put(b_ih + b_hh, order, kind))
    return weights


def from_onnx(
    cell: str,
    w: Any,
    r: Any,
    b: Any = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    peepholes: Any = None,
    linear_before_reset: int = 0,
    direction: int = 0,
    reverse: bool = False,
) -> dict[str, Array]:
    """The arrays of the inputs W, R and B of an ONNX node; see `Params.from_onnx`."""
    kind = get_cell(cell)
    if peepholes is not None and np.any(np.asarray(peepholes)):
        raise ValueError("peepholes: expected none, or zeros: peepholes are not computed")
    if isinstance(attributes, Mapping):
        linear_before_reset = attributes.get("linear_before_reset", linear_before_reset)
    if cell == "gru" and not linear_before_reset:
        raise ValueError(
            "linear_before_reset: expected 1, got 0, which applies the reset gate before the "
            "recurrent product"
        )
    arrays = {"w": _copy("w", w), "r": _copy("r", r)}
    checks.expect_shape("r", arrays["r"], ("directions", "G*H", "H"))
    directions, rows, hidden = arrays["r"].shape
    checks.expect_shape(
        "r", arrays["r"], (directions, kind.gates * hidden, hidden), f"cell {cell!r}"
    )
    checks.expect_shape("w", arrays["w"], (directions, rows, "I"), "r")
    if b is not None:
        arrays["b"] = _copy("b", b)
        checks.expect_shape("b", arrays["b"], (directions, 2 * rows), "r")
    if not 0 <= checks.size("direction", direction, least=0) < directions:
        raise ValueError(f"direction: expected less than {directions}, got {direction}")
    if attributes is not None:
        layer_options.check_onnx(
            attributes, kind.name, hidden, directions, direction, reverse=reverse
        )
    one = {name: array[direction] for name, array in arrays.items()}
    order = ONNX_ORDER.get(cell, kind.gate_names)
    found = {"w_ih": one["w"], "w_hh": one["r"]}
    if "b" in one:
        found.update(b_ih=one["b"][:rows], b_hh=one["b"][rows:])
    return {name: _reordered(array, order, kind) for name, array in found.items()}


def onnx_directions(direction: int | str, w: Any, *, reverse: bool) -> tuple[list[int], bool]:
    """Which directions of a node are read, and whether it is one that reads from the end."""
    if not isinstance(direction, str):
        return [direction], reverse
    checks.choice("direction", direction, ("forward", "reverse", "bidirectional"))
    if reverse:
        raise ValueError(f"reverse: expected False with direction={direction!r}, got True")
    wanted = 2 if direction == "bidirectional" else 1
    shape = tuple(getattr(w, "shape", ()))
    if len(shape) == 3 and shape[0] != wanted:
        raise ValueError(
            f"w: expected shape ({wanted}, G*H, I) to match direction={direction!r}, got {shape}"
        )
    return list(range(wanted)), direction == "reverse"


def to_onnx(arrays: Mapping[str, Array], cell: str) -> dict[str, Array]:
    """The inputs W, R and B of one direction; see `Params.to_onnx`."""
    kind = get_cell(cell)
    order = ONNX_ORDER.get(cell, kind.gate_names)
    w, r = (_put(arrays[name], order, kind)[None] for name in ("w_ih", "w_hh"))
    bias = np.concatenate([_put(b, order, kind) for b in _both_biases(arrays)])
    return {"W": w, "R": r, "B": bias[None]}


def _both_biases(arrays: Mapping[str, Array]) -> tuple[Array, Array]:
    """b_ih and b_hh, zeros for one that is absent."""
    zeros = np.zeros(len(arrays["w_hh"]), arrays["w_hh"].dtype)
    return arrays.get("b_ih", zeros), arrays.get("b_hh", zeros)


def _copy(name: str, value: Any) -> Array:
    """An array of floats of its own; a tensor that needs its gradient is read all the same."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.array(checks.as_float_array(name, value))


def _reordered(array: Array, order: tuple[str, ...], cell: Cell) -> Array:
    """Rows by gates in `order`, in the order of the cell."""
    blocks = np.split(array, cell.gates)
    return np.concatenate([blocks[order.index(gate)] for gate in cell.gate_names])


def _put(array: Array, order: tuple[str, ...], cell: Cell) -> Array:
    """The other way round."""
    blocks = np.split(array, cell.gates)
    return np.concatenate([blocks[cell.gate_names.index(gate)] for gate in order])
