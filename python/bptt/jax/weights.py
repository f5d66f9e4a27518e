"""Weights from and to the recurrent cells of flax and equinox, as arrays of `bptt.jax.layer`.

Functions of JAX's arrays, so gradients pass through them. What other cells have as one bias is one
here, too; on the way back the two are added where the other cell adds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..cells import get_cell

__all__ = ["from_equinox", "from_flax", "from_nnx", "to_equinox", "to_flax", "to_nnx"]

Params = dict[str, Any]

# The Dense layers of a cell of flax.linen, gate by gate, by their last letters; "" of SimpleCell.
_GATES = {"lstm": "ifgo", "gru": "rzn", "tanh": ("",)}


# --- flax.linen ---------------------------------------------------------------------------------


def from_flax(params: Mapping[str, Any]) -> Params:
    """Weights of an ``LSTMCell``, ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell`` of
    flax.linen.

    Parameters
    ----------
    params : mapping
        ``variables["params"]`` of the cell; of an ``nn.RNN`` that holds it,
        ``variables["params"]["cell"]``. Weights do not tell activations: these have to be flax's
        own, tanh and the sigmoid; of a ``SimpleCell`` that of the cell which they are used with.

    Returns
    -------
    dict of str to array
        As `bptt.jax.layer` takes it.

    Raises
    ------
    ValueError
        If these are no weights of such a cell.
    """
    gates = next((g for g in _GATES.values() if {"i" + k for k in g} <= set(params)), None)
    if gates is None or not {"h" + k for k in gates} <= set(params):
        raise ValueError(
            "params: expected those of an LSTMCell, GRUCell or SimpleCell of flax.linen, got names "
            f"{', '.join(sorted(params))}"
        )
    found: Params = {}
    for side, weight, bias in (("i", "w_ih", "b_ih"), ("h", "w_hh", "b_hh")):
        dense = [params[side + gate] for gate in gates]
        found[weight] = jnp.concatenate([jnp.asarray(d["kernel"]).T for d in dense])
        if any("bias" in d for d in dense):
            rows = [d.get("bias", jnp.zeros_like(d["kernel"][0])) for d in dense]
            found[bias] = jnp.concatenate(rows)
    return found


def to_flax(params: Mapping[str, Any], cell: str) -> dict[str, Any]:
    """The other way round: ``params`` of an ``LSTMCell``, a ``GRUCell``, or for the other cells a
    ``SimpleCell`` with their activation, with biases wherever these have them."""
    kind = get_cell(cell)
    names = _GATES.get(kind.name, _GATES["tanh"])
    hidden = params["w_hh"].shape[1]
    of_x, of_h = _biases(params)
    sums = of_x + of_h
    # Where flax has the bias of a gate: of an LSTM with h, of others with x, of a GRU's n both.
    biases = (
        {"i" + g: sums for g in names} if kind.name != "lstm" else {"h" + g: sums for g in names}
    )
    if kind.name == "gru":
        biases |= {"in": of_x, "hn": of_h}
    found: dict[str, Any] = {}
    for side, weight in (("i", "w_ih"), ("h", "w_hh")):
        for k, gate in enumerate(names):
            rows = slice(k * hidden, (k + 1) * hidden)
            dense = {"kernel": jnp.asarray(params[weight])[rows].T}
            if side + gate in biases:
                dense["bias"] = biases[side + gate][rows]
            found[side + gate] = dense
    return found


# --- flax.nnx -----------------------------------------------------------------------------------


def from_nnx(cell: Any) -> Params:
    """Weights of an ``LSTMCell``, ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell`` of flax.nnx.

    Raises
    ------
    ValueError
        If it is another cell, or has other activations than tanh and the sigmoid (a ``SimpleCell``
        may have tanh, relu or the identity), or a residual connection.
    """
    _expect_activations(cell)
    if not hasattr(cell, "dense_i"):
        return from_flax({name.rstrip("_"): _linear(getattr(cell, name)) for name in _OF_NNX})
    found: Params = {}
    for side, weight, bias in (("i", "w_ih", "b_ih"), ("h", "w_hh", "b_hh")):
        dense = _linear(getattr(cell, "dense_" + side))
        found[weight] = dense["kernel"].T
        if "bias" in dense:
            found[bias] = dense["bias"]
    return found


def to_nnx(params: Mapping[str, Any], cell: Any) -> None:
    """Write the weights into such a cell, of the same sizes.

    Raises
    ------
    ValueError
        As `from_nnx`; or if it is a ``GRUCell`` and ``b_hh`` has anything but zeros at n, for which
        that has no bias.
    """
    gates = from_nnx(cell)["w_hh"].shape[0] // params["w_hh"].shape[1]
    if not hasattr(cell, "dense_i"):
        for name, dense in to_flax(params, "lstm").items():
            for kind, value in dense.items():
                _write(getattr(getattr(cell, "if_" if name == "if" else name), kind), value)
        return
    of_x, of_h = _biases(params)
    if gates == 3:
        n = of_h[2 * params["w_hh"].shape[1] :]
        if not isinstance(n, jax.core.Tracer) and np.any(n):
            raise ValueError("b_hh: expected zeros at n, where a GRUCell of flax.nnx has no bias")
    _write(cell.dense_i.kernel, jnp.asarray(params["w_ih"]).T)
    _write(cell.dense_h.kernel, jnp.asarray(params["w_hh"]).T)
    _write((cell.dense_h if gates == 4 else cell.dense_i).bias, of_x + of_h)


_OF_NNX = ("ii", "if_", "ig", "io", "hi", "hf", "hg", "ho")


def _linear(module: Any) -> dict[str, Any]:
    found = {"kernel": jnp.asarray(module.kernel[...])}
    if getattr(module, "bias", None) is not None:
        found["bias"] = jnp.asarray(module.bias[...])
    return found


def _write(variable: Any, value: Any) -> None:
    if variable.shape != value.shape:
        raise ValueError(f"params: expected an array {variable.shape}, got {value.shape}")
    variable[...] = value


def _expect_activations(cell: Any) -> None:
    if not hasattr(cell, "dense_i") and not all(hasattr(cell, name) for name in _OF_NNX):
        raise ValueError(
            "cell: expected an LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell of flax.nnx, got "
            f"{type(cell).__name__}"
        )
    gated = hasattr(cell, "gate_fn")
    allowed = (jnp.tanh,) if gated else (jnp.tanh, jax.nn.relu, lambda x: x)
    if not any(_computes(cell.activation_fn, f) for f in allowed):
        raise ValueError("cell: its activation_fn is none that a cell of bptt has")
    if gated and not _computes(cell.gate_fn, jax.nn.sigmoid):
        raise ValueError("cell: expected the sigmoid as gate_fn")
    if getattr(cell, "residual", False):
        raise ValueError("cell: expected one without a residual connection")


def _computes(function: Callable[[Any], Any], known: Callable[[Any], Any]) -> bool:
    x = jnp.array([-3.0, -0.7, 0.0, 0.4, 5.0], jnp.float32)
    return bool(jnp.allclose(function(x), known(x), atol=1e-6))


# --- equinox ------------------------------------------------------------------------------------


def from_equinox(cell: Any) -> Params:
    """Weights of an ``equinox.nn.LSTMCell`` or ``GRUCell``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    _expect_equinox(cell)
    found = {"w_ih": cell.weight_ih, "w_hh": cell.weight_hh}
    if cell.bias is not None:
        found["b_ih"] = cell.bias
    if getattr(cell, "bias_n", None) is not None:
        found["b_hh"] = jnp.concatenate(
            [jnp.zeros(2 * cell.hidden_size, cell.bias_n.dtype), cell.bias_n]
        )
    return found


