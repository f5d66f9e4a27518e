"""A `RowMap` on a GPU: the same index, applied by the library that owns the arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..array_libraries import Place
from ..checks import Array
from ..row_map import RowMap

__all__ = ["DeviceRows"]


class DeviceRows:
    """What `RowMap` does with arrays of the host, of arrays like `like`. A layer's are (N, ...)."""

    def __init__(self, rows: RowMap, place: Place, like: Any) -> None:
        self.map = rows
        self._place, self._library = place, place.library
        self._like = like
        # By what they are of, and by the arrays of the map that they are made from.
        self._kept: dict[tuple[str, int, int], Any] = {}

    @cached_property
    def turned(self) -> DeviceRows:
        """Those of the reverse direction of the same layer."""
        found = DeviceRows(self.map.turned, self._place, self._like)
        found._kept = self._kept  # the same arrays, with first and last in each other's place
        return found

    @property
    def steps(self) -> int:
        """Of the layer."""
        offsets = self.map.offsets
        return self.map.inner[0] if offsets is None else len(offsets) - 1

    @cached_property
    def _index(self) -> Any:
        return None if self.map.index is None else self.upload(self.map.index)

    def upload(self, index: Array) -> Any:
        """Integers, for `take` and `put`."""
        return self._library.upload(np.ascontiguousarray(index, np.int64), self._like)

    def _once(
        self, name: str, at: Array | None, unused: Array | None, make: Callable[[], Array]
    ) -> Any:
        key = (name, id(at), id(unused))
        if key not in self._kept:
            self._kept[key] = self.upload(make())
        return self._kept[key]

    def upload_floats(self, values: Array) -> Any:
        """One of each row, say."""
        return self._library.upload(values, self._like)

    def gather(self, array: Any) -> Any:
        """The layer's rows (N, ...) of the caller's (*shape, ...)."""
        more = array.shape[len(self.map.shape) :]
        rows = array.reshape(math.prod(self.map.shape), *more)
        return rows if self._index is None else self._library.take(rows, self._index)

    def scatter(self, array: Any) -> Any:
        """The caller's (*shape, ...) of the layer's rows (N, ...); zeros where it has none."""
        more = array.shape[1:]
        if self._index is None:
            return array.reshape(*self.map.shape, *more)
        count = math.prod(self.map.shape)
        make = self._library.empty if count == len(array) else self._library.zeros
        found = make((count, *more), array)
        self._library.put(found, self._index, array)
        return found.reshape(*self.map.shape, *more)

    @property
    def moves_state(self) -> bool:
        """Whether `gather_state` makes new arrays."""
        return self.map.first is not None or self.map.anew is not None

    def gather_state(self, state: Sequence[Any]) -> tuple[Any, ...]:
        return self._enter(state, self.map.first, self.map.anew)

    def scatter_state(self, state: Sequence[Any]) -> tuple[Any, ...]:
        return self._leave(state, self.map.last, None)

    def gather_dstate(self, dstate: Sequence[Any]) -> tuple[Any, ...]:
        """A part may be None."""
        return self._enter(dstate, self.map.last, None)

    def scatter_dstate(self, dstate: Sequence[Any]) -> tuple[Any, ...]:
        return self._leave(dstate, self.map.first, self.map.anew)

    def _enter(
        self, state: Sequence[Any], at: Array | None, unused: Array | None
    ) -> tuple[Any, ...]:
        if at is None and unused is None:
            return tuple(state)
        used = np.arange(self.map.batch) if unused is None else np.flatnonzero(~unused)
        source = self._once("used", None, unused, lambda: used)
        target = source
        if at is not None:
            target = self._once("into", at, unused, lambda: at[used])
        found = []
        for s in state:
            part = None
            if s is not None:
                part = self._library.zeros((self.map.inner_batch, s.shape[1]), s)
                self._library.put(part, target, self._library.take(s, source))
            found.append(part)
        return tuple(found)

    def _leave(
        self, state: Sequence[Any], at: Array | None, unused: Array | None
    ) -> tuple[Any, ...]:
        library = self._library
        if at is not None:
            index = self._once("at", at, None, lambda: at)
            state = [library.take(s, index) for s in state]
        if unused is not None:
            nowhere = self._once("nowhere", None, unused, lambda: np.flatnonzero(unused))
            state = [library.copy(s) for s in state]
            for s in state:
                library.put(s, nowhere, library.zeros((len(nowhere), s.shape[1]), s))
        return tuple(state)
