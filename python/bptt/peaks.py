"""What the multiply-adds of this machine reach, measured once in a process."""

from __future__ import annotations

from functools import cache

__all__ = ["fma_peak"]


@cache
def fma_peak(isa: str, dtype: str, loads: bool) -> float:
    """GF/s of one thread with the instruction set in use, which is `isa`.

    In registers; or, with `loads`, in the register tile of a product, whose operands come from the
    first-level cache. The first call takes about 10 ms.
    """
    from .compiled import core as _core

    found: float = _core.fma_peak(dtype, 1, loads)
    return found
