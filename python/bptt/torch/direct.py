"""The compiled kernels called on tensors as they are, in one call, without arrays in between.

The compiled module reads tensors by the functions that DLPack has for C, checks them and makes the
results. Tensors that do not lie as their axes say, or are lazily negated, are copied. What it does
not take then (another dtype or shape, an older PyTorch, a cell or a backend of another kind) goes
through arrays, see `passes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..cells import Cell
from ..checks import Array
from ..compiled import core
from ..subnormals import get_flush_subnormals
from ..threads import get_num_threads
from .modes import PLAIN

__all__ = ["backward", "forward", "num_threads"]

Given = Sequence[Tensor | None]


def _library() -> Any:
    """PyTorch's tensors as the compiled module reads them, or None."""
    exchange = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if core is None or exchange is None:
        return None
    try:
        return core.Tensors(exchange, PLAIN)
    except (TypeError, ValueError):  # another version of DLPack
        return None


_tensors = _library()


def forward(
    cell: Cell, flat: Given, offsets: Array | None, layered: bool, gates: bool
) -> tuple[Tensor, ...] | None:
    """Each part of the state after every step and after the last, and, if they are wanted, the
    gates; None, and nothing has happened, if these are no tensors that the kernels take.

    `layered`: states are (1, B, H), not (B, H).
    """
    if _tensors is None or cell.name not in core.CELLS:
        return None
    how, flat = (num_threads(), get_flush_subnormals(), cell.name), tuple(flat)
    found: tuple[Tensor, ...] | None = _tensors.forward(*how, flat, offsets, layered, gates)
    if found is None and (dense := _dense(flat)) is not None:
        found = _tensors.forward(*how, dense, offsets, layered, gates)
    return found


def backward(
    cell: Cell,
    flat: Given,
    offsets: Array | None,
    layered: bool,
    kept: Sequence[Tensor],
    incoming: Given,
    needed: Sequence[bool],
    apart: bool = False,
) -> tuple[Tensor | None, ...] | None:
    """The gradients of `flat` that are needed, None for the others; or None, as above.

    `kept` is what `forward` found, without the last state. With `apart` gradients of weights are
    (B, ...), of each row of the batch.
    """
    if _tensors is None or cell.name not in core.CELLS:
        return None
    how = (num_threads(), get_flush_subnormals(), cell.name)
    flat, kept, incoming, needed = map(tuple, (flat, kept, incoming, needed))
    found: tuple[Tensor | None, ...] | None = _tensors.backward(
        *how, flat, offsets, layered, kept, incoming, needed, apart
    )
    if found is None and (dense := _dense((*flat, *kept, *incoming))) is not None:
        behind = len(flat) + len(kept)
        flat, kept, incoming = dense[: len(flat)], dense[len(flat) : behind], dense[behind:]
        found = _tensors.backward(*how, flat, offsets, layered, kept, incoming, needed, apart)
    return found


def _dense(tensors: Given) -> tuple[Tensor | None, ...] | None:
    """The same values as they are read, with copies where these differ; None if all lie so, or
    some are nothing that is read."""
    if any(t is not None and type(t) not in PLAIN for t in tensors):
        return None
    with torch.no_grad():
        dense = [t if t is None else t.resolve_neg().contiguous() for t in tensors]
    same = all(a is b for a, b in zip(dense, tensors, strict=True))
    return None if same else tuple(dense)


def num_threads() -> int:
    """As many as PyTorch and `bptt` both allow."""
    return min(get_num_threads(), torch.get_num_threads())
