"""`init_params`: the weights that a training begins with, drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, overload

import numpy as np

from . import checks, memory
from .cells import Cell, get_cell
from .checks import Array
from .holdings import drawn_nbytes
from .params import Params
from .stack import LayerParams

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Seed", "generator_of", "init_params"]

Seed = Union[None, int, "np.random.Generator"]


@overload
def init_params(
    cell: str | Cell,
    *,
    input_size: int,
    hidden_size: int,
    output_size: int | None = None,
    layers: None = None,
    bidirectional: Literal[False] = False,
    bias: bool = True,
    spectral_radius: float | None = None,
    forget_bias: float | None = None,
    chrono: int | None = None,
    rng: Seed = None,
    dtype: npt.DTypeLike = "float32",
) -> Params: ...


@overload
def init_params(
    cell: str | Cell,
    *,
    input_size: int,
    hidden_size: int,
    output_size: int | None = None,
    layers: int,
    bidirectional: bool = False,
    bias: bool = True,
    spectral_radius: float | None = None,
    forget_bias: float | None = None,
    chrono: int | None = None,
    rng: Seed = None,
    dtype: npt.DTypeLike = "float32",
) -> list[LayerParams]: ...


def init_params(
    cell: str | Cell,
    *,
    input_size: int,
    hidden_size: int,
    output_size: int | None = None,
    layers: int | None = None,
    bidirectional: bool = False,
    bias: bool = True,
    spectral_radius: float | None = None,
    forget_bias: float | None = None,
    chrono: int | None = None,
    rng: Seed = None,
    dtype: npt.DTypeLike = "float32",
) -> Params | list[LayerParams]:
    """Draw initial parameters.

    Every entry is uniform on (-1/sqrt(H), 1/sqrt(H)), as in ``torch.nn.RNN``, but for the biases
    that `forget_bias` or `chrono` set.

    Parameters
    ----------
    cell : str
        Name of the cell; it fixes the number of gates G.
    input_size, hidden_size : int
        I and H, at least 1.
    output_size : int, optional
        O, at least 1. Without it there is no readout (``w_ho`` and ``b_o`` are None).
    layers : int, optional
        L, at least 1: draw a stack of so many layers, the lowest first. The top has the readout.
    bidirectional : bool
        Whether each layer of the stack is a pair (forward, reverse). Not without `layers`.
    bias : bool
        Whether to create ``b_ih``, ``b_hh`` (and ``b_o``).
    spectral_radius : float, optional
        If given, each gate's block of ``w_hh`` is this number times a random orthogonal matrix
        (Haar measure), so that every eigenvalue has this modulus: below 1 the linear cell's
        gradient vanishes with distance, at 1 it keeps its norm, above 1 it explodes.
    forget_bias : float, optional
        The bias of the gate that keeps the memory, f of an LSTM and z of a GRU, in ``b_ih``; that
        in ``b_hh`` is 0. 1 is the usual choice (Jozefowicz, Zaremba, Sutskever 2015).
    chrono : int, optional
        The longest dependence that is expected, in steps, at least 3: that gate's bias is drawn
        as log(u), u uniform on (1, chrono - 1), so that units forget over all times up to it, and
        an LSTM's bias of i is its negative (Tallec and Ollivier 2018, arXiv 1804.11188, eq. 16).
    rng : int or numpy.random.Generator, optional
        Seed or generator.
    dtype : dtype
        A float dtype. The numbers are drawn in float64 and rounded, so every dtype gets the same.

    Returns
    -------
    Params, or with `layers` a list of them or of pairs

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.
    MemoryError
        If the parameters do not fit the memory.
    """
    kind = get_cell(cell)
    gates = kind.gates
    i, h = checks.size("input_size", input_size), checks.size("hidden_size", hidden_size)
    o = 0 if output_size is None else checks.size("output_size", output_size)
    out_dtype = checks.float_dtype("dtype", dtype)
    bias = checks.boolean("bias", bias)
    count = 1 if layers is None else checks.size("layers", layers)
    directions = 2 if checks.boolean("bidirectional", bidirectional) else 1
    if layers is None and directions == 2:
        raise ValueError("bidirectional: expected False without layers, got True; layers=1 is one")
    generator = generator_of(rng)
    _check_memory_bias(kind, bias, forget_bias, chrono, out_dtype)
    upper = (count - 1) * drawn_nbytes(gates, directions * h, h, 0)
    needed = directions * (drawn_nbytes(gates, i, h, o) + upper)
    memory.require_memory(needed, "drawing the parameters")
    drawing = _Drawing(kind, h, bias, spectral_radius, forget_bias, chrono, generator, out_dtype)
    if layers is None:
        return drawing.layer(i, o, has_b_o=bias)
    stack: list[LayerParams] = []
    for k in range(count):
        inputs, outputs = i if k == 0 else directions * h, o if k == count - 1 else 0
        first = drawing.layer(inputs, outputs, has_b_o=bias)
        # The readout's bias is with the forward direction.
        stack.append(
            first if directions == 1 else (first, drawing.layer(inputs, outputs, has_b_o=False))
        )
    return stack


class _Drawing(NamedTuple):
    """How the layers of one call are drawn."""

    cell: Cell
    h: int
    bias: bool
    spectral_radius: Any
    forget_bias: Any
    chrono: Any
    generator: np.random.Generator
    dtype: np.dtype[Any]

    def layer(self, i: int, o: int, *, has_b_o: bool) -> Params:
        """One direction of a layer; without a readout if `o` is 0."""
        h, gates, generator = self.h, self.cell.gates, self.generator
        params = Params(self._uniform(gates * h, i), self._uniform(gates * h, h))
        if self.spectral_radius is not None:
            radius = checks.non_negative("spectral_radius", self.spectral_radius)
            blocks = [radius * _random_orthogonal(h, generator) for _ in range(gates)]
            params.w_hh = np.concatenate(blocks).astype(self.dtype)
        if self.bias:
            params.b_ih, params.b_hh = self._uniform(gates * h), self._uniform(gates * h)
            drawn = _memory_biases(self.cell, h, self.forget_bias, self.chrono, generator)
            for gate, values in drawn.items():
                first = self.cell.gate_names.index(gate) * h
                params.b_ih[first : first + h], params.b_hh[first : first + h] = values, 0
        if o:
            params.w_ho = self._uniform(o, h)
            if has_b_o:
                params.b_o = self._uniform(o)
        return params

    def _uniform(self, *shape: int) -> Array:
        bound = 1 / np.sqrt(self.h)
        return self.generator.uniform(-bound, bound, shape).astype(self.dtype)


def _check_memory_bias(
    cell: Cell, bias: bool, forget_bias: object, chrono: object, dtype: np.dtype[Any]
) -> None:
    if forget_bias is None and chrono is None:
        return
    name = "chrono" if forget_bias is None else "forget_bias"
    if forget_bias is not None and chrono is not None:
        raise ValueError("forget_bias, chrono: expected at most one of them, got both")
    if cell.keeps is None:
        raise ValueError(f"{name}: cell {cell.name!r} has no gate that keeps its memory")
    if not bias:
        raise ValueError(f"{name}: expected bias=True, got bias=False")
    if chrono is None:
        value, most = checks.finite("forget_bias", forget_bias), float(np.finfo(dtype).max)
        if abs(value) > most:
            raise ValueError(f"forget_bias: expected at most {most:.3g} in {dtype}, got {value}")
    else:
        checks.size("chrono", chrono, least=3)


def _memory_biases(
    cell: Cell, h: int, forget_bias: Any, chrono: Any, generator: np.random.Generator
) -> dict[str, Array]:
    """The biases of H units that are not drawn as the others are, by their gates."""
    if forget_bias is not None:
        return {str(cell.keeps): np.full(h, float(forget_bias))}
    if chrono is None:
        return {}
    bias = np.log(generator.uniform(1, int(chrono) - 1, h))
    drawn = {str(cell.keeps): bias, "i": -bias}
    return {gate: values for gate, values in drawn.items() if gate in cell.gate_names}


def generator_of(rng: Seed) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng: expected None, an integer of at least 0 or a numpy.random.Generator, got {rng!r}"
        ) from None


def _random_orthogonal(n: int, generator: np.random.Generator) -> Array:
    """Haar-distributed (n, n) orthogonal matrix (Mezzadri 2007, Notices of the AMS 54, sec. 5)."""
    q, r = np.linalg.qr(generator.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diagonal(r)))
