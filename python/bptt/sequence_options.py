"""The keywords that say what sequences a caller has, checked and made a `RowMap`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Union

import numpy as np

from . import checks
from .checks import Array
from .row_map import Layout, RowMap

__all__ = ["Flags", "Integers", "described", "expect_one_layout", "read_lengths", "read_row_map"]

_FEW_ROWS = 1 << 16  # their index has half a megabyte

# What a caller may give beside arrays.
Integers = Union[Array, Sequence[int]]
Flags = Union[Array, Sequence[bool], Sequence[Sequence[bool]]]


def described(
    lengths: object, batch_sizes: object, reset: object, reverse: object, batch_first: object
) -> Mapping[str, object]:
    """The keywords of `read_row_map`; none at all if sequences are as a layer has them."""
    if (
        lengths is None
        and batch_sizes is None
        and reset is None
        and reverse is False
        and batch_first is False
    ):
        return {}
    return {
        "lengths": lengths,
        "batch_sizes": batch_sizes,
        "reset": reset,
        "reverse": reverse,
        "batch_first": batch_first,
    }


def expect_one_layout(lengths: object, batch_sizes: object, batch_first: object) -> None:
    """Raise ValueError if packed rows are also told to lie in another way."""
    if batch_sizes is not None and lengths is not None:
        raise ValueError("lengths: expected either lengths or batch_sizes, got both")
    if batch_sizes is not None and batch_first:
        raise ValueError("batch_first: packed rows (batch_sizes) have no axis for B, got True")


def read_row_map(
    shape: tuple[int, ...],
    *,
    lengths: object = None,
    batch_sizes: object = None,
    reset: object = None,
    reverse: object = False,
    batch_first: object = False,
) -> RowMap:
    """The map of an x that begins with `shape`: (T, B), (B, T) if `batch_first`, (N,) if packed.

    Raises
    ------
    TypeError, ValueError
        Naming the argument that does not fit.
    """
    turned = checks.boolean("reverse", reverse)
    batch_major = checks.boolean("batch_first", batch_first)
    expect_one_layout(lengths, batch_sizes, batch_major)
    sizes = None if batch_sizes is None else _read_batch_sizes(batch_sizes, shape[0])
    of_sequence = None
    if lengths is not None:
        steps, batch = shape[::-1] if batch_major else shape
        of_sequence = read_lengths(lengths, steps, shape, batch)
    if reset is not None or math.prod(shape) > _FEW_ROWS:
        flags = None if reset is None else _read_reset(reset, shape)
        return _made(shape, of_sequence, sizes, turned, batch_major, flags)
    given = (None if array is None else array.tobytes() for array in (of_sequence, sizes))
    return _made_once(shape, *given, turned, batch_major)


@lru_cache(maxsize=64)  # for few rows it takes longer to make than to use
def _made_once(
    shape: tuple[int, ...],
    lengths: bytes | None,
    sizes: bytes | None,
    turned: bool,
    batch_major: bool,
) -> RowMap:
    """`_made` without resets, of int64 arrays as they lie in memory."""
    of_sequence, of_step = (
        None if given is None else np.frombuffer(given, np.int64) for given in (lengths, sizes)
    )
    return _made(shape, of_sequence, of_step, turned, batch_major, None)


def _made(
    shape: tuple[int, ...],
    lengths: Array | None,
    sizes: Array | None,
    turned: bool,
    batch_major: bool,
    flags: Array | None,
) -> RowMap:
    """The map of checked arguments."""
    if sizes is not None:
        steps, batch = len(sizes), int(sizes.max(initial=0))
        # Sequence b has as many steps as there are with more than b rows.
        lengths = np.searchsorted(-sizes, -np.arange(batch), side="left")
        layout = Layout(("N",), begin=np.cumsum(sizes) - sizes)
    else:
        steps, batch = shape[::-1] if batch_major else shape
        layout = Layout(("B", "T"), 1, steps) if batch_major else Layout(("T", "B"), batch)
    if lengths is None:
        lengths = np.full(batch, steps)
    return _row_map(_Given(shape, steps, layout, lengths, turned), flags)


class _Given(NamedTuple):
    """How a caller's arrays lie, and the lengths (B,) of the sequences in them."""

    shape: tuple[int, ...]
    steps: int
    layout: Layout
    lengths: Array
    reverse: bool

    def rows(self, step: Array, sequence: Array) -> Array:
        """The rows of steps that are counted in processing order."""
        time = self.lengths[sequence] - 1 - step if self.reverse else step
        return self.layout.rows(time, sequence)


class _Pieces(NamedTuple):
    """Stretches of sequences between resets, those of a sequence one after the other."""

    sequence: Array  # (P,)
    begin: Array  # (P,) the first step, in processing order
    length: Array  # (P,)


