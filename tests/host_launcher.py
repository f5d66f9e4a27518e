"""A launcher of kernels without a GPU: the text that NVRTC would get, compiled for this CPU.

Threads are fibres (tests/cpp/fibres/), and "device memory" is that of PyTorch's CPU tensors, or of
arrays that pass for CuPy's. All else is what users run: plan, text, arguments, rows, products.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bptt import array_libraries
from bptt.array_libraries import Borrowed, Copied, Cupy, Place, Torch
from bptt.backends import cuda
from bptt.backends.cuda import CHIPS, Chip, Launch, Source

ROOT = Path(__file__).parents[1]
CPP = ROOT / "tests" / "cpp"
# Programs of a text stay as long as nothing that they were made from changes.
FOLDER = ROOT / "build" / "host_launcher"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-Wno-subobject-linkage")


class HostKernel:
    def __init__(self, function: Any, launcher: HostLauncher, name: str, device: int) -> None:
        self._function, self._launcher, self._name = function, launcher, name
        self._device = device

    def launch(self, launch: Launch, arguments: Sequence[int], stream: int) -> None:
        launcher = self._launcher
        launcher.launched.append((self._name, launch))
        assert stream == OfHost.STREAM
        assert OfHost.inside[-1:] == [self._device], "launched on another device"
        chip = launcher.chip(0)
        assert launch.shared_bytes <= chip.shared_bytes, launch
        assert launch.cluster <= chip.most_cluster, launch
        assert launch.blocks % launch.cluster == 0, launch
        assert not launch.cooperative or launch.blocks <= chip.multiprocessors, launch
        values = (ctypes.c_longlong * len(arguments))(*arguments)
        launcher.seed += 1
        fault = self._function(
            launch.blocks,
            launch.threads,
            launch.cluster,
            ctypes.c_size_t(launch.shared_bytes),
            launcher.seed,
            values,
            len(arguments),
        )
        assert fault is None, f"{self._name}, {launch}, seed {launcher.seed}: {fault.decode()}"


class HostLauncher:
    """What passes for a GPU of the kind `chip`; `launched` has what ran."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._kernels: dict[tuple[Source, str], HostKernel] = {}
        self.launched: list[tuple[str, Launch]] = []
        self.copies: list[str] = []  # between the host and what passes for the GPU
        self.seed = 0

    def missing(self) -> str | None:
        return None

    def description(self) -> str:
        return f"fibres in place of {self._chip.name}"

    def chip(self, device: int) -> Chip:
        return self._chip

    def kernel(self, source: Source, name: str, device: int) -> HostKernel:
        if (source, name) not in self._kernels:
            function = getattr(library_of(source), f"launch_{name}")
            function.restype = ctypes.c_char_p
            self._kernels[source, name] = HostKernel(function, self, name, device)
        return self._kernels[source, name]


_LIBRARIES: dict[Source, Any] = {}


def library_of(source: Source) -> Any:
    """The kernels of a source, as a library for this CPU."""
    if source not in _LIBRARIES:
        scheduler = _made(".o", (CPP / "fibres" / "fibres.cpp").read_text(), "-c")
        text = "\n".join(
            (
                source.joined("fibres/launcher.h", CPP),
                *(f"BPTT_LAUNCHES({name})" for name in source.names),
            )
        )
        _LIBRARIES[source] = ctypes.CDLL(str(_made(".so", text, "-shared", str(scheduler))))
    return _LIBRARIES[source]


def _made(suffix: str, text: str, *options: str) -> Path:
    """What the compiler makes of a text, unless it is there."""
    key = "\0".join((text, (CPP / "fibres" / "fibres.h").read_text(), *FLAGS, *options))
    path = FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}{suffix}"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    mine = path.with_suffix(f".{os.getpid()}{suffix}")
    source = mine.with_suffix(".cpp")
    source.write_text(text)
    first = options[:1]
    command = [COMPILER, *FLAGS, *first, str(source), *options[1:], f"-I{CPP}", "-o", str(mine)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    source.unlink()
    mine.replace(path)  # another worker may have made it, too
    return path


class OfHost:
    """The stream and the device that a library would have chosen, which launches are held to."""

    STREAM = 7
    inside: list[int] = []  # noqa: RUF012 - of all libraries

    def stream(self, device: int) -> int:
        return self.STREAM

    @contextmanager
    def _current(self, device: int) -> Iterator[None]:
        self.inside.append(device)
        try:
            yield
        finally:
            self.inside.pop()

    def _finish(self, device: int) -> None:
        assert self.inside[-1] == device


class HostTorch(OfHost, Torch):
    """PyTorch's tensors on the CPU, as if that were a GPU."""

    device_type = "cpu"

    def __init__(self, copies: list[str]) -> None:
        self._copies = copies

    def upload(self, host: np.ndarray, like: Any) -> Any:
        self._copies.append("upload")
        return super().upload(host, like)

    def fetch(self, array: Any) -> np.ndarray:
        self._copies.append("fetch")
        return super().fetch(array)


class HostBorrowed(OfHost, Borrowed):
    """Arrays of the CPU that any library has, but for those above."""

    kinds = (1,)

    def owns(self, value: object) -> bool:
        return not isinstance(value, np.ndarray) and super().owns(value)


class HostCopied(OfHost, Copied):
    """Copies of the host's arrays to what passes for a GPU."""

    device_type = "cpu"

    def place(self) -> Place:
        pytest.importorskip("torch")
        return Place(self, 0)


class OnDevice(np.ndarray):
    """What passes for an array of CuPy."""


def _of_cupy(function: Any) -> Any:
    return lambda *arguments: function(*arguments).view(OnDevice)


class OutOfMemoryError(Exception):
    """What passes for CuPy's."""


class _Functions:
    """What passes for the module cupy, as far as bptt uses it."""

    empty, zeros = staticmethod(_of_cupy(np.empty)), staticmethod(_of_cupy(np.zeros))
    asarray = staticmethod(_of_cupy(np.array))
    ascontiguousarray = staticmethod(_of_cupy(np.ascontiguousarray))
    concatenate, stack = staticmethod(_of_cupy(np.concatenate)), staticmethod(_of_cupy(np.stack))
    where, exp, log = staticmethod(_of_cupy(np.where)), np.exp, np.log
    asnumpy = staticmethod(lambda array: np.array(array))

    class cuda:  # noqa: N801 - a module of CuPy
        class memory:  # noqa: N801
            OutOfMemoryError = OutOfMemoryError


class HostCupy(OfHost, Cupy):
    """Arrays of NumPy's functions, as if they were CuPy's."""

    _cupy = _Functions

    def owns(self, value: object) -> bool:
        return isinstance(value, OnDevice)

    def device(self, array: Any) -> int:
        return 0

    def pointer(self, array: Any) -> int:
        return int(array.ctypes.data)


@contextmanager
def host_gpu(chip: str = "sm_90", **facts: Any) -> Iterator[HostLauncher]:
    """Within it there is a GPU of such a kind, in which some facts may be others."""
    launcher = HostLauncher(replace(CHIPS[chip], **facts))
    before = cuda.use_launcher(launcher)
    libraries, copying = array_libraries.LIBRARIES, array_libraries.COPYING
    array_libraries.LIBRARIES = (HostTorch(launcher.copies), HostCupy(), HostBorrowed())
    array_libraries.COPYING = HostCopied()
    try:
        yield launcher
    finally:
        array_libraries.LIBRARIES, array_libraries.COPYING = libraries, copying
        cuda.use_launcher(before)
