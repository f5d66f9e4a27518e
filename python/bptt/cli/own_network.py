"""A network and data that were saved in files, for ``bptt lags --params --data``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import bptt
from bptt import files
from bptt.checks import Array

from .network import Network
from .options import CommandError


def read_network(args: argparse.Namespace) -> Network:
    """The network and the data in two files, or a `CommandError` that says what is wrong."""
    with _read_of("--params", args.params):
        params, saved_cell = bptt.Params.load_with_cell(args.params)
    with _read_of("--data", args.data):
        arrays = files.read_arrays(args.data)
    x, target, lengths = _checked(args.data, arrays, args.lengths)
    fitting = "cross_entropy" if target.dtype.kind in "iu" else "squared_error"
    loss, at = args.loss or fitting, "all" if args.at is None else args.at
    cell = _cell_of(args.params, saved_cell, args.cell)
    network = Network(cell, cell, cell, params.hidden_size, len(x), loss, at)
    network.params, network.x, network.target, network.lengths = params, x, target, lengths
    return network


@contextmanager
def _read_of(option: str, name: str) -> Iterator[None]:
    """What reading a file raises, as an error of the option that named it."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{option}: cannot read {name}: {error.strerror or error}") from None
    except (ValueError, TypeError, MemoryError) as error:
        raise CommandError(f"{option}: {str(error).removeprefix('path: ')}") from None


def _checked(
    data: str, arrays: dict[str, Array], ragged: bool
) -> tuple[Array, Array, Array | None]:
    """x, target and, of a `ragged` batch, lengths of the file `data`."""
    wanted = ("x", "target", "lengths") if ragged else ("x", "target")
    x, lengths = arrays.get("x", np.empty(0)), arrays.get("lengths") if ragged else None
    if not set(wanted) <= set(arrays):
        names = " and ".join(filter(None, (", ".join(wanted[:-1]), wanted[-1])))
        fault = f" holds {sorted(arrays)}, expected the arrays {names}"
    elif "lengths" in arrays and not ragged:
        fault = " holds an array lengths, too: give --lengths to count only the steps it tells"
    elif x.dtype.kind != "f" or x.ndim != 3:
        fault = f": x: expected floats of shape (T, B, I), got {x.dtype} {x.shape}"
    elif not np.isfinite(x[_there(x, lengths)]).all():
        fault = ": x: expected finite numbers, got inf or nan"
    else:
        return x, arrays["target"], lengths
    raise CommandError(f"--data: {data!r}{fault}")


def _there(x: Array, lengths: Array | None) -> Array:
    """(T, B), the steps that the sequences have; all where the lengths make no sense."""
    there = np.ones(x.shape[:2], bool)
    if lengths is not None and lengths.shape == x.shape[1:2] and lengths.dtype.kind in "iu":
        there = np.arange(len(x))[:, None] < lengths
    return there


def _cell_of(params: str, saved: str | None, given: str | None) -> str:
    """The cell of a file of parameters: that which it was saved with, or else the one given."""
    cell = given or saved
    if cell is None:
        raise CommandError(f"--cell: expected it, since {params} was saved without a cell")
    if saved not in (None, cell):
        raise CommandError(f"--cell: {params} was saved with cell {saved!r}, got {cell!r}")
    if cell not in bptt.CELLS:
        raise CommandError(f"--params: {params} is for cell {cell!r}, which is no cell of bptt's")
    return cell
