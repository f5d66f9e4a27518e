"""Which kernels run a layer on a chip: a tile that holds W_hh, or steps beside products.

Times are sums of assumed costs. None of them was measured: nothing of this ran on a GPU yet.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ...cells import Cell
from .chips import Chip
from .mma_tiles import MmaTile, mma_tiles_for
from .tiles import Cut, tiles_for

__all__ = ["ASSUMED", "DevicePasses", "passes_for", "products_us_a_row"]

# Microseconds, and shares of a peak.
ASSUMED = {
    "OneBlock": 0.1,  # what it takes that the blocks of a group meet
    "Cluster": 0.5,
    "Grid": 1.5,
    "pointwise": 0.15,  # the equations of a step
    "launch": 4.0,  # of a kernel of a step, from one to the next
    "product": 0.5,  # of the peak, of a step's product in registers
    "tensor cores": 0.6,  # of the peak, of a step's product by them
    "library": 0.6,  # of the peak, of a product that the array library makes
}


class DevicePasses(NamedTuple):
    """How both passes of a layer run.

    Attributes
    ----------
    tile : Cut or None
        None: step by step.
    blocks, groups : int
        Blocks of a group, and groups that share the batch; of a tile.
    groups_at_once : int
        That one launch runs: all, but where every block has to run at the same time.
    step_us : float
        Predicted microseconds of a step of the whole batch, forward and backward together.
    """

    tile: Cut | None
    blocks: int
    groups: int
    groups_at_once: int
    step_us: float


@lru_cache(maxsize=256)
def passes_for(
    chip: Chip, cell: Cell, itemsize: int, batch: int, hidden: int, precision: str | None = None
) -> DevicePasses:
    """The fastest of all ways, by the assumed costs; with a precision, of those by tensor cores.

    Raises
    ------
    ValueError
        If no kernel holds so many units in this precision.
    """
    if precision is not None:
        found = [
            _held(chip, each, batch, hidden)
            for each in mma_tiles_for(chip, cell, precision, hidden)
        ]
        if not found:
            raise ValueError(
                f"precision: {chip.name} cannot hold W_hh of {hidden} units of cell {cell.name!r} "
                f"in {precision}, which there are no other kernels for; leave it out"
            )
        return min(found, key=lambda way: way.step_us)
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


def _held(chip: Chip, tile: Cut, batch: int, hidden: int) -> DevicePasses:
    blocks, groups = tile.blocks_for(hidden), -(-batch // tile.rows)
    # A block of these threads and registers has a multiprocessor of its own.
    room = max(1, chip.multiprocessors // blocks)
    waves = -(-groups // room)
    of_pass = ASSUMED[tile.exchange] + ASSUMED["pointwise"]
    at_once = room if tile.exchange == "Grid" else groups
    step_us = waves * (_products_us(chip, tile) + 2 * of_pass)
    return DevicePasses(tile, blocks, groups, min(groups, at_once), step_us)


def _products_us(chip: Chip, tile: Cut) -> float:
    """Of both products of a step, that of W_hh S and its adjoint."""
    fmas = 2 * tile.slice * tile.columns * tile.rows
    if isinstance(tile, MmaTile):
        rate = chip.ghz * 1e3 * chip.mma16 * 2 / tile.form.itemsize
        reading = tile.kept_bytes / (chip.ghz * 1e3 * 128)  # bytes of shared memory in a cycle
        return fmas / (rate * ASSUMED["tensor cores"]) + reading
    return fmas / (_fma_rate(chip, tile.itemsize) * ASSUMED["product"])


def _stepwise(chip: Chip, cell: Cell, itemsize: int, batch: int, hidden: int) -> DevicePasses:
    product = cell.gates * hidden * hidden * batch
    rate = _fma_rate(chip, itemsize) * chip.multiprocessors * ASSUMED["library"]
    of_pass = product / rate + 2 * ASSUMED["launch"] + ASSUMED["pointwise"]
    return DevicePasses(None, 0, 0, 0, 2 * of_pass)


def _fma_rate(chip: Chip, itemsize: int) -> float:
    """Fused multiply-adds of a multiprocessor in a microsecond."""
    return chip.ghz * 1e3 * (chip.fma32 if itemsize == 4 else chip.fma64)
