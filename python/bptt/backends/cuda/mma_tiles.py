"""The same with products by tensor cores, as csrc/cuda/tensor_cores.cuh has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from ...cells import Cell
from .chips import Chip
from .tiles import THREADS, Cut, exchanges_for

__all__ = ["FORMATS", "MmaTile", "mma_tiles_for"]


class Format(NamedTuple):
    """What tensor cores multiply.

    Attributes
    ----------
    name : str
        In the kernels.
    itemsize : int
        Bytes of a value in shared memory.
    depth : int
        Columns of a tile, which has 16 rows.
    """

    name: str
    itemsize: int
    depth: int


# By the names that a caller has for them.
FORMATS = {
    "tf32": Format("Tf32", 4, 8),
    "bfloat16": Format("Bf16", 2, 16),
    "float16": Format("F16", 2, 16),
}
# Tiles that a warp has in registers, and registers of a thread for these, of which a tile takes 4,
# for the sums, and for what its units carry from step to step: with more, kernels spill.
HELD_TILES, HELD_REGISTERS = 27, 128
COLUMNS = (64, 128, 256, 384, 512, 640, 768, 1024)
BLOCKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128)  # of a group, or about so many
ROWS = (8, 16)  # the product has the rows of the batch in eights
MOST_UNITS = 64  # of a block with 16 rows: with more, a thread has so many that kernels spill
_WARPS = THREADS // 32


class _Product(NamedTuple):
    """A product of `height` x `width` by `width` x rows, as the warps of a block share it.

    Attributes
    ----------
    parts : int
        Shares of a sum.
    down, across : int
        Tiles of a warp.
    held : int
        Of them, at most so many are in registers.
    """

    form: Format
    height: int
    width: int
    parts: int
    down: int
    across: int
    held: int

    @property
    def kept(self) -> int:
        """Tiles of a warp that are in shared memory."""
        return self.down * (self.across - min(self.held // self.down, self.across))

    @property
    def kept_bytes(self) -> int:
        """Of all warps."""
        return _WARPS * self.kept * 32 * 16

    def bytes(self, rows: int, copies: int) -> int:
        """Of shared memory: tiles, copies of the right operand, and shares of the sums."""
        pitch = self.width + 16 // self.form.itemsize
        sums = self.parts * rows * (self.height + 4)
        return self.kept_bytes + copies * rows * pitch * self.form.itemsize + sums * 4


def _divided(form: Format, height: int, width: int, wanted: int) -> _Product | None:
    """`wanted`: of the warps, how many share the height, if that can be. Nothing is held."""
    for down in (*(n for n in (8, 4, 2, 1) if n <= wanted), _WARPS):
        across, parts = width // form.depth, _WARPS // down
        if height % 16 == 0 and height // 16 % down == 0 and across and across % parts == 0:
            return _Product(form, height, width, parts, height // 16 // down, across // parts, 0)
    return None


@dataclass(frozen=True)
class MmaTile(Cut):
    """With products by tensor cores, and tiles of W_hh in registers and shared memory.

    Attributes
    ----------
    precision : {"tf32", "bfloat16", "float16"}
    """

    precision: str

    @property
    def form(self) -> Format:
        """Of the product's operands."""
        return FORMATS[self.precision]

    @cached_property
    def ahead(self) -> _Product:
        """The product of the forward pass."""
        return self._product(self.slice, self.columns, 4)

    @cached_property
    def back(self) -> _Product:
        """The product of the pass back."""
        return self._product(self.columns, self.slice, 8)

    def _product(self, height: int, width: int, wanted: int) -> _Product:
        found = _divided(self.form, height, width, wanted)
        assert found is not None
        units = -(-self.rows * self.units // THREADS)
        others = found.down * self.rows // 2 + units
        return found._replace(held=max(0, min(HELD_TILES, (HELD_REGISTERS - others) // 4)))

    def can_be(self) -> bool:
        """Whether the warps of a block can share both products."""
        sides, form = ((self.slice, self.columns, 4), (self.columns, self.slice, 8)), self.form
        return all(_divided(form, *side) is not None for side in sides)

    @property
    def kept_bytes(self) -> int:
        """Of W_hh that a step reads from shared memory, forward and back together."""
        return self.ahead.kept_bytes + self.back.kept_bytes

    @property
    def forward_bytes(self) -> int:
        """Of two copies of the states beside the product's."""
        return self.ahead.bytes(self.rows, 2)

    def backward_bytes(self, blocks: int) -> int:
        """Of the deltas, and of what other blocks give."""
        return self.back.bytes(self.rows, 1) + self.given_bytes(blocks)

    @property
    def about_registers(self) -> int:
        """Its tiles, the sums of all rows, and some for all else."""
        most = max(
            4 * (each.down * each.across - each.kept) + each.down * self.rows // 2
            for each in (self.ahead, self.back)
        )
        return min(255, most + 72)


@lru_cache(maxsize=256)
def mma_tiles_for(chip: Chip, cell: Cell, precision: str, hidden: int) -> tuple[MmaTile, ...]:
    """Tiles of several numbers of blocks, that the chip has room for."""
    columns = next((each for each in COLUMNS if each >= hidden), None)
    if columns is None:
        return ()
    found = []
    for units in _units_for(columns, cell.gates):
        blocks = -(-hidden // units)
        for exchange in ["OneBlock"] if units == columns else exchanges_for(chip, blocks):
            for rows in ROWS if units <= MOST_UNITS else ROWS[:1]:
                tile = MmaTile(4, cell.name, cell.gates, exchange, units, columns, rows, precision)
                if tile.can_be() and tile.shared_bytes <= chip.shared_bytes:
                    found.append(tile)
    return tuple(found)


def _units_for(columns: int, gates: int) -> list[int]:
    """Those whose gates are a multiple of 16, so that tiles have all their rows."""
    grain = 16 // math.gcd(gates, 16)
    found = {-(-columns // blocks // grain) * grain for blocks in BLOCKS}
    return sorted(found, reverse=True)
