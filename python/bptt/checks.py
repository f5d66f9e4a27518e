"""Checks of what callers pass in. Each error names the argument, what came and what was wanted.

The functions return arrays that a kernel can read as they lie (C-contiguous, aligned, native byte
order); an array that already is so comes back itself, anything else as a converted copy. The
caller's arrays are never written to.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import memory

__all__ = [
    "Array",
    "as_array",
    "as_float_array",
    "choice",
    "did_you_mean",
    "expect_shape",
    "finite",
    "float_dtype",
    "non_negative",
    "read_like",
    "readable",
    "rising",
    "size",
    "unknown",
]

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:  # numpy.typing is not worth its time at run time
    Array = np.ndarray


def as_array(name: str, value: object) -> Array:
    """`value` as an ndarray: a NumPy array, or anything that exports DLPack from host memory."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one; fill the mask first")
    if isinstance(value, np.ndarray):
        return np.asarray(value)  # the same memory, without the subclass's own ideas of `*`
    if not hasattr(value, "__dlpack__"):
        raise TypeError(
            f"{name}: expected a NumPy array or an object with __dlpack__, "
            f"got {type(value).__name__}"
        )
    try:
        return np.from_dlpack(_materialized(value))  # type: ignore[arg-type, unused-ignore]
    except Exception as error:  # another library's code, which may raise anything
        raise TypeError(
            f"{name}: cannot read {type(value).__name__} through DLPack: "
            f"{str(error).rstrip('.')}{_remedy(value)}"
        ) from error


def _materialized(value: Any) -> Any:
    """`value` with the operations carried out that PyTorch keeps as a bit of a view.

    DLPack does not transport these bits: it refuses a conjugate view, and of a negative one (the
    imaginary part of a conjugate) it would give the values with the wrong sign.
    """
    for bit, resolve in (("is_conj", "resolve_conj"), ("is_neg", "resolve_neg")):
        if hasattr(value, bit) and hasattr(value, resolve) and getattr(value, bit)():
            value = getattr(value, resolve)()
    return value


# DLPack's device types whose memory the host reads: its own, and pinned memory of CUDA and ROCm.
_HOST = (1, 3, 11)


def _remedy(value: Any) -> str:
    """What makes `value` readable, if it is known."""
    dtype = str(getattr(value, "dtype", ""))
    if "bfloat16" in dtype or "float8" in dtype:
        return f"; NumPy has no {dtype.rpartition('.')[2]}, cast it to float32"
    try:
        elsewhere = int(value.__dlpack_device__()[0]) not in _HOST
    except Exception:  # see above
        return ""
    return "; copy it to the memory of the host, as .cpu() does" if elsewhere else ""


def as_float_array(
    name: str, value: object, like: tuple[str, np.dtype[Any]] | None = None
) -> Array:
    """`value` as a float array; `like` names another argument and the dtype that must match."""
    array = as_array(name, value)
    if like is not None and array.dtype == like[1]:  # as nearly always, and it is one of floats
        return array
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name}: expected a float array, got dtype {array.dtype}; cast it with .astype(...)"
        )
    # Byte order may differ: `readable` swaps the bytes without loss.
    if like is not None and array.dtype.newbyteorder("=") != like[1].newbyteorder("="):
        raise TypeError(
            f"{name}: expected dtype {like[1]} like {like[0]}, got {array.dtype}; "
            "cast one of them with .astype(...)"
        )
    return array


def readable(array: Array) -> Array:
    """`array` itself if kernels can read it as it lies, else a copy that they can."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    memory.require_memory(array.nbytes, f"a contiguous copy of an input of shape {array.shape}")
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def expect_shape(
    name: str,
    array: Array,
    shape: tuple[int | str, ...],
    why: Callable[[], str] | str = "",
    remedy: str = "",
) -> None:
    """Raise ValueError unless `array` has `shape`, whose strings stand for any length.

    The error says `why` that is expected, and ends with a `remedy`.
    """
    found = array.shape
    if found == shape:
        return
    if len(found) == len(shape):
        for want, got in zip(shape, found, strict=True):
            if not isinstance(want, str) and want != got:
                break
        else:
            return
    wanted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    reason = why() if callable(why) else why
    raise ValueError(
        f"{name}: expected shape {wanted}{' to match ' + reason if reason else ''}, "
        f"got {tuple(array.shape)}{remedy}"
    )


def read_like(
    name: str,
    value: object,
    shape: tuple[int, ...],
    like: tuple[str, np.dtype[Any]],
    why: Callable[[], str] | str,
) -> Array:
    """`value` as a float array of that shape, readable for kernels."""
    array = as_float_array(name, value, like)
    expect_shape(name, array, shape, why)
    return readable(array)


def choice(
    name: str, value: object, options: Iterable[str], aliases: Mapping[str, str] | None = None
) -> str:
    """`value` if it is one of `options`; `aliases` as in `unknown`."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {type(value).__name__}")
    options = tuple(options)
    if value not in options:
        raise unknown(name, value, options, aliases)
    return value


