"""Which kernels run a layer on a chip: a tile that holds W_hh, or steps beside products.

Times are sums of assumed costs. None of them was measured: nothing of this ran on a GPU yet.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ...cells import Cell
from .chips import Chip
from .tiles import Tile, tiles_for

__all__ = ["ASSUMED", "DevicePasses", "passes_for", "products_us_a_row"]

# Microseconds, and shares of a peak.
ASSUMED = {
    "OneBlock": 0.1,  # what it takes that the blocks of a group meet
    "Cluster": 0.5,
    "Grid": 1.5,
    "pointwise": 0.15,  # the equations of a step
    "launch": 4.0,  # of a kernel of a step, from one to the next
    "product": 0.5,  # of the peak, of a step's product in registers
    "library": 0.6,  # of the peak, of a product that the array library makes
}


class DevicePasses(NamedTuple):
    """How both passes of a layer run.

    Attributes
    ----------
    tile : Tile or None
        None: step by step.
    blocks, groups : int
        Blocks of a group, and groups that share the batch; of a tile.
    groups_at_once : int
        That one launch runs: all, but where every block has to run at the same time.
    step_us : float
        Predicted microseconds of a step of the whole batch, forward and backward together.
    """

    tile: Tile | None
    blocks: int
    groups: int
    groups_at_once: int
    step_us: float


@lru_cache(maxsize=256)
def passes_for(chip: Chip, cell: Cell, itemsize: int, batch: int, hidden: int) -> DevicePasses:
    """The fastest of all ways, by the assumed costs."""
    ways = [
        _held(chip, tile, batch, hidden) for tile in tiles_for(chip, cell, itemsize, hidden)
    ] or [_stepwise(chip, cell, itemsize, batch, hidden)]
    if ways[0].tile is not None:
        ways.append(_stepwise(chip, cell, itemsize, batch, hidden))
    return min(ways, key=lambda way: way.step_us)


def products_us_a_row(chip: Chip, cell: Cell, itemsize: int, inputs: int, hidden: int) -> float:
    """Predicted microseconds of the products over all steps, of each row: W_x x and its two
    adjoints, and dW_hh."""
    fmas = cell.gates * hidden * (3 * inputs + hidden)
    return fmas / (_fma_rate(chip, itemsize) * chip.multiprocessors * ASSUMED["library"])


def _held(chip: Chip, tile: Tile, batch: int, hidden: int) -> DevicePasses:
    blocks, groups = tile.blocks_for(hidden), -(-batch // tile.rows)
    # A block of these threads and registers has a multiprocessor of its own.
    room = max(1, chip.multiprocessors // blocks)
    waves = -(-groups // room)
    product = tile.gates * tile.columns * tile.units * tile.rows
    product_us = product / (_fma_rate(chip, tile.itemsize) * ASSUMED["product"])
    of_pass = product_us + ASSUMED[tile.exchange] + ASSUMED["pointwise"]
    at_once = room if tile.exchange == "Grid" else groups
    return DevicePasses(tile, blocks, groups, min(groups, at_once), 2 * waves * of_pass)


def _stepwise(chip: Chip, cell: Cell, itemsize: int, batch: int, hidden: int) -> DevicePasses:
    product = cell.gates * hidden * hidden * batch
    rate = _fma_rate(chip, itemsize) * chip.multiprocessors * ASSUMED["library"]
    of_pass = product / rate + 2 * ASSUMED["launch"] + ASSUMED["pointwise"]
    return DevicePasses(None, 0, 0, 0, 2 * of_pass)


def _fma_rate(chip: Chip, itemsize: int) -> float:
    """Fused multiply-adds of a multiprocessor in a microsecond."""
    return chip.ghz * 1e3 * (chip.fma32 if itemsize == 4 else chip.fma64)
