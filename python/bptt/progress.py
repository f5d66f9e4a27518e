"""A bar that shows how far a loop has come, where it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

__all__ = ["watched"]

Item = TypeVar("Item")


def watched(
    items: Iterable[Item], progress: object, total: int, what: str, unit: str
) -> Iterable[Item]:
    """`items`, with a bar if `progress` is true.

    Raises
    ------
    ImportError
        If tqdm is not installed.
    """
    if not progress:
        return items
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError("progress: needs tqdm (pip install tqdm)") from None
    bar: Iterable[Item] = tqdm(items, total=total, desc=what, unit=unit)
    return bar