def to_equinox(params: Mapping[str, Any], cell: Any) -> Any:
    """A cell like `cell`, of the same sizes, with these weights.

    Raises
    ------
    ValueError
        If `cell` is neither an ``equinox.nn.LSTMCell`` nor a ``GRUCell``, or has other sizes.
    """
    import equinox

    _expect_equinox(cell)
    found = {"weight_ih": jnp.asarray(params["w_ih"]), "weight_hh": jnp.asarray(params["w_hh"])}
    of_x, of_h = _biases(params)
    if cell.bias is not None:
        found["bias"] = of_x + of_h
        if getattr(cell, "bias_n", None) is not None:
            first = 2 * cell.hidden_size
            found["bias"] = jnp.concatenate([found["bias"][:first], of_x[first:]])
            found["bias_n"] = of_h[first:]
    for name, value in found.items():
        if getattr(cell, name).shape != value.shape:
            raise ValueError(
                f"params: expected {name} {getattr(cell, name).shape}, got {value.shape}"
            )
    return equinox.tree_at(lambda c: [getattr(c, n) for n in found], cell, [*found.values()])


def _expect_equinox(cell: Any) -> None:
    if not all(hasattr(cell, name) for name in ("weight_ih", "weight_hh", "bias", "hidden_size")):
        raise ValueError(
            f"cell: expected an LSTMCell or GRUCell of equinox.nn, got {type(cell).__name__}"
        )


def _biases(params: Mapping[str, Any]) -> tuple[Any, Any]:
    """Both; zeros of one that is not there."""
    w_hh = params["w_hh"]
    none = jnp.zeros(w_hh.shape[0], w_hh.dtype)
    given = (params.get(name) for name in ("b_ih", "b_hh"))
    of_x, of_h = (none if bias is None else jnp.asarray(bias) for bias in given)
    return of_x, of_h
