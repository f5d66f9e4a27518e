"""The arrays of `Params` by their names: what shapes fit together, and the file of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from . import checks, files
from .array_libraries import numpy_dtype, place_of, read_float_array
from .cells import CELLS
from .checks import Array

__all__ = ["PARAM_NAMES", "checked", "read", "write"]

PARAM_NAMES = ("w_ih", "w_hh", "b_ih", "b_hh", "w_ho", "b_o")
_CELL = "cell"  # its name, beside them in a file


def checked(given: Mapping[str, object]) -> dict[str, Array]:
    """Every entry that is present, as an array of fitting dtype and shape, all of them where w_hh
    lives.

    Raises
    ------
    TypeError, ValueError
        If an entry is no array of floats, or does not fit the others.
    """
    place = place_of(given["w_hh"])
    w_hh = read_float_array("w_hh", given["w_hh"], place, "w_hh")
    checks.expect_shape("w_hh", w_hh, ("G*H", "H"))
    rows, hidden = w_hh.shape
    if hidden < 1 or rows < 1 or rows % hidden:
        raise ValueError(f"w_hh: expected shape (G*H, H) with H at least 1, got {(rows, hidden)}")
    gates = sorted({cell.gates for cell in CELLS.values()})
    if rows // hidden not in gates:
        raise ValueError(
            f"w_hh: expected shape (G*H, H) with G in {gates}, the numbers of gates that cells "
            f"have, got {tuple(w_hh.shape)}; are w_ih and w_hh swapped?"
        )
    arrays = {"w_hh": w_hh}
    dtype = numpy_dtype(w_hh.dtype)
    assert dtype is not None
    like = ("w_hh", dtype)
    for name, shape in (
        ("w_ih", (rows, "I")),
        ("b_ih", (rows,)),
        ("b_hh", (rows,)),
        ("w_ho", ("O", hidden)),
        ("b_o", ("O",)),
    ):
        value = given[name]
        if value is None and name != "w_ih":
            continue
        array = arrays[name] = read_float_array(name, value, place, "w_hh", like)
        checks.expect_shape(name, array, shape, lambda: f"w_hh of shape {tuple(w_hh.shape)}")
        if 0 in array.shape:
            raise ValueError(f"{name}: expected sizes of at least 1, got {tuple(array.shape)}")
    if "b_o" in arrays:
        if "w_ho" not in arrays:
            raise ValueError("b_o: a readout bias needs the readout weights w_ho, got None")
        outputs = arrays["w_ho"].shape[0]
        checks.expect_shape("b_o", arrays["b_o"], (outputs,), "w_ho")
    return arrays


def write(path: files.StrPath, arrays: Mapping[str, Array], cell: str | None) -> None:
    """Replace or create a file of parameters, with the name of their cell if that is known."""
    named = {} if cell is None else {_CELL: np.array(cell)}
    with files.replacing(_with_suffix(path)) as file:
        np.savez(file, **arrays, **named)  # type: ignore[arg-type, unused-ignore]


def read(path: files.StrPath) -> tuple[dict[str, Array], str | None]:
    """The arrays of a file of parameters, and the name of the cell that it was saved with."""
    suffixed = _with_suffix(path)
    found = files.read_arrays(suffixed if os.path.exists(suffixed) else path)
    cell = found.pop(_CELL, None)
    unknown = sorted(set(found) - set(PARAM_NAMES))
    missing = sorted({"w_ih", "w_hh"} - set(found))
    if unknown or missing:
        raise ValueError(
            f"path: {os.fspath(path)!r} does not hold bptt.Params: "
            f"unknown arrays {unknown}, missing arrays {missing}"
        )
    if cell is not None and (cell.dtype.kind != "U" or cell.shape):
        raise ValueError(
            f"path: {os.fspath(path)!r} does not hold bptt.Params: expected the name of a cell in "
            f"{_CELL!r}, got an array of {cell.dtype} {cell.shape}"
        )
    return found, None if cell is None else str(cell)


def _with_suffix(path: files.StrPath) -> str:
    name = os.fsdecode(path)
    if os.path.basename(name) in ("", os.curdir, os.pardir):
        raise ValueError(f"path: expected the name of a file, got {name!r}")
    return name if name.endswith(".npz") else name + ".npz"
