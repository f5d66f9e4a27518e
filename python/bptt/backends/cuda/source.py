"""The text that is compiled for a layer: the sources of csrc/cuda in one, and kernels that name it.

One text, for a compiler's cache has no folders; and kernels take pointers and 64-bit integers
alone, since that is all that can be passed on from Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from .mma_tiles import MmaTile
from .tiles import THREADS, Cut

__all__ = ["CELLS", "Source", "source_of_steps", "source_of_tile"]

_POLICIES = {
    "linear": "Elman<{0}, Linear<{0}>>",
    "tanh": "Elman<{0}, Tanh<{0}>>",
    "relu": "Elman<{0}, Relu<{0}>>",
    "lstm": "Lstm<{0}>",
    "gru": "Gru<{0}>",
}
CELLS = frozenset(_POLICIES)
_TYPES = {4: "float", 8: "double"}

_OF_FORWARD = """Index steps, Index batch, const Index* offsets, Index hidden,
    const T* projected, const T* w_hh, const T* b_hh, const T* state, const T* state_c,
    T* y, T* c, T* saved"""
_FORWARD = """{{steps, batch, offsets}, hidden, projected, w_hh, b_hh, state, state_c,
                      y, c, saved}"""
_OF_BACKWARD = """Index steps, Index batch, const Index* offsets, Index hidden,
    const T* w_hh, const T* state, const T* state_c, const T* y, const T* c, const T* saved,
    const T* dy, const T* dc, const T* dlast, const T* dlast_c,
    T* delta, T* dstate, T* dstate_c"""
_BACKWARD = """{{steps, batch, offsets}, hidden, w_hh, state, state_c, y, c, saved,
                      dy, dc, dlast, dlast_c, delta, dstate, dstate_c}"""

_TILE = f"""
namespace bptt::cuda {{
using T = @type;
using Cut = @tile<@first, @cell, @exchange, @units, @columns, @threads, @rows@more>;
static_assert(forward_bytes<Cut>() == @forward && backward_bytes<Cut>(@blocks) == @backward);

extern "C" __global__ void __launch_bounds__(@threads, 1)
forward({_OF_FORWARD},
    Index blocks, Index first_group, unsigned* counters) {{
  const ForwardPass<T> p{_FORWARD};
  hold_forward<Cut>(p, static_cast<int>(blocks), counters, first_group);
}}

extern "C" __global__ void __launch_bounds__(@threads, 1)
backward({_OF_BACKWARD},
    Index blocks, Index first_group, unsigned* counters, T* exchange) {{
  const BackwardPass<T> p{_BACKWARD};
  hold_backward<Cut>(p, static_cast<int>(blocks), counters, exchange, first_group);
}}
}}
"""

_STEPS = f"""
namespace bptt::cuda {{
using T = @type;

extern "C" __global__ void __launch_bounds__(@threads)
one_forward({_OF_FORWARD},
    Index t, const T* recurrent) {{
  const ForwardPass<T> p{_FORWARD};
  step_forward<T, @cell>(p, t, recurrent);
}}

extern "C" __global__ void __launch_bounds__(@threads)
one_backward({_OF_BACKWARD},
    Index t, const T* recurrent, T* carry) {{
  const BackwardPass<T> p{_BACKWARD};
  step_backward<T, @cell>(p, t, recurrent, carry);
}}
}}
"""


@dataclass(frozen=True)
class Source:
    """Kernels in C++.

    Attributes
    ----------
    headers : tuple of str
        Of csrc/, that they need beside the words.
    text : str
    names : tuple of str
        Of the kernels.
    """

    headers: tuple[str, ...]
    text: str
    names: tuple[str, ...]

    def joined(self, words: str = "cuda/words.cuh", beside: Path | None = None) -> str:
        """All of it in one text; `words` is the header that kernels speak in, in csrc/ or in a
        folder `beside` it."""
        return _joined((words, *self.headers), beside) + self.text


@cache
def source_of_tile(tile: Cut) -> Source:
    """Kernels ``forward`` and ``backward`` of a tile."""
    name = _TYPES[tile.itemsize]
    first, more = "T", ""
    if isinstance(tile, MmaTile):
        first, more = tile.form.name, f", {tile.ahead.held}, {tile.back.held}"
    text = _filled(
        _TILE,
        type=name,
        tile=type(tile).__name__,
        first=first,
        more=more,
        cell=_POLICIES[tile.cell].format(name),
        exchange=tile.exchange,
        units=tile.units,
        columns=tile.columns,
        threads=THREADS,
        rows=tile.rows,
        blocks=tile.blocks,
        forward=tile.forward_bytes,
        backward=tile.backward_bytes(tile.blocks),
    )
    return Source(
        ("cuda/hold_forward.cuh", "cuda/hold_backward.cuh"), text, ("forward", "backward")
    )


@cache
def source_of_steps(cell: str, itemsize: int) -> Source:
    """Kernels ``one_forward`` and ``one_backward`` of a cell."""
    name = _TYPES[itemsize]
    text = _filled(_STEPS, type=name, cell=_POLICIES[cell].format(name), threads=THREADS)
    return Source(("cuda/step.cuh",), text, ("one_forward", "one_backward"))


def _filled(text: str, **values: object) -> str:
    return re.sub(r"@(\w+)", lambda found: str(values[found[1]]), text)


@cache
def _joined(headers: tuple[str, ...], beside: Path | None) -> str:
    """The headers with all that they include, each of them once."""
    seen: set[str] = set()
    parts = ["#define BPTT_ISA cuda\n"]
    for name in headers:
        _append(name, beside, seen, parts)
    return "".join(parts)


def _append(name: str, beside: Path | None, seen: set[str], parts: list[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    for line in _read(name, beside).splitlines(keepends=True):
        included = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
        if included:
            _append(included[1], beside, seen, parts)
        elif not re.match(r"\s*#\s*pragma\s+once", line):
            parts.append(line)


def _read(name: str, beside: Path | None) -> str:
    """A header of csrc/: in a wheel it lies in the package, in a checkout near it."""
    roots: list[Any] = [files("bptt") / "csrc", Path(__file__).parents[4] / "csrc"]
    for root in (*roots, *((beside,) if beside else ())):
        file = root
        for part in name.split("/"):
            file = file / part
        if file.is_file():
            found: str = file.read_text(encoding="utf-8")
            return found
    raise FileNotFoundError(f"{name}: this installation of bptt lacks a source of its kernels")
