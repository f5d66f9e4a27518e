"""The libraries whose arrays may live on a GPU: PyTorch, CuPy, and any other through PyTorch.

What a pass asks of the library that owns its arrays, in one set of names: memory, rows by their
index, products over all steps, and the stream that its work is in. A library is looked at only if
it has been imported: nobody else can have made an array of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import checks
from .checks import Array

__all__ = [
    "COPYING",
    "LIBRARIES",
    "Borrowed",
    "Copied",
    "Cupy",
    "Library",
    "Place",
    "Torch",
    "numpy_dtype",
    "place_of",
    "read_float_array",
]


class Library(Protocol):
    """What owns arrays on a GPU; every array below is one of them but for those named host."""

    @property
    def name(self) -> str:
        """What it is called."""

    def owns(self, value: object) -> bool:
        """Whether `value` is an array of it on a GPU."""

    def device(self, array: Any) -> int:
        """The number of the GPU."""

    def dtype(self, array: Any) -> np.dtype[Any] | None:
        """NumPy's name of the dtype, None if it has none."""

    def readable(self, array: Any) -> Any:
        """`array` itself if it is C-contiguous, else a copy; no autograd."""

    def given(self, array: Any) -> Any:
        """What the caller gets of a result."""

    def pointer(self, array: Any) -> int:
        """Where its first value lies."""

    def stream(self, device: int) -> int:
        """The handle of the stream that the caller has chosen for the library's work."""

    def on(self, device: int) -> AbstractContextManager[Any]:
        """Makes it the device of what is made and launched within; where memory is lacking within,
        that is a MemoryError."""

    def empty(self, shape: Sequence[int], like: Any) -> Any:
        """Unwritten memory, where `like` lives and of its dtype."""

    def zeros(self, shape: Sequence[int], like: Any) -> Any: ...

    def zero_counters(self, count: int, like: Any) -> Any:
        """So many zeros of 32 bits."""

    def upload(self, host: Array, like: Any) -> Any:
        """A copy of the host's array, of its own dtype."""

    def fetch(self, array: Any) -> Array:
        """A copy in the memory of the host; it waits for the stream."""

    def take(self, rows: Any, index: Any) -> Any:
        """Some rows, by integers."""

    def put(self, rows: Any, index: Any, values: Any) -> None:
        """Writes rows, each of them once."""

    def concatenate(self, parts: Sequence[Any], axis: int = 0) -> Any: ...

    def stack(self, parts: Sequence[Any]) -> Any:
        """Along a new first axis."""

    def columns(self, array: Any, columns: slice) -> Any:
        """Some of the second axis, contiguous."""

    def turned(self, array: Any) -> Any:
        """The first axis the other way round, contiguous."""

    def copy(self, array: Any) -> Any: ...

    def where(self, condition: Any, yes: Any, no: Any) -> Any: ...

    def exp(self, array: Any) -> Any: ...

    def log(self, array: Any) -> Any: ...

    def largest(self, array: Any) -> Any:
        """Along the last axis, which stays."""

    def sum(self, array: Any, axis: int) -> Any: ...


