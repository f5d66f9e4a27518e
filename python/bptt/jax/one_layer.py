"""`layer`: a built-in cell of `bptt` as a function of JAX's arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import checks
from ..cells import CELLS, Cell, get_cell
from ..layer_arguments import state_parts, weights_by_name
from ..params import Params
from ..sequence_options import read_lengths
from ..states import as_given
from . import batches, derivatives  # noqa: F401  the rules of the primitives
from .calls import Call
from .handlers import expect_handlers
from .primitives import layer_p
from .shards import bind

__all__ = ["Weights", "layer"]

Weights = Union[Params, Mapping[str, Any], Sequence[Any]]


def layer(
    cell: str | Cell,
    params: Weights,
    x: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    reset: Any = None,
    reverse: bool = False,
    batch_first: bool = False,
) -> tuple[Array, Any]:
    """Run a recurrent layer over sequences: `bptt.forward` on JAX's arrays, on the CPU.

    A function like any other of JAX: under jit, vmap (also over `params`), grad, jvp and any nest
    of them, remat, scan and jax.export. The pass and its gradient are the compiled kernels; forward
    mode and derivatives of gradients are the equations in JAX's own operations.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}
        ``bptt.CELLS[cell].equation``.
    params : mapping or sequence of arrays, or bptt.Params
        ``w_ih`` (G*H, I), ``w_hh`` (G*H, H), ``b_ih`` and ``b_hh`` (G*H,), by these names or in
        this order; biases may be None or left out. Of `bptt.Params` without a readout.
    x : (T, B, I) array of float32 or float64
        (B, T, I) with `batch_first`.
    state : (B, H) array, or the pair (h, c) of them, optional
        The initial state; zeros if not given.
    lengths : (B,) integers, optional
        Steps of each sequence, from 0 to T; what lies beyond them is not read. They may be values
        that jit does not know, so one compilation serves all lengths.
    reset : (T, B) bools, optional
        Steps at which a sequence begins anew: the state before them is zero. (B, T) with
        `batch_first`.
    reverse : bool
        From each sequence's last step to its first.
    batch_first : bool

    Returns
    -------
    y : (T, B, H) array
        The state after every step; zeros beyond the length of a sequence. (B, T, H) with
        `batch_first`.
    state : (B, H) array, or the pair (h, c) of them
        After each sequence's own last step.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value. Lengths that only the compiled
        program knows are checked when it runs, which raises JAX's own error.
    RuntimeError
        If this installation was built without handlers for JAX; see ``bptt.info()``.
    NotImplementedError
        Where it is compiled for another platform than the CPU; or of a cell of one's own.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, bptt.jax
    >>> params = {"w_ih": jnp.ones((8, 3)), "w_hh": jnp.eye(8)}
    >>> x = jnp.ones((50, 4, 3))
    >>> loss = lambda params: bptt.jax.layer("linear", params, x)[0].mean()
    >>> jax.grad(loss)(params)["w_hh"].shape
    (8, 8)
    """
    expect_handlers()
    kind = _read_cell(cell)
    weights = _read_weights(kind, params)
    like = weights["w_hh"]
    given = _as_array("x", x, like)
    turned, batch_major = (
        checks.boolean("reverse", reverse),
        checks.boolean("batch_first", batch_first),
    )
    axes = ("B", "T") if batch_major else ("T", "B")
    inputs = weights["w_ih"].shape[1]
    _expect_shape("x", given, (*axes, inputs), f"w_ih of shape {weights['w_ih'].shape}")
    shape = given.shape[:2]
    found: dict[str, Any] = {"x": given.swapaxes(0, 1) if batch_major else given}
    steps, batch = found["x"].shape[:2]
    found |= _read_state(kind, state, (batch, like.shape[1]), like) | weights
    if lengths is not None:
        found["lengths"] = _read_lengths(lengths, steps, shape, batch)
    if reset is not None:
        flags = _read_reset(reset, shape)
        found["reset"] = flags.swapaxes(0, 1) if batch_major else flags
    call = Call(kind.name, tuple(found), turned)
    y, *last = bind(layer_p, *found.values(), call=call, save=False)
    return y.swapaxes(0, 1) if batch_major else y, as_given(tuple(last))


def _read_cell(cell: object) -> Cell:
    kind = get_cell(cell)
    if kind.step is not None or kind.name not in CELLS:
        raise NotImplementedError(
            f"cell {kind.name!r}: bptt.jax has the built-in cells, those of one's own are computed "
            "by the backends 'numba' and 'numpy'"
        )
    return kind


def _read_weights(cell: Cell, params: object) -> dict[str, Any]:
    """Those that are there, in the order of `WEIGHTS`, checked."""
    params = params.arrays() if isinstance(params, Params) else params
    given = weights_by_name(params, "array")
    if given["w_hh"] is None:
        raise ValueError("params: expected w_ih and w_hh, got no w_hh")
    w_hh = _as_array("w_hh", given["w_hh"], None)
    _expect_shape("w_hh", w_hh, ("G*H", "H"))
    hidden = w_hh.shape[1]
    rows = cell.gates * hidden
    why = f"cell {cell.name!r} and w_hh of shape {w_hh.shape}"
    shapes = {"w_ih": (rows, "I"), "w_hh": (rows, hidden), "b_ih": (rows,), "b_hh": (rows,)}
    found = {}
    for name, shape in shapes.items():
        if given[name] is not None or name == "w_ih":
            array = w_hh if name == "w_hh" else _as_array(name, given[name], w_hh)
            _expect_shape(name, array, shape, why)
            found[name] = array
    return found


def _read_state(cell: Cell, state: object, shape: tuple[Any, int], like: Any) -> dict[str, Any]:
    if state is None:
        return {name: jnp.zeros(shape, like.dtype) for name in cell.states}
    found = {}
    parts = state_parts(cell, state, "array").items()
    for place, (name, part) in zip(cell.states, parts, strict=True):
        found[place] = _as_array(name, part, like)
        _expect_shape(name, found[place], shape, "x and w_hh")
    return found


def _read_lengths(lengths: Any, steps: Any, shape: tuple[Any, ...], batch: Any) -> Any:
    """(B,) int32. Values that are known are checked now."""
    if isinstance(lengths, jax.core.Tracer):
        if not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise TypeError(f"lengths: expected integers, got dtype {lengths.dtype}")
        _expect_shape("lengths", lengths, (batch,), f"x, which begins with {shape}")
        own, most = jnp.iinfo(lengths.dtype), np.iinfo(np.int32).max
        if own.max > most:  # what does not fit stays invalid
            lengths = jnp.clip(lengths, max(own.min, -1), most)
        return lengths.astype(jnp.int32)
    known = np.asarray(lengths) if isinstance(lengths, Array) else lengths
    return jnp.asarray(read_lengths(known, steps, shape, batch), jnp.int32)


def _read_reset(reset: Any, shape: tuple[Any, ...]) -> Any:
    flags = jnp.asarray(reset)
    if flags.dtype != bool:
        raise TypeError(f"reset: expected an array of bools, got dtype {flags.dtype}")
    _expect_shape("reset", flags, shape, "x")
    return flags


def _as_array(name: str, value: Any, like: Any) -> Any:
    """An array of JAX that a kernel reads, of the dtype of w_hh, which is `like`.

    Raises
    ------
    TypeError
    """
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    if value.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {value.dtype}")
    if like is not None and value.dtype != like.dtype:
        raise TypeError(
            f"{name}: expected {like.dtype} like w_hh, got {value.dtype}; "
            "convert one of them with .astype(...)"
        )
    if value.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise TypeError(
            f"{name}: JAX takes float64 only after jax.config.update('jax_enable_x64', True)"
        )
    return jnp.asarray(value)


class _Shaped(NamedTuple):
    shape: tuple[Any, ...]


def _expect_shape(name: str, array: Any, shape: tuple[Any, ...], why: str = "") -> None:
    checks.expect_shape(name, _Shaped(tuple(array.shape)), shape, why)  # type: ignore[arg-type]
