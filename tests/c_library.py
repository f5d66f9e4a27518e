"""The structs of bptt.h and the library itself, by ctypes."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np


def struct(name: str, fields: str) -> type[ctypes.Structure]:
    """A struct of the header: ``s`` stands for a string, ``i`` for int32_t, ``n`` for int64_t."""
    kinds = {"s": ctypes.c_char_p, "i": ctypes.c_int32, "n": ctypes.c_int64}
    members = [("struct_size", ctypes.c_size_t)]
    for field in fields.split():
        member, _, kind = field.partition(":")
        members.append((member, kinds.get(kind, ctypes.c_void_p)))
    return type(name, (ctypes.Structure,), {"_fields_": members})


Cell = struct("Cell", "gates:i states:i saved:i")
Layer = struct(
    "Layer",
    "cell:s dtype:i reverse:i steps:n batch:n inputs:n hidden:n x h c w_ih w_hh b_ih b_hh lengths "
    "reset",
)
Record = struct("Record", "y c_y saved last_h last_c")
Incoming = struct("Incoming", "y last_h last_c")
Gradients = struct("Gradients", "x h c w_ih w_hh b_ih b_hh accumulate:i")
Options = struct("Options", "threads:i keep_subnormals:i interrupt context")


def made(kind: Any, **members: Any) -> Any:
    """Arrays become their addresses, and are kept."""
    found = kind(struct_size=ctypes.sizeof(kind))
    found.kept = members
    for name, value in members.items():
        setattr(found, name, value.ctypes.data if isinstance(value, np.ndarray) else value)
    return found


def shared_library(folder: Path) -> Path:
    return folder / f"libbptt.{'dylib' if sys.platform == 'darwin' else 'so'}"


def loaded(path: str | Path) -> Any:
    library = ctypes.CDLL(str(path))
    for name in ("error_message", "version", "isa"):
        getattr(library, f"bptt_{name}").restype = ctypes.c_char_p
    return library
