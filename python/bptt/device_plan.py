"""How the backend cuda would run a layer on a GPU: what `plan` returns for a device."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .backends import require_cuda
from .backends.cuda import (
    THREADS,
    Chip,
    DevicePasses,
    Source,
    chip_named,
    compiled,
    nvrtc_missing,
    passes_for,
    products_us_a_row,
    read_precision,
    source_of_steps,
    source_of_tile,
)
from .cells import Cell

__all__ = ["DevicePlan", "plan_on_device"]

_WAYS = {
    "OneBlock": "within one block",
    "Cluster": "in clusters",
    "Grid": "through the second-level cache",
}

_OF_STEP = 40  # registers of a thread that has no weights, roughly


@dataclass(frozen=True)
class DevicePlan:
    """How `forward` and ``Tape.backward`` would run on a GPU; ``str`` of it is a table.

    Attributes
    ----------
    cell : str
    steps, batch, rows, input_size, hidden_size : int
        T, B, steps of all sequences together, I and H.
    dtype : str
    precision : str or None
        What the operands of the products of a step are rounded to; None: those of `dtype`.
    device, arch : str
        The chip; of an architecture alone, the card whose numbers stand for it.
    exchange : {"OneBlock", "Cluster", "Grid"} or None
        How the blocks that hold W_hh together meet at each step; None: step by step, beside a
        product of the array library.
    blocks : int
        Of a group, which holds all of W_hh.
    units : int
        Hidden units of a block.
    group_rows : int
        Rows of the batch that a group owns.
    groups, groups_at_once : int
        How many share the batch, and how many of them one launch runs.
    threads : int
        Of a block.
    shared_bytes : dict of str to int
        Shared memory that a block asks for, by kernel.
    most_shared_bytes : int
        What a block of the chip may have.
    registers, spilled : dict of str to int
        Registers of a thread and bytes that it spills, by kernel.
    registers_from : str
        "compiled" by NVRTC for this chip, or "estimated" where there is none.
    seconds : dict of str to float
        Predicted times of both passes: ``recurrence``, the steps; ``products``, those over all
        steps; ``total``. They are made of assumed costs: no kernel was ever timed on a GPU.
    """

    cell: str
    steps: int
    batch: int
    rows: int
    input_size: int
    hidden_size: int
    dtype: str
    precision: str | None
    device: str
    arch: str
    exchange: str | None
    blocks: int
    units: int
    group_rows: int
    groups: int
    groups_at_once: int
    threads: int
    shared_bytes: dict[str, int]
    most_shared_bytes: int
    registers: dict[str, int]
    spilled: dict[str, int]
    registers_from: str
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts, strings and numbers, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = f"T={self.steps} B={self.batch} I={self.input_size} H={self.hidden_size}"
        dtype = self.dtype if self.precision is None else f"{self.dtype} by {self.precision}"
        rows = {"forward + backward": f"{self.cell} {dtype} {sizes}, {self.device} ({self.arch})"}
        if self.exchange is None:
            rows["W_hh"] = "read at every step, by a product of the array library"
        else:
            rows["W_hh"] = f"held by {self.blocks} blocks, which meet {_WAYS[self.exchange]}"
            rows["block"] = f"{self.units} units, {self.threads} threads"
            rows["group"] = f"{self.group_rows} rows"
            at_once = f", {self.groups_at_once} at a time"
            rows["groups"] = f"{self.groups}{at_once if self.groups_at_once < self.groups else ''}"
        for name, count in self.registers.items():
            spilled = f", {self.spilled[name]} bytes spilled" if self.spilled.get(name) else ""
            rows[name] = f"{count} registers ({self.registers_from}){spilled}"
            if self.shared_bytes.get(name):
                most = self.most_shared_bytes / 1024
                rows[name] += f", {self.shared_bytes[name] / 1024:.4g} of {most:.4g} KiB shared"
        rows["times"] = "predicted of assumed costs: nothing of this ran on a GPU"
        rows.update({f"  {name}": f"{1e3 * s:.4g} ms" for name, s in self.seconds.items()})
        return "\n".join(f"{name:<18} {value}" for name, value in rows.items())

    __repr__ = __str__


def plan_on_device(
    device: object,
    cell: Cell,
    steps: int,
    batch: int,
    rows: int,
    inputs: int,
    hidden: int,
    dtype: np.dtype[Any],
    precision: object,
) -> DevicePlan:
    """The plan of checked sizes.

    Raises
    ------
    TypeError, ValueError
        If there is no such device, or it has no kernels for the dtype or the precision.
    RuntimeError
        If `device` is a GPU of this machine, and the backend is not available.
    """
    if dtype.name not in ("float32", "float64"):
        raise TypeError(f"dtype: expected float32 or float64 on a GPU, got {dtype}")
    chip = _chip(device)
    by = read_precision(precision, dtype)
    passes = passes_for(chip, cell, dtype.itemsize, batch, hidden, by)
    tile = passes.tile
    if tile is None:
        source, shared = source_of_steps(cell.name, dtype.itemsize), {}
    else:
        source = source_of_tile(tile)
        sizes = (tile.forward_bytes, tile.backward_bytes(passes.blocks))
        shared = dict(zip(source.names, sizes, strict=True))
    registers, spilled, origin = _registers(source, passes, chip)
    recurrence = passes.step_us * steps / 1e6
    products = products_us_a_row(chip, cell, dtype.itemsize, inputs, hidden) * rows / 1e6
    return DevicePlan(
        cell=cell.name,
        steps=steps,
        batch=batch,
        rows=rows,
        input_size=inputs,
        hidden_size=hidden,
        dtype=dtype.name,
        precision=by,
        device=chip.name,
        arch=chip.arch,
        exchange=None if tile is None else tile.exchange,
        blocks=passes.blocks,
        units=0 if tile is None else tile.units,
        group_rows=0 if tile is None else tile.rows,
        groups=passes.groups,
        groups_at_once=passes.groups_at_once,
        threads=THREADS,
        shared_bytes=shared,
        most_shared_bytes=chip.shared_bytes,
        registers=registers,
        spilled=spilled,
        registers_from=origin,
        seconds={
            "recurrence": recurrence,
            "products": products,
            "total": recurrence + products,
        },
    )


def _chip(device: object) -> Chip:
    found = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    return chip_named(device) if found is None else require_cuda().chip(int(found[1] or 0))


def _registers(
    source: Source, passes: DevicePasses, chip: Chip
) -> tuple[dict[str, int], dict[str, int], str]:
    there = nvrtc_missing(chip.arch) is None
    told = compiled(source.joined(), chip.arch).told if there else {}
    if not told.keys() >= set(source.names):  # or another NVRTC tells it in other words
        about = _OF_STEP if passes.tile is None else passes.tile.about_registers
        return dict.fromkeys(source.names, about), {}, "estimated"
    registers = {name: told[name].registers for name in source.names}
    return registers, {name: told[name].spilled for name in source.names}, "compiled"
