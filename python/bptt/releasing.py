"""`Releasing`: what lets go of its memory when a ``with`` block ends."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

__all__ = ["Releasing"]

Self = TypeVar("Self", bound="Releasing")


class Releasing:
    """A context manager whose end is `release`."""

    def release(self) -> None:
        """Let go of everything that is held."""
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
