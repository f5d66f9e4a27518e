"""What a call of a layer is made of: its arrays by name, and their shapes.

The names and their order are those of ``csrc/bindings/xla_arguments.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..cells import CELLS, Cell
from ..layer_arguments import WEIGHTS

__all__ = ["PLACES", "ROWS", "Call", "bits"]

_STATE, _KEPT, _LAST = ("h", "c"), ("y", "c_y", "saved"), ("last_h", "last_c")
PLACES = ("x", *_STATE, *WEIGHTS, "lengths", "reset", *_KEPT, *_LAST)

# Which axis is that of the rows of the batch; weights have none.
ROWS: dict[str, int | None] = {
    **dict.fromkeys(("x", "reset", *_KEPT), 1),
    **dict.fromkeys((*_STATE, "lengths", *_LAST), 0),
    **dict.fromkeys(WEIGHTS),
}


def bits(names: Iterable[str]) -> int:
    """A number with a bit for each of `PLACES`."""
    return sum(1 << PLACES.index(name) for name in names)


@dataclass(frozen=True)
class Call:
    """How a layer is run, apart from its arrays.

    Attributes
    ----------
    name : str
        Of the cell.
    inputs : tuple of str
        Which of `PLACES` it reads, in their order; biases, lengths and resets may be absent.
    reverse : bool
    """

    name: str
    inputs: tuple[str, ...]
    reverse: bool = False

    @property
    def cell(self) -> Cell:
        return CELLS[self.name]

    @property
    def outputs(self) -> tuple[str, ...]:
        """y, and each part of the last state."""
        return ("y", *_LAST[: len(self.cell.states)])

    @property
    def kept(self) -> tuple[str, ...]:
        """What the way back reads beside the inputs."""
        return ("y", *(("c_y",) if len(self.cell.states) > 1 else ()), *self._saved)

    @property
    def _saved(self) -> tuple[str, ...]:
        return ("saved",) if self.cell.saved else ()

    @property
    def differentiable(self) -> tuple[str, ...]:
        return tuple(name for name in self.inputs if name not in ("lengths", "reset"))

    @property
    def plain(self) -> bool:
        """Whether all sequences have all steps, and are in one piece."""
        return not {"lengths", "reset"} & set(self.inputs)

    def results(self, save: bool) -> tuple[str, ...]:
        """Of the pass forward, in the order of `PLACES`."""
        found = {*self.outputs, *(self.kept if save else ())}
        return tuple(name for name in PLACES if name in found)

    def shapes(self, inputs: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
        """Of everything, by name, of inputs that have shapes."""
        given = dict(zip(self.inputs, (tuple(a.shape) for a in inputs), strict=True))
        steps, batch, _ = given["x"]
        hidden = given["w_hh"][1]
        of_steps, state = (steps, batch, hidden), (batch, hidden)
        return {
            **given,
            **{"y": of_steps, "c_y": of_steps, "saved": (steps, batch, self.cell.saved, hidden)},
            **{"last_h": state, "last_c": state},
        }