class Torch:
    """PyTorch's tensors."""

    name = "torch"
    device_type = "cuda"

    @property
    def _torch(self) -> Any:
        return sys.modules["torch"]

    def owns(self, value: object) -> bool:
        torch = sys.modules.get("torch")
        tensor = getattr(torch, "Tensor", None)  # None while torch is being imported
        if tensor is None or not isinstance(value, tensor):
            return False
        return bool(getattr(value, "device").type == self.device_type)  # noqa: B009 - of any type

    def device(self, array: Any) -> int:
        return int(array.device.index or 0)

    def dtype(self, array: Any) -> np.dtype[Any] | None:
        return numpy_dtype(array.dtype)

    def readable(self, array: Any) -> Any:
        # Conjugate and negative views are bits that a pointer does not tell.
        return array.detach().resolve_conj().resolve_neg().contiguous()

    def given(self, array: Any) -> Any:
        return array

    def pointer(self, array: Any) -> int:
        return int(array.data_ptr())

    def stream(self, device: int) -> int:
        return int(self._torch.cuda.current_stream(device).cuda_stream)

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        # Under autocast products would be of another dtype than the arrays that kernels read.
        plain = self._torch.autocast(self.device_type, enabled=False)
        try:
            with self._current(device), plain:
                yield
        except self._torch.OutOfMemoryError as error:
            raise MemoryError(f"cuda:{device}: {_first_line(error)}") from error

    def _current(self, device: int) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._torch.cuda.device(device)
        return found

    def empty(self, shape: Sequence[int], like: Any) -> Any:
        return like.new_empty(tuple(shape))

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        return like.new_zeros(tuple(shape))

    def zero_counters(self, count: int, like: Any) -> Any:
        return like.new_zeros(count, dtype=self._torch.int32)

    def upload(self, host: Array, like: Any) -> Any:
        return self._torch.tensor(host, device=like.device)

    def fetch(self, array: Any) -> Array:
        found: Array = array.detach().cpu().numpy()
        return found

    def take(self, rows: Any, index: Any) -> Any:
        return rows.index_select(0, index)

    def put(self, rows: Any, index: Any, values: Any) -> None:
        rows.index_copy_(0, index, values)

    def concatenate(self, parts: Sequence[Any], axis: int = 0) -> Any:
        return self._torch.cat(list(parts), axis)

    def stack(self, parts: Sequence[Any]) -> Any:
        return self._torch.stack(list(parts))

    def columns(self, array: Any, columns: slice) -> Any:
        return array[:, columns].contiguous()

    def turned(self, array: Any) -> Any:
        return array.flip(0)

    def copy(self, array: Any) -> Any:
        return array.clone()

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return self._torch.where(condition, yes, no)

    def exp(self, array: Any) -> Any:
        return array.exp()

    def log(self, array: Any) -> Any:
        return array.log()

    def largest(self, array: Any) -> Any:
        return array.amax(-1, keepdim=True)

    def sum(self, array: Any, axis: int) -> Any:
        return array.sum(axis)


class Cupy:
    """CuPy's arrays."""

    name = "cupy"

    @property
    def _cupy(self) -> Any:
        return sys.modules["cupy"]

    def owns(self, value: object) -> bool:
        array = getattr(sys.modules.get("cupy"), "ndarray", None)
        return array is not None and isinstance(value, array)

    def device(self, array: Any) -> int:
        return int(array.device.id)

    def dtype(self, array: Any) -> np.dtype[Any] | None:
        return numpy_dtype(array.dtype)

    def readable(self, array: Any) -> Any:
        return self._cupy.ascontiguousarray(array)

    def given(self, array: Any) -> Any:
        return array

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def stream(self, device: int) -> int:
        return int(self._cupy.cuda.get_current_stream().ptr)

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        try:
            with self._current(device):
                yield
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryError(f"cuda:{device}: {_first_line(error)}") from error

    def _current(self, device: int) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._cupy.cuda.Device(device)
        return found

    def empty(self, shape: Sequence[int], like: Any) -> Any:
        return self._cupy.empty(tuple(shape), like.dtype)

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        return self._cupy.zeros(tuple(shape), like.dtype)

    def zero_counters(self, count: int, like: Any) -> Any:
        return self._cupy.zeros(count, "int32")

    def upload(self, host: Array, like: Any) -> Any:
        return self._cupy.asarray(host)

    def fetch(self, array: Any) -> Array:
        found: Array = self._cupy.asnumpy(array)
        return found

    def take(self, rows: Any, index: Any) -> Any:
        return rows[index]

    def put(self, rows: Any, index: Any, values: Any) -> None:
        rows[index] = values

    def concatenate(self, parts: Sequence[Any], axis: int = 0) -> Any:
        return self._cupy.concatenate(list(parts), axis)

    def stack(self, parts: Sequence[Any]) -> Any:
        return self._cupy.stack(list(parts))

    def columns(self, array: Any, columns: slice) -> Any:
        return self._cupy.ascontiguousarray(array[:, columns])

    def turned(self, array: Any) -> Any:
        return self._cupy.ascontiguousarray(array[::-1])

    def copy(self, array: Any) -> Any:
        return array.copy()

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return self._cupy.where(condition, yes, no)

    def exp(self, array: Any) -> Any:
        return self._cupy.exp(array)

    def log(self, array: Any) -> Any:
        return self._cupy.log(array)

    def largest(self, array: Any) -> Any:
        return array.max(-1, keepdims=True)

    def sum(self, array: Any, axis: int) -> Any:
        return array.sum(axis)


