"""Arrays of the caller that a call writes: checked here, all of them before the first is written.

An error names the array as the caller reaches it: ``out.w_hh``, ``out.y``.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from . import checks
from .checks import Array
from .grads import EVERYTHING, Grads, some_of
from .params import PARAM_NAMES, Params
from .row_map import Places, RowMap
from .states import as_given, as_tuple, names
from .wanted import rows_like

__all__ = [
    "check_grads",
    "deliver",
    "expect_apart",
    "expect_writable",
    "from_layer",
    "into_layer",
]


def expect_writable(name: str, value: object, like: Array, why: str) -> Array:
    """`value` if a kernel can write the like of `like` to it as it lies.

    Raises
    ------
    TypeError
        If it is no NumPy array, or of another dtype or byte order.
    ValueError
        If it has another shape, or is not C-contiguous, aligned and writeable.
    """
    if (
        type(value) is np.ndarray
        and value.shape == like.shape
        and value.dtype == like.dtype
        and value.flags.carray
    ):
        return value  # soon: a small network's step takes little longer than what is below
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(value).__name__}")
    array = checks.as_array(name, value)
    if array.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype} like {why}, got {array.dtype}")
    checks.expect_shape(name, array, like.shape, why)
    flags = array.flags
    if not flags.carray:
        wanted = {
            "C-contiguous": flags.c_contiguous,
            "aligned": flags.aligned,
            "writeable": flags.writeable,
        }
        failed = " nor ".join(word for word, fulfilled in wanted.items() if not fulfilled)
        raise ValueError(
            f"{name}: expected a C-contiguous, aligned, writeable array, got one that is not "
            f"{failed}"
        )
    return array


def check_grads(
    out: object,
    accumulate: object,
    params: Params,
    state: tuple[Array, ...],
    read: Mapping[str, Array | None],
    *,
    readout: bool,
    wanted: frozenset[str] = EVERYTHING,
    per_row: str | None = None,
) -> None:
    """Check where gradients shall go: `out`, of the shapes of what they are gradients of.

    Parameters
    ----------
    out, accumulate
        What the caller passed.
    params : Params
    state : tuple of arrays
        The initial state.
    read : dict
        The arrays that the call reads beside `params`, contiguous, by name; "x" among them.
    readout : bool
        Whether the call has gradients of the readout; if not, those in `out` are not looked at.
    wanted : frozenset of str
        Names of those that the call writes; others are not looked at.
    per_row : {"norm", "gradient"}, optional
        What it writes of each row, in place of the sum.
    """
    checks.boolean("accumulate", accumulate)
    if out is None:
        if accumulate:
            raise ValueError("accumulate: expected gradients to add to, got out=None")
        return
    if not isinstance(out, Grads):
        raise TypeError(f"out: expected bptt.Grads, got {type(out).__name__}")
    likes = {"x": read["x"]} if "x" in wanted else {}
    for name in PARAM_NAMES if readout else PARAM_NAMES[:4]:
        of = getattr(params, name)
        if name in wanted:
            likes[name] = None if of is None else rows_like(of, len(state[0]), per_row)
    given = {name: getattr(out, name) for name in likes}
    if "state" in wanted:
        likes.update(zip(names("state", len(state)), state, strict=True))
        given.update(_parts_of_state(out, len(state)))
    written = {}
    for name, like in likes.items():
        like_name = f"{name} with per_row={per_row!r}" if per_row and name != "x" else name
        array = _expect_one(f"out.{name}", given[name], like_name, like)
        if array is not None:
            written[f"out.{name}"] = array
    _expect_apart_from_params(out, written, params)
    for name, other in read.items():
        if other is not None:
            expect_apart(written, name, other)


def _parts_of_state(out: Grads, parts: int) -> dict[str, object]:
    """What `out` has for each part of the state."""
    if parts > 1 and not (isinstance(out.state, tuple) and len(out.state) == parts):
        got = type(out.state).__name__
        raise TypeError(
            f"out.state: expected a tuple of {parts} arrays, as Grads.zeros(..., cell=...) has it, "
            f"got {got}"
        )
    values: tuple[object, ...] = (out.state,) if parts == 1 else as_tuple(out.state)
    return dict(zip(names("state", parts), values, strict=True))


def _expect_one(name: str, value: object, like_name: str, like: Array | None) -> Array | None:
    """`value`, an array like `like`, and None if that is None."""
    if like is None:
        if value is not None:
            raise ValueError(f"{name}: expected None like params.{like_name}, got an array")
        return None
    if value is None:
        raise ValueError(f"{name}: expected an array of shape {like.shape}, got None")
    return expect_writable(name, value, like, like_name)


# The arrays of the last check, by Grads: they stay the same from step to step, and all pairs take
# longer than a small network's step.
_found_apart: WeakKeyDictionary[Grads, list[Array]] = WeakKeyDictionary()


def _expect_apart_from_params(out: Grads, written: dict[str, Array], params: Params) -> None:
    """Raise ValueError if `written` share memory with each other or with `params`."""
    read = params.arrays()
    arrays = [*written.values(), *read.values()]
    before = _found_apart.get(out, [])
    if len(before) == len(arrays) and all(map(operator.is_, before, arrays)):
        return
    earlier: dict[str, Array] = {}
    for name, array in written.items():
        expect_apart(earlier, name, array)
        earlier[name] = array
    for name, array in read.items():
        expect_apart(written, name, array)
    _found_apart[out] = arrays


def expect_apart(written: dict[str, Array], name: str, array: Array) -> None:
    for other, target in written.items():
        if np.may_share_memory(array, target):
            raise ValueError(f"{other}: expected memory of its own, got memory shared with {name}")


def deliver(
    fresh: Grads, out: Grads | None, accumulate: bool, wanted: frozenset[str] = EVERYTHING
) -> Grads:
    """What is wanted of `fresh`, or `out` after that was copied or added into it."""
    if out is None:
        return fresh if wanted == EVERYTHING else some_of(fresh, wanted)
    for name in wanted:
        if getattr(fresh, name) is None:
            continue
        targets, arrays = as_tuple(getattr(out, name)), as_tuple(getattr(fresh, name))
        for target, array in zip(targets, arrays, strict=True):
            if accumulate:
                target += array
            else:
                np.copyto(target, array)
    return out


def into_layer(
    rows: RowMap,
    out: Grads | None,
    accumulate: bool,
    wanted: frozenset[str],
    per_row: str | None,
    places: Places | None = None,
) -> Grads | None:
    """Where a layer writes gradients that are for `out`, a copy of what it holds if they add to it.

    Those of the parameters are the arrays of `out`, unless they are of each row; and of x, if the
    layer has places.
    """
    if out is None or rows.same:
        return out
    into = some_of(out, wanted)
    if into.x is not None and places is None:
        into.x = rows.gather(out.x) if accumulate else rows.empty_like(out.x)
    if into.state is not None:
        into.state = as_given(rows.gather_state(as_tuple(out.state)))
    for name, g in into.arrays().items() if per_row is not None else ():
        setattr(into, name, rows.gather_each(g))
    return into


def from_layer(
    rows: RowMap,
    grads: Grads,
    out: Grads | None,
    accumulate: bool,
    per_row: str | None,
    places: Places | None = None,
) -> Grads:
    """A layer's gradients as the caller's: in `out`, if it is given, else in new arrays."""
    if rows.same:
        return grads
    found = replace(grads) if out is None else out
    if grads.x is not None and places is None:
        found.x = rows.scatter(grads.x, None if out is None else out.x, keep=accumulate)
    if grads.state is not None:
        state = rows.scatter_dstate(as_tuple(grads.state))
        if out is None:
            found.state = as_given(state)
        else:
            used = slice(None) if rows.anew is None or not accumulate else ~rows.anew
            for target, s in zip(as_tuple(out.state), state, strict=True):
                target[used] = s[used]
    for name, g in grads.arrays().items() if per_row is not None else ():
        of_row = rows.scatter_each(g)
        if out is None:
            setattr(found, name, of_row)
        else:
            np.copyto(getattr(out, name), of_row)
    return found
