"""`plan`: how the native backend would do a call, and what it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from . import checks
from .backends import cuda, resolve
from .budget import WHOLE, Budget, budget_for, read_budget
from .cells import Cell, get_cell
from .checks import Array
from .device_plan import DevicePlan, plan_on_device
from .holdings import moved_rows_nbytes
from .peaks import fma_peak
from .sequence_options import Integers, read_lengths
from .threads import get_num_threads

__all__ = ["DevicePlan", "Plan", "plan"]

# More than any memory holds, and few enough for all sums of sizes.
_MOST_VALUES = 1 << 48


@dataclass(frozen=True)
class Plan:
    """How a call would be done, as `plan` found it; ``str`` of it is a table, `to_dict` for JSON.

    Attributes
    ----------
    cell : str
    steps, batch, input_size, hidden_size : int
    rows : int
        Steps of all sequences together: T * B, or the sum of `lengths`.
    output_size : int or None
        Not None for ``value_and_grad``.
    dtype, isa : str
    threads : int
        How many threads take part.
    split : {"slices", "rows", "hidden", "pipeline"}
        How they share the work. "slices": each takes some rows of the batch through all steps and
        to their weight gradients, and waits for nobody. "rows": each takes some rows of the batch
        through the steps, and they share the products of each time block. "hidden": each takes some
        hidden units, and waits for the others at every step. "pipeline": one runs through the
        steps, another computes the products of the time blocks beside it.
    block_steps : int
        Steps of a time block, whose data stays in the second-level cache.
    sum_steps : int
        Steps over which a weight gradient is summed in registers before the sum is added to the
        array. It depends on the shape alone, and so do the bits of the result.
    project_first : bool
        Whether W_x x_t of a whole block is computed in one product before its steps; else each step
        computes its own.
    flops : float
        Floating-point operations of the products, two for a multiply-add.
    nbytes : float
        Bytes of the arrays that grow with T (x, y, dy, dx, c, gates), counted each time that one
        has to be read or written.
    scratch_nbytes : int
        Bytes that one call takes beside its arguments and results; up to 64 MiB are kept for the
        next call. ``value_and_grad`` keeps the states and gates in it. For ``Tape.backward`` it is
        that of a tape with ``save="gates"``.
    saved_nbytes : int
        Bytes that are saved for the backward pass, in that scratch memory or in such a tape:
        T * B * H values for each part of the state and, for a gated cell, 4 T * B * H for its
        gates. With a budget, those of one segment.
    segment_steps, group_segments : int
        With ``memory_limit=`` or ``checkpoint_every=``: steps whose states are kept at a time, and
        segments whose borders are; 0 where all are.
    machine : str
        Whose rates the times are predicted with: the kind of CPU that this one is, or, if none of
        those that are known, is taken for.
    nominal_peak : float
        GF/s of that kind's fused multiply-adds in `dtype` on one thread with `isa`.
    fma_peak, fma_peak_loads : float
        The same as measured here, once in a process, for about 20 ms: in registers, and in the
        register tile of a product, whose operands come from the first-level cache. They tell how
        far the prediction may be off; it does not depend on them.
    seconds : dict of str to float
        Predicted times of forward and backward. Two lower bounds: ``arithmetic``, `flops` at the
        nominal peak of all threads, and ``memory``, `nbytes` at the rate at which they all read
        memory. What the model
        adds up: ``recurrence``, the steps one after the other; ``products``, what is done block by
        block; ``exchange``, where threads wait for each other and read what others wrote. And the
        ``total``: less than their sum where they overlap, and without the overhead of a call from
        Python, 20 to 40 us. The rates are nominal, those of `machine`, not measured here
        (docs/performance.md). A call measures what waiting costs and may choose another split, and
        so may `forward` or ``backward`` alone.
    """

    cell: str
    steps: int
    batch: int
    rows: int
    input_size: int
    hidden_size: int
    output_size: int | None
    dtype: str
    isa: str
    threads: int
    split: str
    block_steps: int
    sum_steps: int
    project_first: bool
    flops: float
    nbytes: float
    scratch_nbytes: int
    saved_nbytes: int
    segment_steps: int
    group_segments: int
    machine: str
    nominal_peak: float
    fma_peak: float
    fma_peak_loads: float
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts, strings and numbers, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        call = "forward + backward" if self.output_size is None else "value_and_grad"
        sizes = f"T={self.steps} B={self.batch} I={self.input_size} H={self.hidden_size}"
        if self.rows != self.steps * self.batch:
            sizes += f" N={self.rows}"
        if self.output_size is not None:
            sizes += f" O={self.output_size}"
        threads = f"{self.threads}, split by {self.split}" if self.threads > 1 else "1"
        rows = {
            call: f"{self.cell} {self.dtype} {sizes}, {self.isa}",
            "threads": threads,
            "time blocks": f"{self.block_steps} steps, summed by {self.sum_steps}",
            "projection": "a block at once" if self.project_first else "with each step",
            "flops": f"{self.flops / 1e9:.4g} G",
            "bytes": f"{self.nbytes / 1e6:.4g} MB",
            "scratch": f"{self.scratch_nbytes / 1e6:.4g} MB",
            "saved": f"{self.saved_nbytes / 1e6:.4g} MB",
        }
        if self.segment_steps:
            group = self.group_segments
            groups = f", borders of {group} segments at a time" if group else ""
            rows["kept"] = f"{self.segment_steps} steps at a time{groups}"
        rows["FMA peak"] = (
            f"{self.fma_peak:.0f} GF/s a thread, {self.fma_peak_loads:.0f} with loads; "
            f"{self.nominal_peak:.0f} nominal"
        )
        rows["times"] = f"predicted, at nominal rates ({self.machine}), not measured here"
        rows.update({f"  {name}": f"{1e3 * s:.4g} ms" for name, s in self.seconds.items()})
        return "\n".join(f"{name:<18} {value}" for name, value in rows.items())

    __repr__ = __str__


@overload
def plan(
    cell: str | Cell,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
    dtype: npt.DTypeLike = "float32",
    *,
    output_size: int | None = None,
    lengths: Integers | None = None,
    threads: int | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    device: None = None,
    precision: None = None,
) -> Plan: ...


@overload
def plan(
    cell: str | Cell,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
    dtype: npt.DTypeLike = "float32",
    *,
    output_size: None = None,
    lengths: Integers | None = None,
    threads: None = None,
    memory_limit: None = None,
    checkpoint_every: None = None,
    device: str,
    precision: str | None = None,
) -> DevicePlan: ...


def plan(
    cell: str | Cell,
    steps: int,
    batch: int,
    input_size: int,
    hidden_size: int,
    dtype: npt.DTypeLike = "float32",
    *,
    output_size: int | None = None,
    lengths: Integers | None = None,
    threads: int | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Plan | DevicePlan:
    """How the native backend would do a call of these sizes: ``print(bptt.plan(...))``.

    Parameters
    ----------
    cell : {"linear", "tanh", "relu", "lstm", "gru"}
    steps, batch, input_size, hidden_size : int
        T, B, I and H.
    dtype : {"float32", "float64"}
    output_size : int, optional
        O. With it the plan is that of `value_and_grad` with a loss at every step, without it that
        of `forward` and ``Tape.backward`` together.
    lengths : (B,) integers, optional
        How many steps each sequence has, from 0 to T: as `forward` takes them. Bytes and times are
        those of all their steps, which a batch of several lengths is computed by.
    threads : int, optional
        The most that may take part; `get_num_threads` if not given.
    memory_limit, checkpoint_every : int, optional
        As `value_and_grad` takes them; only together with `output_size`.
    device : str, optional
        A GPU in place of the native backend: an architecture, as "sm_90", for which no GPU need be
        there, or "cuda" or "cuda:1" of this machine. With it only `lengths` of the keywords above.
    precision : {"tf32", "bfloat16", "float16"}, optional
        As `forward` takes it; only together with `device`.

    Returns
    -------
    Plan, or DevicePlan with `device`

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value, or the limit cannot be met.
    RuntimeError
        If the backend is not available.

    Examples
    --------
    >>> print(bptt.plan("tanh", 1000, 1, 1, 64))                        # doctest: +SKIP
    """
    kind = get_cell(cell)
    steps = checks.size("steps", steps, least=0)
    batch = checks.size("batch", batch, least=0)
    input_size = checks.size("input_size", input_size)
    hidden_size = checks.size("hidden_size", hidden_size)
    outputs = None if output_size is None else checks.size("output_size", output_size)
    number = get_num_threads() if threads is None else checks.num_threads("threads", threads)
    floats = checks.float_dtype("dtype", dtype)
    if device is None:
        resolve("native", kind, floats)
    elif kind.name not in cuda.CELLS:
        raise TypeError(f"backend 'cuda' does not compute cell {kind.name!r}")
    values = steps * batch * max(input_size, hidden_size, outputs or 0)
    if max(values, hidden_size * (input_size + hidden_size + (outputs or 0))) > _MOST_VALUES:
        raise ValueError(f"sizes: expected arrays of at most {_MOST_VALUES} values")

    offsets = None if lengths is None else _offsets(lengths, steps, batch)
    moved = 0
    if offsets is not None and offsets[-1] < steps * batch:  # else rows are those of x
        moved = moved_rows_nbytes(steps * batch, 0)  # the index alone
    if offsets is not None:
        steps = len(offsets) - 1
        if (np.diff(offsets) == batch).all():  # as long as the longest
            offsets = None
    rows = steps * batch if offsets is None else int(offsets[-1])

    if device is not None:
        others = {
            "output_size": output_size,
            "threads": threads,
            "memory_limit": memory_limit,
            "checkpoint_every": checkpoint_every,
        }
        if given := [name for name, value in others.items() if value is not None]:
            raise ValueError(f"{', '.join(given)}: expected None with device")
        return plan_on_device(
            device, kind, steps, batch, rows, input_size, hidden_size, floats, precision
        )
    if precision is not None:
        raise ValueError(f"precision: expected None without device, got {precision!r}")

    limit, budget = read_budget(memory_limit, checkpoint_every)
    if outputs is None and (limit is not None or budget != WHOLE):
        raise ValueError("memory_limit, checkpoint_every: expected output_size, too, got None")

    from .compiled import core as _core

    def forecast(budget: Budget) -> dict[str, Any]:
        sizes = (steps, batch, input_size, hidden_size, outputs or 0)
        cut = (budget.segment_steps, budget.group_segments)
        found: dict[str, Any] = _core.forecast(
            kind.name, *sizes, floats.name, number, *cut, offsets, moved=moved > 0
        )
        return found

    if limit is not None:
        grain = forecast(Budget(1))["block_steps"]
        budget = budget_for(
            limit, steps, grain, lambda b: int(forecast(b)["scratch_nbytes"]) + moved
        )
    found = forecast(budget)
    del found["begins"], found["slices"]
    kept = min(steps, budget.segment_steps or steps)
    kept_rows = kept * batch if offsets is None else int(offsets[kept])  # the first are the most
    width = len(kind.states) + _core.CELLS[kind.name]["saved"]
    isa, peak = _core.isa(), found.pop("peak")
    seconds = {
        "arithmetic": found["flops"] / peak / found["threads"],
        "memory": found["nbytes"] / found.pop("memory_rate") / found["threads"],
    }
    for name in ("recurrence", "products", "exchange", "total"):
        seconds[name] = found.pop(name)
    return Plan(
        cell=kind.name,
        steps=steps,
        batch=batch,
        rows=rows,
        input_size=input_size,
        hidden_size=hidden_size,
        output_size=outputs,
        dtype=floats.name,
        isa=isa,
        saved_nbytes=width * kept_rows * hidden_size * floats.itemsize,
        segment_steps=budget.segment_steps,
        group_segments=budget.group_segments,
        nominal_peak=peak / 1e9,
        fma_peak=fma_peak(isa, floats.name, loads=False),
        fma_peak_loads=fma_peak(isa, floats.name, loads=True),
        seconds=seconds,
        **found,
    )


def _offsets(lengths: object, steps: int, batch: int) -> Array:
    """How many rows a batch of such lengths has before each step that is there, and in all."""
    read = read_lengths(lengths, steps, (steps, batch), batch)
    at_least = np.arange(int(read.max(initial=0)))
    active = batch - np.searchsorted(np.sort(read), at_least, side="right")
    return np.concatenate([[0], np.cumsum(active)]).astype(np.int64)
