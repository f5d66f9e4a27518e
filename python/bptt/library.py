"""Where the library for C and C++ lies that is installed with this package."""

from __future__ import annotations

import os
from pathlib import Path

from .compiled import core, why_missing

__all__ = ["get_include", "get_library_dir"]


def get_include() -> str:
    """The folder to be searched for headers: ``#include <bptt/bptt.h>``.

    Raises
    ------
    RuntimeError
        If this installation is in pure Python.
    """
    return _folder("include", "bptt/bptt.h")


def get_library_dir() -> str:
    """The folder of ``libbptt``; in it ``cmake/bptt``, for CMake's ``bptt_DIR``, and ``pkgconfig``
    tell build systems the rest.

    Raises
    ------
    RuntimeError
        If this installation is in pure Python.
    """
    return _folder("lib", "cmake/bptt/bpttConfig.cmake")


def _folder(name: str, file: str) -> str:
    if core is None:
        raise RuntimeError(f"bptt has no library for C here: {why_missing}")
    folder = Path(core.__file__).parent / name
    if not (folder / file).exists():
        raise RuntimeError(f"bptt was built without its library for C: there is no {folder / file}")
    return os.fspath(folder)
