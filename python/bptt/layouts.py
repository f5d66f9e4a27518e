"""Weights in the layouts of other libraries: PyTorch's, Keras's and ONNX's, read and written.

Every layout holds the same numbers; they differ in the order of the gates, in which way matrices
lie, and in whether both biases are kept. None of these libraries is imported, but by `to_torch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import checks
from .cells import Cell, get_cell
from .checks import Array

__all__ = ["from_keras", "from_onnx", "from_torch", "to_keras", "to_onnx", "to_torch"]

# Where each library has the gates of `Cell.gate_names`.
KERAS_ORDER = {"lstm": ("i", "f", "g", "o"), "gru": ("z", "r", "n")}
ONNX_ORDER = {"lstm": ("i", "o", "f", "g"), "gru": ("z", "r", "n")}

_TORCH = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


def from_torch(
    state_dict: Mapping[str, Any], layer: int = 0, *, reverse: bool = False
) -> dict[str, Array]:
    """The arrays of one layer of a ``torch.nn`` module; see `Params.from_torch`."""
    suffix = f"_l{checks.size('layer', layer, least=0)}{'_reverse' if reverse else ''}"
    if not isinstance(state_dict, Mapping):
        got = type(state_dict).__name__
        raise TypeError(f"state_dict: expected module.state_dict(), a mapping, got {got}")
    if f"weight_hr{suffix}" in state_dict:
        raise ValueError(
            f"state_dict: layer {layer} has a projection (proj_size), which no cell computes"
        )
    arrays = {}
    for name, theirs in _TORCH.items():
        tensor = state_dict.get(theirs + suffix)
        if tensor is None and name in ("w_ih", "w_hh"):
            keys = ", ".join(map(str, list(state_dict)[:8])) or "nothing"
            raise ValueError(f"state_dict: expected {theirs + suffix!r}, got {keys}")
        if tensor is not None:
            arrays[name] = _copy(theirs + suffix, tensor)
    return arrays


def to_torch(
    arrays: Mapping[str, Array], layer: int = 0, *, reverse: bool = False
) -> dict[str, Any]:
    """A ``state_dict`` of one layer, of tensors; see `Params.to_torch`."""
    import torch

    suffix = f"_l{checks.size('layer', layer, least=0)}{'_reverse' if reverse else ''}"
    present = dict(arrays)
    if "b_ih" in present or "b_hh" in present:
        present["b_ih"], present["b_hh"] = _both_biases(arrays)
    return {
        theirs + suffix: torch.from_numpy(np.array(present[name]))
        for name, theirs in _TORCH.items()
        if name in present
    }


def from_keras(weights: Sequence[Any], cell: str) -> dict[str, Array]:
    """The arrays of ``layer.get_weights()``; see `Params.from_keras`."""
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
    peepholes: Any = None,
    linear_before_reset: int = 0,
    direction: int = 0,
) -> dict[str, Array]:
    """The arrays of the inputs W, R and B of an ONNX node; see `Params.from_onnx`."""
    kind = get_cell(cell)
    if peepholes is not None and np.any(np.asarray(peepholes)):
        raise ValueError("peepholes: expected none, or zeros: peepholes are not computed")
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
    one = {name: array[direction] for name, array in arrays.items()}
    order = ONNX_ORDER.get(cell, kind.gate_names)
    found = {"w_ih": one["w"], "w_hh": one["r"]}
    if "b" in one:
        found.update(b_ih=one["b"][:rows], b_hh=one["b"][rows:])
    return {name: _reordered(array, order, kind) for name, array in found.items()}


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