def unknown(
    name: str, value: str, options: Iterable[str], aliases: Mapping[str, str] | None = None
) -> ValueError:
    """The error for a `value` that is none of `options`, with the one that may be meant.

    `aliases` are the names that other libraries have, in small letters and digits alone, with what
    to say of them: the option in quotes, and how it differs.
    """
    options = tuple(options)
    return ValueError(
        f"{name}: expected one of {', '.join(options)}, got {value!r}"
        f"{did_you_mean(value, options, aliases)}"
    )


def did_you_mean(
    value: str, options: Iterable[str], aliases: Mapping[str, str] | None = None
) -> str:
    """The end of an error about `value`: the option that it resembles, or nothing."""
    import difflib  # an error may take its time, an import may not

    letters = _letters(value)
    if aliases and letters in aliases:
        return f"; did you mean {aliases[letters]}?"
    meant = {_letters(option): repr(option) for option in options}
    close = difflib.get_close_matches(letters, meant, 1, cutoff=0.7)
    return f"; did you mean {meant[close[0]]}?" if close else ""


def _letters(name: str) -> str:
    """`name` in small letters and digits alone."""
    return "".join(filter(str.isalnum, name.lower()))


def size(name: str, value: object, *, least: int = 1) -> int:
    """`value` as an integer that is at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {number}")
    return number


# More than any machine has use for: a slip of the pen shall not start a million threads.
MOST_THREADS = 1024


def rising(name: str, values: object, least: int, most: int | None, why: str) -> list[int]:
    """`values` as integers from `least` to `most`, the least one first."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a sequence of integers, got {type(values).__name__}")
    found = [size(name, value, least=least) for value in values]
    if not found:
        raise ValueError(f"{name}: expected one at least, got none")
    if any(later <= earlier for earlier, later in itertools.pairwise(found)):
        raise ValueError(f"{name}: expected them sorted and each of them once, got {found}")
    if most is not None and found[-1] > most:
        raise ValueError(f"{name}: expected at most {most}, {why}, got {found[-1]}")
    return found


def boolean(name: str, value: object) -> bool:
    """A truth value of Python or NumPy.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")
    return bool(value)


def num_threads(name: str, value: object) -> int:
    """`value` as an integer from 1 to `MOST_THREADS`."""
    number = size(name, value)
    if number > MOST_THREADS:
        raise ValueError(f"{name}: expected an integer of at most {MOST_THREADS}, got {number}")
    return number


def finite(name: str, value: object, wanted: str = "a finite number") -> float:
    """`value` as a finite float; an error says that `wanted` was expected."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected {wanted}, got {number}")
    return number


def non_negative(name: str, value: object) -> float:
    """`value` as a finite float that is not negative."""
    wanted = "a finite number that is not negative"
    number = finite(name, value, wanted)
    if number < 0:
        raise ValueError(f"{name}: expected {wanted}, got {number}")
    return number


_DTYPES = {
    **dict.fromkeys(("float32", "fp32", "f32"), "'float32'"),
    **dict.fromkeys(("float64", "fp64", "f64"), "'float64'"),
}


def float_dtype(name: str, value: npt.DTypeLike) -> np.dtype[Any]:
    """`value` as a float dtype in native byte order."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        given = str(value).rpartition(".")[2]  # "torch.float32" is a dtype of PyTorch
        hint = did_you_mean(given, (), _DTYPES)  # bfloat16 resembles others, and is none of them
        raise TypeError(f"{name}: expected a float dtype, got {value!r}{hint}") from None
    if dtype.kind != "f":
        raise TypeError(f"{name}: expected a float dtype, got {dtype}")
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native
