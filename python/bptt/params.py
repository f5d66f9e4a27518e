"""`Params`, the weights of one recurrent layer with its readout."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks, files, layouts, param_arrays
from .array_libraries import Place, numpy_dtype, place_of
from .cells import Cell, get_cell
from .checks import Array
from .param_arrays import PARAM_NAMES
from .param_readers import FromLibraries

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["PARAM_NAMES", "Params"]


class _Accepted:
    """Parameters that were checked for a cell."""

    def __init__(self, cell: Cell, params: Params) -> None:
        self._cell = cell
        self.params = params
        self._shapes = params.shapes()

    def fits(self, cell: Cell, given: Params) -> bool:
        """Whether `given` has the same arrays, and none was given another shape in place."""
        params = self.params
        return (
            self._cell is cell
            and given.w_ih is params.w_ih
            and given.w_hh is params.w_hh
            and given.b_ih is params.b_ih
            and given.b_hh is params.b_hh
            and given.w_ho is params.w_ho
            and given.b_o is params.b_o
            and given.shapes() == self._shapes
        )


@dataclass(eq=False)
class Params(FromLibraries):
    """Weights of one recurrent layer, and of its readout if it has one.

    The layout is PyTorch's: with G gates, input size I, hidden size H and output size O,

    ======== ============= =========================================================
    name     shape         the text's symbol
    ======== ============= =========================================================
    w_ih     (G*H, I)      W_x, input weights
    w_hh     (G*H, H)      W_s, recurrent weights
    b_ih     (G*H,)        input bias (optional); b_1 = b_ih + b_hh
    b_hh     (G*H,)        recurrent bias (optional); b_1 = b_ih + b_hh
    w_ho     (O, H)        W_o, readout weights (optional; ``value_and_grad`` needs it)
    b_o      (O,)          b_2, readout bias (optional)
    ======== ============= =========================================================

    All arrays share one float dtype. They are kept as given, never copied and never written to.
    They may all live on a GPU, as tensors of PyTorch or arrays of CuPy: see docs/cuda.md.

    Raises
    ------
    TypeError
        If an entry is not a float array, or the dtypes differ.
    ValueError
        If the shapes do not fit together.
    """

    w_ih: Array
    w_hh: Array
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_ho: Array | None = None
    b_o: Array | None = None
    _accepted: _Accepted | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, array in self._checked().items():
            setattr(self, name, array)

    @property
    def input_size(self) -> int:
        """I, the number of features of x_t."""
        features: int = self.w_ih.shape[1]
        return features

    @property
    def hidden_size(self) -> int:
        """H, the number of hidden units."""
        units: int = self.w_hh.shape[1]
        return units

    @property
    def output_size(self) -> int | None:
        """O, the number of outputs of the readout; None without a readout."""
        return None if self.w_ho is None else self.w_ho.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The common dtype of all arrays."""
        found = self.w_hh.dtype
        if isinstance(found, np.dtype):  # as nearly always
            return found
        named = numpy_dtype(found)
        assert named is not None
        return named

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.nbytes_of(PARAM_NAMES)

    def nbytes_of(self, names: Collection[str]) -> int:
        """Bytes of the arrays that have these names; others may be among them."""
        total = 0
        for name in PARAM_NAMES:
            array = getattr(self, name)
            if array is not None and name in names:
                total += array.nbytes
        return total

    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """Those of all arrays in declaration order, None of one that is absent."""
        b_ih, b_hh, w_ho, b_o = self.b_ih, self.b_hh, self.w_ho, self.b_o
        return (
            self.w_ih.shape,
            self.w_hh.shape,
            None if b_ih is None else b_ih.shape,
            None if b_hh is None else b_hh.shape,
            None if w_ho is None else w_ho.shape,
            None if b_o is None else b_o.shape,
        )

    def arrays(self) -> dict[str, Array]:
        """The arrays that are present, by name, in declaration order. They are not copies."""
        present = ((name, getattr(self, name)) for name in PARAM_NAMES)
        return {name: array for name, array in present if array is not None}

    def readable_for(self, cell: Cell) -> Params:
        """These parameters, checked again for use with `cell`, in arrays that kernels can read.

        They are another object, which assignments to this one do not reach.

        Raises
        ------
        TypeError, ValueError
            If an entry was replaced since construction by one that does not fit, or if the shapes
            are those of a cell with another number of gates.
        """
        # Checking costs more than a small network's step: do it once for the same arrays.
        accepted = self._accepted
        if accepted is not None and accepted.fits(cell, self):
            return accepted.params
        self._expect_host()
        arrays = self._checked_for(cell)
        readable = {name: checks.readable(array) for name, array in arrays.items()}
        if any(array is not getattr(self, name) for name, array in readable.items()):
            return Params(**readable)
        self._accepted = accepted = _Accepted(cell, self.snapshot())
        return accepted.params

    def readable_at(self, place: Place, cell: Cell) -> Params:
        """The same of arrays on a GPU.

        Raises
        ------
        TypeError, ValueError
            As `readable_for` does; or if they live elsewhere.
        """
        there, wanted = place_of(self.w_hh), place.of_caller
        if there != wanted:
            raise ValueError(
                f"params: expected arrays on {wanted or 'the host'} as x is, got some on "
                f"{there or 'the host'}"
            )
        if self.dtype.name not in ("float32", "float64"):
            raise TypeError(f"params: expected float32 or float64 on a GPU, got {self.dtype}")
        self._checked_for(cell)
        return self.like(place.library.readable)

    def _checked_for(self, cell: Cell) -> dict[str, Array]:
        arrays = self._checked()
        rows, hidden = arrays["w_hh"].shape
        if rows != cell.gates * hidden:
            raise ValueError(
                f"w_hh: expected shape ({cell.gates * hidden}, {hidden}) for cell {cell.name!r} "
                f"with hidden_size={hidden}, got ({rows}, {hidden})"
            )
        return arrays

    def _expect_host(self) -> None:
        place = place_of(self.w_hh)
        if place is not None:
            raise TypeError(
                f"params: expected arrays in the memory of the host, got some on {place}; copy "
                "them there, as .cpu() does"
            )

    @classmethod
    def trusted(
        cls, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
    ) -> Params:
        """Of arrays that fit together, which is not checked; for calls of a few microseconds."""
        params = object.__new__(cls)
        params.__dict__.update(
            w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh, w_ho=None, b_o=None, _accepted=None
        )
        return params

    def snapshot(self) -> Params:
        """Another object with the same arrays, which assignments to this one do not reach."""
        copied = object.__new__(Params)
        copied.__dict__.update(self.__dict__, _accepted=None)
        return copied

    def like(self, make: Callable[[Array], Array], names: Collection[str] = PARAM_NAMES) -> Params:
        """What `make` makes of the arrays that have these names; shape and dtype have to stay."""
        arrays = self.arrays().items()
        return self.holding({name: make(array) for name, array in arrays if name in names})

    def holding(self, arrays: Mapping[str, Array]) -> Params:
        """Another object with these arrays and no others; shape and dtype have to be the same."""
        made = self.snapshot()
        made.__dict__.update({name: arrays.get(name) for name in PARAM_NAMES})
        return made

    def _checked(self) -> dict[str, Array]:
        return param_arrays.checked({name: getattr(self, name) for name in PARAM_NAMES})

    def astype(self, dtype: npt.DTypeLike) -> Params:
        """A copy with every array cast to `dtype`, a float dtype."""
        target = checks.float_dtype("dtype", dtype)
        self._expect_host()
        return Params(**{name: array.astype(target) for name, array in self.arrays().items()})

    def save(self, path: files.StrPath, *, cell: str | Cell | None = None) -> None:
        """Write the arrays to an ``.npz`` file, which `load` and ``numpy.load`` read.

        The file appears at `path` only when it is complete: an interrupted save leaves an older
        file as it was. A symbolic link stays one, and what it leads to is replaced.

        Parameters
        ----------
        path : str or PathLike
            ``.npz`` is appended where it is missing, as ``numpy.savez`` does.
        cell : str or Cell, optional
            What the parameters are for. Its name is written beside them, for `saved_cell` and
            ``bptt lags``: the arrays of some cells have the same shapes.

        Raises
        ------
        TypeError, ValueError
            If the parameters are not those of `cell`, or `path` is empty.
        OSError
            If the file cannot be written.
        """
        self._expect_host()
        name = None
        if cell is not None:
            kind = get_cell(cell)
            self.readable_for(kind)
            name = kind.name
        param_arrays.write(path, self.arrays(), name)

    @classmethod
    def load(cls, path: files.StrPath) -> Params:
        """Read parameters that `save` wrote; `path` as it was given there.

        Raises
        ------
        ValueError
            If the file is not an ``.npz`` file of parameters, or damaged.
        OSError
            If there is no such file, or it cannot be read.
        """
        return cls.load_with_cell(path)[0]

    @classmethod
    def load_with_cell(cls, path: files.StrPath) -> tuple[Params, str | None]:
        """What `load` and `saved_cell` return, from one reading of the file.

        Raises
        ------
        ValueError, OSError
            As `load` does.
        """
        arrays, cell = param_arrays.read(path)
        try:
            return cls(**arrays), cell
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"path: {os.fspath(path)!r} does not hold bptt.Params: {error}"
            ) from None

    @staticmethod
    def saved_cell(path: files.StrPath) -> str | None:
        """The name of the cell that a file of parameters was saved with; None if it has none.

        Raises
        ------
        ValueError, OSError
            As `load` does.
        """
        return param_arrays.read(path)[1]

    def to_torch(
        self,
        layer: int = 0,
        *,
        reverse: bool = False,
        prefix: str = "",
        readout: str | None = None,
    ) -> dict[str, Any]:
        """Tensors by the names of a ``state_dict``, without the readout if it has no prefix.

        It imports torch. The arguments are those of `from_torch`.
        """
        self._expect_host()
        return layouts.to_torch(
            self.arrays(), layer, reverse=reverse, prefix=prefix, readout=readout
        )

    @staticmethod
    def layers_to_torch(
        params: Sequence[Params | Sequence[Params]], *, prefix: str = "", readout: str | None = None
    ) -> dict[str, Any]:
        """The ``state_dict`` of a whole module from the list that ``from_torch(..., "all")`` gives.

        It imports torch.
        """
        layers = [[each] if isinstance(each, Params) else list(each) for each in params]
        for layer in layers:
            for direction in layer:
                direction._expect_host()
        arrays = [[direction.arrays() for direction in layer] for layer in layers]
        return layouts.all_to_torch(arrays, prefix=prefix, readout=readout)

    def to_keras(self, cell: str) -> list[Array]:
        """What ``layer.set_weights`` takes, without the readout.

        Where Keras has one bias, it is the sum of both. The layer needs the activations that
        `from_keras` takes, and a GRU ``reset_after=True``.
        """
        return layouts.to_keras(self.readable_for(get_cell(cell)).arrays(), cell)

    def to_onnx(self, cell: str) -> dict[str, Array]:
        """The inputs W, R and B of a node with one direction, without the readout; a GRU's needs
        ``linear_before_reset=1``, and the cells "relu" and "linear" an RNN with
        ``activations=["Relu"]`` or ``["Affine"]``."""
        return layouts.to_onnx(self.readable_for(get_cell(cell)).arrays(), cell)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={tuple(array.shape)}" for name, array in self.arrays().items())
        dtypes = {f"dtype={array.dtype}" for array in self.arrays().values()}
        return f"Params({', '.join([shapes, *dtypes])})"
