"""What a chip has, as far as a plan depends on it.

From the chip itself where there is one; for plans without one by its compute capability: the CUDA
C++ Programming Guide, "Technical specifications per compute capability" and "Arithmetic
instructions", and NVIDIA's data sheets of the card that is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

__all__ = ["CHIPS", "Chip", "chip_named", "chip_of"]


@dataclass(frozen=True)
class Chip:
    """A GPU, or one of its kind.

    Attributes
    ----------
    name : str
    arch : str
        What the compiler calls it, ``sm_90``.
    shared_bytes : int
        Shared memory that a block may ask for.
    multiprocessors : int
    most_cluster : int
        Blocks of a cluster; 1 where there are none.
    cooperative : bool
        Whether all blocks of a launch can be made to run at the same time.
    ghz : float
        The clock of a multiprocessor.
    fma32, fma64 : int
        Fused multiply-adds of a multiprocessor in a cycle.
    mma16 : int
        The same of its tensor cores, in bfloat16 and float16; half as many in tf32.
    """

    name: str
    arch: str
    shared_bytes: int
    multiprocessors: int
    most_cluster: int
    cooperative: bool
    ghz: float
    fma32: int
    fma64: int
    mma16: int


def _kind(
    card: str, arch: str, kib: int, multiprocessors: int, ghz: float, fma64: int, mma16: int
) -> Chip:
    number = int(arch[3:])
    most = 1 if number < 90 else 16 if number < 120 else 8
    fma32 = 64 if number == 80 else 128
    return Chip(card, arch, kib * 1024, multiprocessors, most, True, ghz, fma32, fma64, mma16)


CHIPS = {
    chip.arch: chip
    for chip in (
        _kind("A100", "sm_80", 163, 108, 1.41, 32, 1024),
        _kind("RTX A6000", "sm_86", 99, 84, 1.80, 2, 512),
        _kind("L40", "sm_89", 99, 142, 2.49, 2, 256),
        _kind("H100 SXM", "sm_90", 227, 132, 1.98, 64, 2048),
        # Of mma.sync; twice as many take instructions that only its kind has.
        _kind("B200", "sm_100", 227, 148, 1.97, 64, 2048),
        _kind("RTX 5090", "sm_120", 99, 170, 2.41, 2, 256),
    )
}


def chip_named(device: object) -> Chip:
    """The chip of an architecture, ``sm_90``; its card is the one in `CHIPS`.

    Raises
    ------
    TypeError, ValueError
        If it is none that a plan is known for.
    """
    if not isinstance(device, str):
        raise TypeError(f"device: expected a string, got {type(device).__name__}")
    if device not in CHIPS:
        # Without the most similar one: that of sm_10 would be sm_120.
        raise ValueError(f"device: expected one of {', '.join(CHIPS)}, got {device!r}")
    return CHIPS[device]


def chip_of(
    name: str,
    capability: tuple[int, int],
    *,
    shared_bytes: int,
    multiprocessors: int,
    most_cluster: int,
    cooperative: bool,
    khz: int,
) -> Chip:
    """A chip by what it tells of itself; what it does not tell is that of the kind before it.

    Raises
    ------
    ValueError
        If it is older than all that the kernels are compiled for.
    """
    number = 10 * capability[0] + capability[1]
    older = [int(arch[3:]) for arch in CHIPS if int(arch[3:]) <= number]
    if not older:
        raise ValueError(
            f"{name} has compute capability {capability[0]}.{capability[1]}: the kernels are for "
            f"8.0 ({min(CHIPS, key=_number)}) and later"
        )
    return replace(
        CHIPS[f"sm_{max(older)}"],
        name=name,
        arch=f"sm_{number}",
        shared_bytes=shared_bytes,
        multiprocessors=multiprocessors,
        most_cluster=most_cluster,
        cooperative=cooperative,
        ghz=khz / 1e6,
    )


def _number(arch: str) -> int:
    found = re.fullmatch(r"sm_(\d+)", arch)
    assert found is not None
    return int(found[1])