def _row_map(given: _Given, flags: Array | None) -> RowMap:
    lengths, batch = given.lengths, len(given.lengths)
    sequences = np.arange(batch)
    pieces, anew = _Pieces(sequences, np.zeros(batch, np.int64), lengths), None
    if flags is not None and given.steps:
        pieces, anew = _cut(given, flags)
    order = np.argsort(-pieces.length, kind="stable")
    longest_first = pieces.length[order]
    # Without sequences there is no longest one: the layer has the caller's steps, of no rows.
    steps = int(longest_first[0]) if len(order) else given.steps
    offsets = _offsets(longest_first, steps)
    dense = bool((longest_first == steps).all())
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    first = place[np.searchsorted(pieces.sequence, sequences, side="left")]
    last = place[np.searchsorted(pieces.sequence, sequences, side="right") - 1]
    same = len(order) == batch and bool((first == sequences).all())
    return RowMap(
        given.shape,
        given.steps,
        batch,
        (steps, len(order)) if dense else (int(offsets[-1]),),
        len(order),
        given.layout,
        _index(given, pieces, order, offsets),
        None if dense else offsets,
        None if same else first,
        None if same else last,
        anew,
        None if (lengths == given.steps).all() else lengths,
        given.reverse,
    )


def _cut(given: _Given, flags: Array) -> tuple[_Pieces, Array | None]:
    """The pieces that `flags` (*shape) cut sequences into; and the sequences whose first step has
    one."""
    lengths = given.lengths
    step, sequence = np.nonzero(np.arange(given.steps)[:, None] < lengths)
    starts = np.zeros((given.steps, len(lengths)), bool)
    starts[step, sequence] = flags.ravel()[given.rows(step, sequence)]
    anew = starts[0].copy()
    starts[0] = True  # of a sequence without steps, too: it has a state
    sequence, begin = np.nonzero(starts.T)
    end = lengths[sequence]
    follows = np.flatnonzero(sequence[1:] == sequence[:-1])
    end[follows] = begin[follows + 1]
    return _Pieces(sequence, begin, end - begin), anew if anew.any() else None


def _offsets(lengths: Array, steps: int) -> Array:
    """(T + 1,) how many rows there are before each of `steps`."""
    ended = np.cumsum(np.bincount(lengths, minlength=steps + 1))[:steps]
    return np.concatenate([[0], np.cumsum(len(lengths) - ended)]).astype(np.int64)


def _index(given: _Given, pieces: _Pieces, order: Array, offsets: Array) -> Array | None:
    """The source row of each row; None if it is the same one."""
    rows = np.arange(offsets[-1])
    step = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    piece = order[rows - offsets[step]]
    index = given.rows(pieces.begin[piece] + step, pieces.sequence[piece])
    same = len(rows) == math.prod(given.shape) and bool((index == rows).all())
    return None if same else index.astype(np.int64, copy=False)


def _read_integers(name: str, value: object) -> Array:
    """A list or array of integers, as an int64 array of its own."""
    array = _read_list(name, value)
    if array.dtype.kind not in "iu" and not (array.size == 0 and isinstance(value, (list, tuple))):
        raise TypeError(f"{name}: expected integers, got dtype {array.dtype}")
    if array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected 64-bit integers, got {array.max()}")
    return array.astype(np.int64)


def _read_list(name: str, value: object) -> Array:
    if not isinstance(value, (list, tuple, range)):
        if not hasattr(value, "__dlpack__"):
            raise TypeError(f"{name}: expected a list or an array, got {type(value).__name__}")
        return checks.as_array(name, value)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected a list of equal rows, got {error}") from None


def read_lengths(value: object, steps: int, shape: tuple[int, ...], batch: int) -> Array:
    """The lengths (B,) of the sequences of an x that begins with `shape`, each from 0 to `steps`.

    Raises
    ------
    TypeError, ValueError
    """
    lengths = _read_integers("lengths", value)
    checks.expect_shape("lengths", lengths, (batch,), f"x, which begins with {shape}")
    if batch and not (lengths.min() >= 0 and lengths.max() <= steps):
        raise ValueError(
            f"lengths: expected lengths from 0 to {steps}, the steps of x, got values from "
            f"{lengths.min()} to {lengths.max()}"
        )
    return lengths


def _read_batch_sizes(value: object, rows: int) -> Array:
    sizes = _read_integers("batch_sizes", value)
    checks.expect_shape("batch_sizes", sizes, ("T",))
    if sizes.min(initial=1) < 1:
        raise ValueError(f"batch_sizes: expected sizes of at least 1, got {sizes.min()}")
    if (sizes[1:] > sizes[:-1]).any():
        step = int(np.argmax(sizes[1:] > sizes[:-1]))
        raise ValueError(
            f"batch_sizes: expected sizes that never grow, got {sizes[step]} and then "
            f"{sizes[step + 1]}"
        )
    total = sum(sizes.tolist())  # of any size
    if total != rows:
        raise ValueError(f"batch_sizes: expected a sum of {rows}, the rows of x, got {total}")
    return sizes


def _read_reset(value: object, shape: tuple[int, ...]) -> Array:
    flags = _read_list("reset", value)
    if flags.dtype != bool and not (flags.size == 0 and isinstance(value, (list, tuple))):
        raise TypeError(f"reset: expected an array of bools, got dtype {flags.dtype}")
    checks.expect_shape("reset", flags, shape, "x")
    return flags.astype(bool, copy=False)
