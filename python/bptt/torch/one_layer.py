"""`layer`: any cell of `bptt` as a differentiable function of tensors, on sequences of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from .. import checks
from ..cells import Cell, get_cell
from ..layer_arguments import WEIGHTS, state_parts, weights_by_name
from ..sequence_options import Flags, Integers, described, read_row_map
from ..states import as_given
from .arrays import DTYPES
from .autograd import run
from .modes import traced
from .moved_rows import MovedRows
from .passes import Direction, Inputs

__all__ = ["Weights", "layer"]

Weights = Union[Mapping[str, Union[Tensor, None]], Sequence[Union[Tensor, None]]]


def layer(
    cell: str | Cell,
    params: Weights,
    x: Tensor,
    state: Any = None,
    *,
    lengths: Integers | Tensor | None = None,
    batch_sizes: Integers | Tensor | None = None,
    reset: Flags | Tensor | None = None,
    reverse: bool = False,
    batch_first: bool = False,
) -> tuple[Tensor, Any]:
    """Run a recurrent layer over sequences: `bptt.forward` on tensors, for autograd.

    Differentiable in `x`, `state` and `params`; of the built-in cells to any order, of a cell of
    one's own (`bptt.cell`) once.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}, or Cell
        ``bptt.CELLS[cell].equation``, or a cell that `bptt.cell` made.
    params : mapping or sequence of tensors
        ``w_ih`` (G*H, I), ``w_hh`` (G*H, H), ``b_ih`` and ``b_hh`` (G*H,), by these names or in
        this order; biases may be None or left out.
    x : (T, B, I) tensor of float32 or float64, on the CPU, or on a GPU (docs/cuda.md)
        (B, T, I) with `batch_first`, and packed rows (N, I) with `batch_sizes`.
    state : (B, H) tensor, or the pair (h, c) of them, optional
        The initial state; zeros if not given.
    lengths, batch_sizes, reset, reverse, batch_first
        What the sequences are: see `bptt.forward`. Lists, arrays or tensors.

    Returns
    -------
    y : (T, B, H) tensor
        The state after every step; (B, T, H) with `batch_first`, (N, H) with `batch_sizes`; zeros
        beyond the length of a sequence.
    state : (B, H) tensor, or the pair (h, c) of them
        After each sequence's own last step.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, device, shape or value.
    RuntimeError
        If tensors are on a GPU, and the backend "cuda" is not available here.

    Examples
    --------
    >>> import torch, bptt.torch
    >>> w_ih, w_hh = torch.randn(8, 3, requires_grad=True), torch.eye(8, requires_grad=True)
    >>> x = torch.randn(50, 4, 3)
    >>> y, state = bptt.torch.layer("linear", [w_ih, w_hh], x, lengths=[50, 3, 20, 0])
    >>> y.square().mean().backward()
    """
    kind = get_cell(cell)
    weights = _read_weights(kind, params)
    w_ih, w_hh = weights[0], weights[1]
    assert w_ih is not None
    assert w_hh is not None
    _expect_tensor("x", x, w_hh)
    how = described(lengths, batch_sizes, reset, reverse, batch_first)
    axes = ("N",) if batch_sizes is not None else ("B", "T") if batch_first is True else ("T", "B")
    _expect_shape("x", x, (*axes, w_ih.shape[1]), f"w_ih of shape {tuple(w_ih.shape)}")
    if not how:
        return _run_dense(kind, weights, x, state)
    dense = not described(lengths, batch_sizes, reset, reverse, False)
    if batch_first is True and dense and traced(x):
        y, found = _run_dense(kind, weights, x.transpose(0, 1), state)
        return y.transpose(0, 1), found
    rows = MovedRows(read_row_map(tuple(x.shape[:-1]), **how))
    given = None
    if state is not None:
        given = _read_state(kind, state, (rows.map.batch, w_hh.shape[1]), w_hh)
    entering = rows.gather_state(given, len(kind.states), w_hh)
    y, *last = run(Direction(kind, rows.map.offsets), Inputs(rows.gather(x), entering, weights))
    return rows.scatter(y), as_given(rows.scatter_state(tuple(last)))


def _run_dense(
    cell: Cell, weights: tuple[Tensor | None, ...], x: Tensor, state: Any
) -> tuple[Tensor, Any]:
    """Of sequences as a layer has them."""
    w_hh = weights[1]
    assert w_hh is not None
    given: tuple[Tensor | None, ...] = (None,) * len(cell.states)
    if state is not None:
        given = _read_state(cell, state, (x.shape[1], w_hh.shape[1]), w_hh)
    y, *last = run(Direction(cell), Inputs(x, given, weights))
    return y, as_given(tuple(last))


def _read_weights(cell: Cell, params: object) -> tuple[Tensor | None, ...]:
    """Those of one layer, as ``passes.WEIGHTS`` has them, checked."""
    found = weights_by_name(params, "tensor")
    w_hh = found["w_hh"]
    _expect_tensor("w_hh", w_hh, None)
    assert isinstance(w_hh, Tensor)
    _expect_shape("w_hh", w_hh, ("G*H", "H"))
    rows = cell.gates * w_hh.shape[1]
    if w_hh.shape[0] != rows:
        wanted = (rows, w_hh.shape[1])
        raise ValueError(
            f"w_hh: expected shape {wanted} for cell {cell.name!r} with hidden_size={wanted[1]}, "
            f"got {tuple(w_hh.shape)}"
        )
    why = f"cell {cell.name!r} and w_hh of shape {tuple(w_hh.shape)}"
    shapes = {"w_ih": (rows, "I"), "b_ih": (rows,), "b_hh": (rows,)}
    for name, shape in shapes.items():
        tensor = found[name]
        if tensor is not None or name == "w_ih":
            _expect_tensor(name, tensor, w_hh)
            _expect_shape(name, tensor, shape, why)
    return tuple(found[name] for name in WEIGHTS)


def _read_state(
    cell: Cell, state: object, shape: tuple[int, int], like: Tensor
) -> tuple[Tensor, ...]:
    given = state_parts(cell, state, "tensor")
    for name, part in given.items():
        _expect_tensor(name, part, like)
        _expect_shape(name, part, shape, "x and w_hh")
    return tuple(given.values())


def _expect_tensor(name: str, value: object, like: Tensor | None) -> None:
    """Raise unless `value` is a tensor that a kernel reads, of the dtype of w_hh, which is `like`.

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in DTYPES:
        raise TypeError(
            f"{name}: expected a tensor of float32 or float64, got {value.dtype}; "
            "convert it with .to(...)"
        )
    if like is not None and value.dtype is not like.dtype:
        raise TypeError(
            f"{name}: expected {like.dtype} like w_hh, got {value.dtype}; "
            "convert one of them with .to(...)"
        )
    if value.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"{name}: expected a tensor on the CPU or a GPU, got one on {value.device}"
        )
    if like is not None and value.device != like.device:
        raise ValueError(
            f"{name}: expected a tensor on {like.device} as w_hh is, got one on {value.device}"
        )
    if value.layout is not torch.strided:
        raise TypeError(f"{name}: expected a strided tensor, got layout {value.layout}")


class _Shaped(NamedTuple):
    shape: tuple[int, ...]


def _expect_shape(name: str, tensor: Any, shape: tuple[int | str, ...], why: str = "") -> None:
    checks.expect_shape(name, _Shaped(tuple(tensor.shape)), shape, why)  # type: ignore[arg-type]
