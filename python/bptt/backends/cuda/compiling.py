"""NVRTC: from the text of kernels to code for a chip, which a folder keeps.

The folder is that of the environment variable BPTT_CUDA_CACHE, else ``bptt/cuda`` in the user's
folder of caches. Where it cannot be written kernels are compiled in every process, with a warning.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ... import files

__all__ = ["Code", "Told", "cache_folder", "compiled", "nvrtc_missing", "packages_missing"]

_INSTALL = "pip install 'bptt[cuda]'"
_OPTIONS = {
    "std": "c++20",
    "name": "bptt.cu",
    "fma": False,  # a * b + c is two roundings unless fma() is written
    "device_as_default_execution_space": True,
}


class Told(NamedTuple):
    """What the assembler tells of a kernel: registers of a thread, and bytes that it spills."""

    registers: int
    spilled: int


@dataclass(frozen=True)
class Code:
    """Kernels as a chip runs them, and what is told of each by name."""

    cubin: bytes
    told: dict[str, Told]


def packages_missing() -> str | None:
    """Why Python cannot speak to CUDA; None if it can."""
    try:
        import cuda.bindings
        import cuda.core  # noqa: F401
    except ImportError as error:
        return f"cuda-core is not installed ({error}); {_INSTALL}"
    return None


def nvrtc_missing(arch: str | None = None) -> str | None:
    """Why nothing can be compiled here, or nothing for `arch`; None if it can."""
    missing = packages_missing()
    if missing is not None:
        return missing
    from cuda.bindings import nvrtc

    try:
        _, major, minor = nvrtc.nvrtcVersion()
        _, known = nvrtc.nvrtcGetSupportedArchs()
    except Exception as error:  # of a library that cannot be loaded, of several types
        return f"NVRTC cannot be loaded ({_first_line(error)}); {_INSTALL}"
    if arch is not None and int(arch[3:]) not in known:
        return (
            f"NVRTC {major}.{minor} does not compile for {arch}; "
            "pip install --upgrade nvidia-cuda-nvrtc"
        )
    return None


def compiled(source: str, arch: str) -> Code:
    """The code of a text for a chip, from the cache if it is there.

    Raises
    ------
    RuntimeError
        If there is no NVRTC, if it does not know the chip, or does not take the text.
    """
    missing = nvrtc_missing(arch)
    if missing is not None:
        raise RuntimeError(missing)
    folder = cache_folder()
    path = None if folder is None else folder / f"{_key(source, arch)}.cubin"
    code = None if path is None else _read(path)
    if code is None:
        code = _compile(source, arch)
        if path is not None:
            _write(path, code)
    return code


def cache_folder() -> Path | None:
    """Where code is kept; None if BPTT_CUDA_CACHE is "" or there is no home."""
    chosen = os.environ.get("BPTT_CUDA_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "bptt" / "cuda"
    except RuntimeError:
        return None


def _compile(source: str, arch: str) -> Code:
    from cuda.core import Program, ProgramOptions

    options: Any = ProgramOptions(arch=arch, ptxas_options=["-v"], **_OPTIONS)
    log = io.StringIO()
    try:
        code = Program(source, "c++", options).compile("cubin", logs=log)
    except Exception as error:  # an exception of cuda-core's own, which versions rename
        raise RuntimeError(f"NVRTC does not compile the kernels for {arch}: {error}") from error
    return Code(bytes(code.code), _told(log.getvalue()))


def _told(log: str) -> dict[str, Told]:
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    found = re.findall(pattern, log, re.DOTALL)
    return {n: Told(int(used), int(stores) + int(loads)) for n, stores, loads, used in found}


def _key(source: str, arch: str) -> str:
    from cuda.bindings import nvrtc

    named = json.dumps([source, arch, nvrtc.nvrtcVersion()[1:], _OPTIONS])
    return hashlib.sha256(named.encode()).hexdigest()


def _read(path: Path) -> Code | None:
    """What `_write` wrote; None of a file that is not there or not whole."""
    try:
        head, _, cubin = path.read_bytes().partition(b"\n")
        found = json.loads(head)
        if found["sha256"] != hashlib.sha256(cubin).hexdigest():
            return None
        return Code(cubin, {name: Told(*told) for name, told in found["told"].items()})
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Warned:
    """Whether the caller knows that the cache cannot be written."""

    of_cache = False


def _write(path: Path, code: Code) -> None:
    head = {"sha256": hashlib.sha256(code.cubin).hexdigest(), "told": code.told}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(head).encode() + b"\n" + code.cubin)
    except OSError as error:
        if not _Warned.of_cache:
            _Warned.of_cache = True
            warnings.warn(
                f"compiled kernels are not kept: {error}; BPTT_CUDA_CACHE names another folder, "
                'and "" none',
                RuntimeWarning,
                stacklevel=2,
            )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
