"""`Releasing`: what lets go of its memory when a ``with`` block ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

__all__ = ["Releasing"]

Self = TypeVar("Self", bound="Releasing")


class Releasing(ABC):
    """A context manager whose end is `release`."""

    @abstractmethod
    def release(self) -> None:
        """Let go of everything that is held."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
