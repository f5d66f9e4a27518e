"""What runs kernels: a protocol, of which there is one for CUDA's driver, and one in tests.

The tests' launcher compiles the same text for a CPU, whose threads are fibres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .chips import Chip
from .source import Source

__all__ = ["Kernel", "Launch", "Launcher"]


class Launch(NamedTuple):
    """How many threads run a kernel.

    Attributes
    ----------
    blocks, threads : int
    cluster : int
        Blocks of a cluster, 1 where they need none.
    cooperative : bool
        Whether all blocks have to run at the same time.
    shared_bytes : int
        Of a block.
    """

    blocks: int
    threads: int
    cluster: int = 1
    cooperative: bool = False
    shared_bytes: int = 0


class Kernel(Protocol):
    """A compiled kernel on a device."""

    def launch(self, launch: Launch, arguments: Sequence[int], stream: int) -> None:
        """Put it in the stream. Arguments are pointers, 0 for null, and 64-bit integers."""


class Launcher(Protocol):
    """What compiles kernels for a device and launches them there."""

    def missing(self) -> str | None:
        """Why there is none here and what to do about it; None if there is."""

    def description(self) -> str:
        """What it runs on, in a few words, once it is known to be there."""

    def chip(self, device: int) -> Chip:
        """What the device has. `most_cluster` may be asked of it as late as it is read."""

    def kernel(self, source: Source, name: str, device: int) -> Kernel:
        """A kernel of a source, which is compiled once.

        Raises
        ------
        RuntimeError
            If it cannot be compiled or loaded; the message says why.
        """