class Borrowed(Torch):
    """Arrays of any other library that follows the array API standard, as JAX's do: read by PyTorch
    through DLPack, without a copy, and results given back in the same way.

    Attributes
    ----------
    kinds : tuple of int
        DLPack's numbers of devices: CUDA's own memory, and managed memory.
    """

    name = "DLPack"
    kinds: tuple[int, ...] = (2, 13)

    def __init__(self, namespace: Any = None) -> None:
        self._namespace = namespace

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Borrowed) and self._namespace is other._namespace

    def __hash__(self) -> int:
        return hash(self.name)

    def of(self, value: Any) -> Borrowed:
        """The library that `value` is of."""
        return type(self)(value.__array_namespace__())

    def owns(self, value: object) -> bool:
        if "torch" not in sys.modules or not hasattr(value, "__array_namespace__"):
            return False
        try:
            return int(value.__dlpack_device__()[0]) in self.kinds  # type: ignore[attr-defined]
        except Exception:  # another library's code, which may raise anything
            return False

    def device(self, array: Any) -> int:
        return int(array.__dlpack_device__()[1])

    def readable(self, array: Any) -> Any:
        return super().readable(self._torch.from_dlpack(array))

    def given(self, array: Any) -> Any:
        return self._namespace.from_dlpack(array)

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        # The library may use its memory again as soon as the last tensor of it is gone, on a stream
        # that does not wait for PyTorch's.
        with super().on(device):
            try:
                yield
            finally:
                self._finish(device)

    def _finish(self, device: int) -> None:
        self._torch.cuda.current_stream(device).synchronize()


class Copied(Torch):
    """Arrays of the host, which PyTorch copies to a GPU, and results back."""

    name = "copied"

    def owns(self, value: object) -> bool:
        return False

    def readable(self, array: Any) -> Any:
        return self._torch.tensor(checks.readable(array), device=self.device_type)

    def given(self, array: Any) -> Any:
        return self.fetch(array)

    def place(self) -> Place:
        """Where copies go: the GPU that PyTorch works on.

        Raises
        ------
        RuntimeError
            If there is no PyTorch, or it sees no GPU.
        """
        try:
            import torch
        except ImportError:
            raise RuntimeError(
                "x: backend 'cuda' copies arrays of the host by PyTorch, which is not installed; "
                "those that live on a GPU need no copy"
            ) from None
        if not torch.cuda.is_available():
            raise RuntimeError(
                "x: backend 'cuda' copies arrays of the host by PyTorch, which sees no GPU"
            )
        return Place(self, torch.cuda.current_device())


LIBRARIES: tuple[Library, ...] = (Torch(), Cupy(), Borrowed())
COPYING = Copied()


class Place(NamedTuple):
    """Where an array lives: whose it is, and on which GPU."""

    library: Library
    device: int

    @property
    def of_caller(self) -> Place | None:
        """Where the caller's arrays live: there, or on the host if they are copied."""
        return None if isinstance(self.library, Copied) else self

    def __str__(self) -> str:
        return f"cuda:{self.device} ({self.library.name})"


def place_of(value: object) -> Place | None:
    """Where `value` lives, None if that is no GPU, or if it is no array of a library above."""
    if type(value) is np.ndarray:
        return None
    for library in LIBRARIES:
        if library.owns(value):
            owner = library.of(value) if isinstance(library, Borrowed) else library
            return Place(owner, owner.device(value))
    return None


def read_float_array(
    name: str,
    value: object,
    place: Place | None,
    beside: str,
    like: tuple[str, np.dtype[Any]] | None = None,
) -> Any:
    """`value` as an array of float32 or float64 at `place`, where the argument `beside` is; one of
    any floats in the memory of the host if that is None, or for copies of such.

    Raises
    ------
    TypeError
        If it is no array, or of another dtype, or of another than that of `like`.
    ValueError
        If it lives elsewhere.
    """
    there, place = place_of(value), place and place.of_caller
    if place is None and there is None:
        return checks.as_float_array(name, value, like)
    if not (isinstance(value, np.ndarray) or hasattr(value, "__dlpack__")):
        raise TypeError(f"{name}: expected an array on {place}, got {type(value).__name__}")
    if there is None or there != place:
        raise ValueError(
            f"{name}: expected an array on {place or 'the host'} as {beside} is, got one on "
            f"{there or 'the host'}"
        )
    dtype = there.library.dtype(value)
    if dtype is None or dtype.name not in ("float32", "float64"):
        got = dtype or getattr(value, "dtype", None)
        raise TypeError(f"{name}: expected float32 or float64 on a GPU, got {got}")
    if like is not None and dtype != like[1]:
        raise TypeError(f"{name}: expected dtype {like[1]} like {like[0]}, got {dtype}")
    return value


def numpy_dtype(dtype: object) -> np.dtype[Any] | None:
    """What NumPy calls the dtype of a library; None if it does not know it."""
    if isinstance(dtype, np.dtype):
        return dtype
    try:
        return np.dtype(str(dtype).rpartition(".")[2])
    except TypeError:
        return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
