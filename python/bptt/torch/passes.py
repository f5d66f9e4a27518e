"""One direction of one layer on tensors: the pass forward, and BPTT, by a backend of `bptt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..backends import Backend, for_rows, resolve
from ..backends.cuda import Kept
from ..backends.protocol import Incoming, Layer, Record, Request
from ..cells import Cell
from ..checks import Array
from ..layer_arguments import WEIGHTS
from ..params import Params
from ..states import as_tuple
from ..threads import at_most
from . import direct, gpu_passes
from .arrays import DTYPES, array_of, tensor_of

__all__ = ["Direction", "Inputs", "Saved"]


class Inputs(NamedTuple):
    """What a pass reads.

    Attributes
    ----------
    x : (T, B, I), or (N, I) of packed rows
    state : tuple of (B, H), or of None
        Each part of the initial state; None stands for zeros.
    weights : tuple of tensors or None
        As `WEIGHTS` has them, which is also the order of PyTorch's flat weights of a direction;
        biases may be None.
    """

    x: Tensor
    state: tuple[Tensor | None, ...]
    weights: tuple[Tensor | None, ...]

    def flat(self) -> tuple[Tensor | None, ...]:
        return (self.x, *self.state, *self.weights)


class Saved(NamedTuple):
    """What BPTT reads of the pass forward: each part of the state after every step, and gates. Not
    the last state, which the caller may change in place."""

    history: tuple[Tensor, ...]
    gates: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Direction:
    """How a layer is run.

    Attributes
    ----------
    cell : Cell
    offsets : (T + 1,) int64, or None
        How many packed rows there are before each step; None of dense (T, B, I).
    kept : dict
        What was made of the offsets on a GPU, for all directions and both passes.
    """

    cell: Cell
    offsets: Array | None = None
    kept: Kept = field(default_factory=dict)

    @property
    def parts(self) -> int:
        """How many arrays a state is."""
        return len(self.cell.states)

    def inputs(self, flat: Sequence[Tensor | None]) -> Inputs:
        """`Inputs.flat`, named again."""
        x, *more = flat[: 1 + self.parts + len(WEIGHTS)]
        assert x is not None
        return Inputs(x, tuple(more[: self.parts]), tuple(more[self.parts :]))

    def saved(self, flat: Sequence[Tensor]) -> Saved:
        """The history and the gates in a row, named again."""
        return Saved(tuple(flat[: self.parts]), tuple(flat[self.parts :]))

    def forward(self, flat: Sequence[Tensor | None], save: str) -> tuple[Tensor, ...]:
        """Each part of the state after every step, and after the last, and what is saved beside:
        `save` is one of ``protocol.SAVE``. `flat` is ``Inputs.flat()``."""
        x = flat[0]
        assert x is not None
        if not gpu_passes.on_host(x):
            return gpu_passes.forward(self, flat, save == "gates")
        if self._direct(x):
            found = direct.forward(self.cell, flat, self.offsets, False, save == "gates")
            if found is not None:
                return found
        layer = self._layer(self.inputs(flat))
        with at_most(direct.num_threads()):
            record = self._backend(layer).forward(layer, save)
        return tuple(map(tensor_of, (*record.history, *record.state, *record.saved)))

    def backward(
        self,
        inputs: Inputs,
        saved: Saved,
        incoming: Sequence[Tensor | None],
        needed: Sequence[bool],
        by_row: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """The gradients of ``inputs.flat()`` that are needed, of what comes in at y and at each
        part of the state after the last step; `by_row`: of weights those of each row of the batch,
        (B, ...).

        Raises
        ------
        RuntimeError
            If gradients of rows are asked for on a GPU.
        """
        if not gpu_passes.on_host(inputs.x):
            if by_row:
                raise RuntimeError(
                    "torch.func: gradients of weights by row are not computed on a GPU yet"
                )
            return gpu_passes.backward(self, inputs.flat(), *saved, incoming, needed)
        if self._direct(inputs.x):
            flat, kept = inputs.flat(), (*saved.history, *saved.gates)
            given = (self.cell, flat, self.offsets, False, kept, incoming, needed, by_row)
            found = direct.backward(*given)
            if found is not None:
                return found
        return self._backward_of_arrays(inputs, saved, incoming, needed, by_row)

    def _backward_of_arrays(
        self,
        inputs: Inputs,
        saved: Saved,
        incoming: Sequence[Tensor | None],
        needed: Sequence[bool],
        by_row: bool,
    ) -> tuple[Tensor | None, ...]:
        """By whatever backend there is."""
        layer = self._layer(inputs)
        dy, *dlast = incoming
        history, gates = (tuple(array_of(t) for t in each) for each in saved)
        record = Record(history, (), gates)
        into_state = None
        if any(d is not None for d in dlast):
            into_state = tuple(_array_or_none(d) for d in dlast)
        nothing = (None,) * (self.parts - 1)
        given = Incoming((_array_or_none(dy), *nothing), into_state)
        names = ("x", *("state",) * self.parts, *WEIGHTS)
        wanted = frozenset(name for name, is_ in zip(names, needed, strict=True) if is_)
        request = Request(wanted=wanted, per_row="gradient" if by_row else None)
        with at_most(direct.num_threads()):
            found = self._backend(layer).backward(layer, record, given, request)
        state = as_tuple(found.state) if "state" in wanted else (None,) * self.parts
        grads = (found.x, *state, *(getattr(found, name) for name in WEIGHTS))
        return tuple(
            tensor_of(g) if is_ and g is not None else None
            for g, is_ in zip(grads, needed, strict=True)
        )

    def save(self, x: Tensor, gates: bool = True) -> str:
        """What to save of a pass over `x` where others than the backend handle it: gates that are
        one array with the rows of y, if they are wanted and it has such, else nothing."""
        if gates and gpu_passes.on_host(x):
            gates = self._of_dtype(DTYPES[x.dtype]).one_saved
        return "gates" if gates else "minimal"

    def repeated(self, times: int) -> Direction:
        """The pass of so many batches at once; of each row they lie side by side."""
        offsets = None if self.offsets is None else times * self.offsets
        return replace(self, offsets=offsets, kept={})

    def batch(self, x: Tensor) -> int:
        """How many sequences there are."""
        return x.shape[1] if self.offsets is None else int(self.offsets[1])

    def _direct(self, x: Tensor) -> bool:
        """Whether the compiled kernels are what computes this."""
        return self._of_dtype(DTYPES[x.dtype]).name == "native"

    def _layer(self, inputs: Inputs) -> Layer:
        x = array_of(inputs.x)
        params = Params.trusted(*map(_array_or_none, inputs.weights))  # type: ignore[arg-type]
        state = tuple(map(_array_or_none, inputs.state))
        if state[0] is None:
            shape = (self.batch(inputs.x), params.hidden_size)
            state = tuple(np.zeros(shape, x.dtype) for _ in state)
        return Layer(self.cell, params, x, state, self.offsets)  # type: ignore[arg-type]

    def _backend(self, layer: Layer) -> Backend:
        return for_rows(self._of_dtype(layer.x.dtype), self.offsets)

    def _of_dtype(self, dtype: Any) -> Backend:
        return resolve("auto", self.cell, dtype)


def _array_or_none(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else array_of(tensor)
