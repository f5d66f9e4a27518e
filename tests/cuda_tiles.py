"""The tiles in which a chip would hold a layer, and the kernels of csrc/cuda compiled for one."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).parents[1] / "csrc"

# Shared memory that a block can have, by compute capability, in KiB (CUDA C++ Programming Guide,
# "Technical specifications per compute capability").
SHARED_KIB = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99}
CLUSTERS = ("sm_90", "sm_100", "sm_120")
MOST_BLOCKS = 16  # of a cluster
THREADS = 256
BYTES = {"float": 4, "double": 8}
HELD_BYTES = 512  # of a thread's weights: half of its registers
MOST_ROWS = {"float": 8, "double": 4}  # whose sums a thread can hold beside; 8 in double spill

GATES = {"linear": 1, "tanh": 1, "relu": 1, "lstm": 4, "gru": 3}
POLICIES = {
    "linear": "Elman<{0}, Linear<{0}>>",
    "tanh": "Elman<{0}, Tanh<{0}>>",
    "relu": "Elman<{0}, Relu<{0}>>",
    "lstm": "Lstm<{0}>",
    "gru": "Gru<{0}>",
}

SOURCE = """
#define BPTT_ISA cuda
#include "cuda/words.cuh"
#include "cuda/hold_backward.cuh"
#include "cuda/hold_forward.cuh"
#include "cuda/step.cuh"

namespace bptt::cuda {{
using Cut = Tile<{t}, {cell}, {exchange}, {units}, {columns}, {threads}, {rows}>;
static_assert(Cut::forward_values() == {forward} && Cut::backward_values({blocks}) == {backward});

extern "C" __global__ void __launch_bounds__({threads}, 1)
    forward(ForwardPass<{t}> p, unsigned* counters) {{
  hold_forward<Cut>(p, {blocks}, counters);
}}
extern "C" __global__ void __launch_bounds__({threads}, 1)
    backward(BackwardPass<{t}> p, unsigned* counters, {t}* exchange) {{
  hold_backward<Cut>(p, {blocks}, counters, exchange);
}}
extern "C" __global__ void one_forward(ForwardPass<{t}> p, Index t, const {t}* recurrent) {{
  step_forward<{t}, {cell}>(p, t, recurrent);
}}
extern "C" __global__ void one_backward(BackwardPass<{t}> p, Index t, const {t}* recurrent,
                                        {t}* carry) {{
  step_backward<{t}, {cell}>(p, t, recurrent, carry);
}}
}}
"""


@dataclass(frozen=True)
class Tile:
    """As in csrc/cuda/tile.cuh: `blocks` of `units` units each hold W_hh of at most `columns`."""

    dtype: str
    cell: str
    exchange: str
    units: int
    columns: int
    rows: int

    @property
    def blocks(self) -> int:
        return self.columns // self.units

    @property
    def forward_values(self) -> int:
        parts = THREADS // self.units
        return 2 * self.rows * self.columns + parts * self.rows * self._slice

    @property
    def backward_values(self) -> int:
        parts = THREADS // (self.columns // 4)
        given = 0 if self.exchange == "Grid" else 2 * self.blocks * self.rows * self.units
        return self.rows * self._slice + parts * self.rows * self.columns + given

    @property
    def shared_bytes(self) -> int:
        return max(self.forward_values, self.backward_values) * BYTES[self.dtype]

    @property
    def _slice(self) -> int:
        return GATES[self.cell] * self.units

    @property
    def source(self) -> str:
        return SOURCE.format(
            t=self.dtype,
            cell=POLICIES[self.cell].format(self.dtype),
            exchange=self.exchange,
            units=self.units,
            columns=self.columns,
            threads=THREADS,
            rows=self.rows,
            blocks=self.blocks,
            forward=self.forward_values,
            backward=self.backward_values,
        )


def tile_for(arch: str, dtype: str, cell: str, columns: int, rows: int) -> Tile:
    """The fewest blocks whose registers hold W_hh, and at most `rows` rows that fit beside."""
    units = columns
    while GATES[cell] * columns * units // THREADS * BYTES[dtype] > HELD_BYTES:
        units //= 2
    blocks = columns // units
    clustered = arch in CLUSTERS and blocks <= MOST_BLOCKS
    exchange = "OneBlock" if blocks == 1 else "Cluster" if clustered else "Grid"
    rows = min(rows, MOST_ROWS[dtype])
    while True:
        tile = Tile(dtype, cell, exchange, units, columns, rows)
        if tile.shared_bytes <= SHARED_KIB[arch] * 1024:
            return tile
        rows //= 2


@dataclass(frozen=True)
class Kernel:
    """What ptxas tells of one: registers of a thread, and bytes of them that it spills."""

    name: str
    registers: int
    spilled: int


def compiled(tile: Tile, arch: str) -> dict[str, Kernel]:
    """The kernels of `tile` for a chip, by NVRTC as cuda-core calls it."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        std="c++20",
        arch=arch,
        name="tile.cu",
        fma=False,  # a * b + c is two roundings unless fma() is written
        ptxas_options=["-v"],
        include_path=[str(CSRC)],
        device_as_default_execution_space=True,
    )
    log = io.StringIO()
    Program(tile.source, "c++", options).compile("cubin", logs=log)
    return {kernel.name: kernel for kernel in _told(log.getvalue())}


def _told(log: str) -> list[Kernel]:
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    found = re.findall(pattern, log, re.DOTALL)
    return [Kernel(n, int(used), int(stores) + int(loads)) for n, stores, loads, used in found]
