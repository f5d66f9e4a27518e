"""`GpuTape`: the record of a forward pass on a GPU."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

from ..array_libraries import Library
from ..backends.cuda import DeviceLayer, DeviceRecord, backward
from ..grads import Grads, grads_of
from ..releasing import Releasing
from ..states import GivenState, as_given, read_state
from ..wanted import Wanted, read_wanted
from .concerned import expect_none
from .inputs import reader
from .rows import DeviceRows

__all__ = ["GpuTape"]


class GpuTape(Releasing):
    """What `bptt.forward` returns for arrays on a GPU: as much of `bptt.Tape` as there is there.

    Arrays are those of the library that owns x, on its device. docs/cuda.md says which calls wait
    for the device.
    """

    def __init__(
        self,
        layer: DeviceLayer,
        rows: DeviceRows,
        record: DeviceRecord,
        save: str,
        state_given: bool,
    ) -> None:
        self._layer = layer
        self._rows = rows
        self._record: DeviceRecord | None = record
        self._save = save
        self._state_given = state_given
        self._shown: dict[int, Any] = {}

    @property
    def y(self) -> Any:
        """(T, B, H), the hidden state S_t after every step; its rows are those of x."""
        return self._history(0)

    @property
    def c(self) -> Any:
        """(T, B, H), the memory c_t of an LSTM after every step.

        Raises
        ------
        AttributeError
            If the cell has none.
        """
        if len(self._layer.cell.states) < 2:
            raise AttributeError(f"cell {self.cell!r} has no memory c beside y")
        return self._history(1)

    def _history(self, part: int) -> Any:
        states = self._held().history[part]
        if part not in self._shown:
            with self._on_device():
                self._shown[part] = self._library.given(self._rows.scatter(states))
        return self._shown[part]

    @property
    def state(self) -> GivenState:
        """(B, H), the state after the last step of each sequence; of an LSTM the pair (h, c)."""
        with self._on_device():
            found = self._rows.scatter_state(self._held().state)
            return as_given(tuple(map(self._library.given, found)))

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self._layer.cell.name

    @property
    def save(self) -> str:
        """What `forward` was asked to save: "gates" or "minimal"."""
        return self._save

    @property
    def backend(self) -> str:
        """ "cuda" """
        return "cuda"

    @property
    def precision(self) -> str | None:
        """What the products of a step were rounded to, as `forward` was asked; None: nothing."""
        return self._layer.precision

    @property
    def nbytes(self) -> int:
        """Bytes on the device held for `backward` beyond the caller's own arrays; 0 once
        released."""
        if self._record is None:
            return 0
        held = [*self._record.history, *self._record.state]
        if self._record.saved is not None:
            held.append(self._record.saved)
        if not self._state_given or self._rows.moves_state:
            held += self._layer.state
        if self._rows.map.index is not None:
            held += [self._layer.x, *self._shown.values()]
        itemsize = self._layer.params.dtype.itemsize
        return sum(math.prod(array.shape) * itemsize for array in held)

    def backward(
        self,
        dy: Any = None,
        dstate: GivenState | None = None,
        *,
        dc: Any = None,
        wanted: Wanted = None,
        out: Grads | None = None,
        accumulate: bool = False,
        truncate: int | None = None,
        detach_every: int | None = None,
        per_row: str | None = None,
    ) -> Grads:
        """Back-propagate through time; see ``Tape.backward``.

        Parameters
        ----------
        dy, dc : (T, B, H) array, optional
            Gradients with respect to `y` and `c`.
        dstate : (B, H) array, or pair of them, optional
            Gradient with respect to the final `state`.
        wanted : str or tuple of str, optional
            Names of `Grads`, or "params".
        out, accumulate, truncate, detach_every, per_row
            Not on a GPU yet.

        Returns
        -------
        Grads
            New arrays on the device.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, or lives elsewhere.
        RuntimeError
            If the tape was released.
        MemoryError
            If the device has too little.
        """
        record, layer, rows = self._held(), self._layer, self._rows
        expect_none(
            out=out,
            accumulate=accumulate,
            truncate=truncate,
            detach_every=detach_every,
            per_row=per_row,
        )
        names = read_wanted(wanted, readout=False)
        if dy is None and dstate is None and dc is None:
            raise ValueError("dy, dstate, dc: expected at least one of them, got None for all")
        if dc is not None and len(layer.cell.states) < 2:
            raise ValueError(f"dc: cell {self.cell!r} has no memory c, got an array")
        like = ("the tape", layer.params.dtype)
        shape, of_state = (*rows.map.shape, layer.hidden), (rows.map.batch, layer.hidden)
        with self._on_device():
            read = reader(layer.place)
            given = [
                None if d is None else read(name, d, shape, like, "tape.y")
                for name, d in (("dy", dy), ("dc", dc))
            ]
            final = None
            if dstate is not None:
                final = read_state(
                    "dstate",
                    dstate,
                    layer.cell,
                    of_state,
                    like,
                    "tape.state",
                    partly=True,
                    read=read,
                )
            dhistory = tuple(None if d is None else rows.gather(d) for d in given)
            dlast = None if final is None else rows.gather_dstate(final)
            found = backward(layer, record, dhistory, dlast, names)
            return grads_for_caller(layer.place.library, rows, found)

    @property
    def _library(self) -> Library:
        return self._layer.place.library

    def _on_device(self) -> AbstractContextManager[Any]:
        return self._library.on(self._layer.place.device)

    def release(self) -> None:
        """Let go of everything that is held; `backward` and `y` raise RuntimeError from now on."""
        self._record = None
        self._shown.clear()
        self._layer = self._layer.without_arrays()
        self._rows = DeviceRows(self._rows.map, self._layer.place, None)

    def _held(self) -> DeviceRecord:
        if self._record is None:
            raise RuntimeError("the tape was released; call bptt.forward again")
        return self._record

    def __repr__(self) -> str:
        if self._record is None:
            return f"GpuTape({self.cell!r}, released)"
        shape = (*self._rows.map.shape, self._layer.hidden)
        return f"GpuTape({self.cell!r}, y={shape}, on {self._layer.place}, nbytes={self.nbytes})"


def grads_for_caller(library: Library, rows: DeviceRows, found: dict[str, Any]) -> Grads:
    """`Grads` of a layer's gradients, with those of x and of the state in the caller's rows."""
    of_caller = {name: library.given(g) for name, g in found.items() if name not in ("x", "state")}
    if "x" in found:
        of_caller["x"] = library.given(rows.scatter(found["x"]))
    if "state" in found:
        state = rows.scatter_dstate(found["state"])
        of_caller["state"] = as_given(tuple(map(library.given, state)))
    return grads_of(of_caller)
