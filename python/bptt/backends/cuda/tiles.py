"""How a layer is cut for the kernels that hold W_hh, as csrc/cuda/tile.cuh has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from ...cells import Cell
from .chips import Chip

__all__ = ["COLUMNS", "HELD_BYTES", "MOST_ROWS", "THREADS", "Cut", "Tile", "tiles_for"]

THREADS = 256
HELD_BYTES = 512  # of a thread's weights: half of its registers
# Rows of a group whose sums a thread can hold beside them, by bytes of a value; 8 in float64 spill.
MOST_ROWS = {4: 8, 8: 4}
COLUMNS = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Cut(ABC):
    """Blocks of `units` units each hold W_hh of a layer of at most `columns`.

    Attributes
    ----------
    itemsize : int
        Bytes of a value of the arrays, 4 or 8.
    cell : str
    gates : int
    exchange : {"OneBlock", "Cluster", "Grid"}
        How the blocks of a group meet.
    units, columns : int
    rows : int
        Of the batch, that a group owns.
    """

    itemsize: int
    cell: str
    gates: int
    exchange: str
    units: int
    columns: int
    rows: int

    def blocks_for(self, hidden: int) -> int:
        """Blocks of a group, of a layer of so many units."""
        return -(-hidden // self.units)

    @property
    def blocks(self) -> int:
        """Of a layer that is as wide as it can be."""
        return self.blocks_for(self.columns)

    @property
    def slice(self) -> int:
        """Rows of W_hh of a block."""
        return self.gates * self.units

    @property
    @abstractmethod
    def forward_bytes(self) -> int:
        """Shared memory of a block."""

    @abstractmethod
    def backward_bytes(self, blocks: int) -> int:
        """The same of the pass back, of a group of so many blocks."""

    def given_bytes(self, blocks: int) -> int:
        """Of it, where the blocks of a group leave shares of dS for each other."""
        return 0 if self.exchange == "Grid" else 2 * blocks * self.rows * self.units * self.itemsize

    def exchange_values(self, blocks: int) -> int:
        """Values of global memory through which a group passes dS on."""
        return 2 * blocks * self.rows * self.columns if self.exchange == "Grid" else 0

    @property
    def shared_bytes(self) -> int:
        """The most that a block asks for."""
        return max(self.forward_bytes, self.backward_bytes(self.blocks))

    @property
    @abstractmethod
    def about_registers(self) -> int:
        """Of a thread, roughly."""


class Tile(Cut):
    """With products by fused multiply-adds, and all of W_hh in registers."""

    @property
    def forward_bytes(self) -> int:
        """Of two copies of the states, and all shares of the sums."""
        parts = THREADS // self.units
        return (2 * self.rows * self.columns + parts * self.rows * self.slice) * self.itemsize

    def backward_bytes(self, blocks: int) -> int:
        """Of the deltas, all shares of the sums, and those that other blocks give."""
        parts = THREADS // (self.columns // 4)
        values = self.rows * self.slice + parts * self.rows * self.columns
        return values * self.itemsize + self.given_bytes(blocks)

    @property
    def held_values(self) -> int:
        """Weights in the registers of a thread."""
        return self.slice * self.columns // THREADS

    @property
    def about_registers(self) -> int:
        """Its weights, the sums of all rows, and some for all else."""
        values = self.held_values + self.gates * self.rows
        return min(255, values * self.itemsize // 4 + 48)


def exchanges_for(chip: Chip, blocks: int) -> list[str]:
    """How the blocks of a group, of which there is more than one, can meet."""
    found = ["Cluster"] if blocks <= chip.most_cluster else []
    return found + (["Grid"] if chip.cooperative and blocks <= chip.multiprocessors else [])


def tiles_for(chip: Chip, cell: Cell, itemsize: int, hidden: int) -> Iterator[Tile]:
    """All tiles with the fewest blocks whose registers hold W_hh, that the chip has room for."""
    columns = next((each for each in COLUMNS if each >= hidden), None)
    if columns is None:
        return
    units = columns
    while cell.gates * columns * units // THREADS * itemsize > HELD_BYTES:
        units //= 2
    # A group of one block takes a tile that has all columns in it.
    one = units == columns
    for exchange in ["OneBlock"] if one else exchanges_for(chip, -(-hidden // units)):
        rows = 1
        while rows <= MOST_ROWS[itemsize]:
            tile = Tile(itemsize, cell.name, cell.gates, exchange, units, columns, rows)
            if tile.shared_bytes <= chip.shared_bytes:
                yield tile
            rows *= 2
