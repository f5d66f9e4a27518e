"""Arrays of every layout are read as they are, never written to, and never handed back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bptt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import Problem, by_name, each, make_problem, parts, recorded

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes


def every_second(a: np.ndarray) -> np.ndarray:
    """The same values, in every second element of a larger array."""
    wide = np.full([2 * n for n in a.shape], 7, a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def backwards(a: np.ndarray) -> np.ndarray:
    """The same values, stored from the last to the first: negative strides."""
    turn = tuple(slice(None, None, -1) for _ in a.shape)
    return a[turn].copy()[turn]


def misaligned(a: np.ndarray) -> np.ndarray:
    """The same values, one byte off the alignment of their type."""
    buffer = np.zeros(a.nbytes + 1, np.uint8)
    view = buffer[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


class Subclass(np.ndarray):
    """An array of another library that is a NumPy array."""


class Exporter:
    """An array of another library: all that is known of it is DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class NegativeView(Exporter):
    """What PyTorch makes of the imaginary part of a conjugate: its memory has the other sign."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(-array)

    def is_neg(self) -> bool:
        return True

    def resolve_neg(self) -> Exporter:
        return Exporter(-self.array)


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "every second": every_second,
    "backwards": backwards,
    "misaligned": misaligned,
    "read-only": read_only,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "subclass": lambda a: a.view(Subclass),
    "DLPack": Exporter,
    "negative view": lambda a: NegativeView(a) if a.dtype.kind == "f" else a,
    "strided DLPack": lambda a: Exporter(every_second(a)),
}


def mapped(p: Problem, layout: Callable[[np.ndarray], Any]) -> Problem:
    """`p` with every array in another layout."""
    params = bptt.Params(**{name: layout(array) for name, array in p.params.arrays().items()})
    data = {
        name: each(layout, getattr(p, name))
        for name in ("x", "state", "dy", "dc", "dstate", "target", "ids", "weights")
    }
    return replace(p, params=params, **data)


def run(p: Problem, backend: str) -> dict[str, Any]:
    """All results of `p`, whose arrays may be of a kind that cannot be indexed."""
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    results = {**recorded(tape), **by_name(p.backward(tape))}
    for loss, target in (("squared_error", p.target), ("cross_entropy", p.ids)):
        for at in ("all", p.weights):
            value, grads = bptt.value_and_grad(
                p.cell,
                p.params,
                p.x,
                target,
                loss=loss,
                at=at,
                state=p.state,
                backend=backend,
            )
            key = loss + (" at all" if isinstance(at, str) else " at weights")
            results[key] = value
            results.update({f"{key}: {name}": array for name, array in by_name(grads).items()})
    return results


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits(layout: str, cell: str, dtype: str, backend: str) -> None:
    p = make_problem(cell, 5, 3, 4, 7, 2, dtype=dtype)
    expected = run(p, backend)
    found = run(mapped(p, LAYOUTS[layout]), backend)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=f"{name} of {p}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_plain_arrays_that_kernels_could_read(layout: str, backend: str) -> None:
    p = mapped(make_problem("tanh", 5, 3, 4, 7, 2), LAYOUTS[layout])
    for name, result in run(p, backend).items():
        if isinstance(result, float):
            continue
        assert type(result) is np.ndarray, name
        assert result.dtype == np.float64, name
        assert result.dtype.isnative, name
        assert result.flags.c_contiguous, name
        assert result.flags.writeable, name


def test_inputs_are_never_written_to(cell: str, backend: str) -> None:
    p = make_problem(cell, 5, 3, 4, 7, 2)
    inputs = {**p.params.arrays(), "x": p.x, "dy": p.dy}
    inputs.update(**parts("state", p.state), **parts("dstate", p.dstate))
    inputs.update(target=p.target, ids=p.ids, weights=p.weights)
    before = {name: array.copy() for name, array in inputs.items()}
    run(p, backend)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_results_share_no_memory_with_inputs_or_each_other(cell: str, backend: str) -> None:
    p = make_problem(cell, 1, 1, 3, 3, 2)
    tape = bptt.forward(cell, p.params, p.x, p.state, backend=backend)
    for grads in (p.backward(tape), tape.backward(None, p.dstate)):
        arrays = {
            **{f"tape.{name}": array for name, array in recorded(tape).items()},
            "x": p.x,
            **parts("state", p.state),
            "dy": p.dy,
            **parts("dstate", p.dstate),
            **p.params.arrays(),
            **{f"grads.{name}": array for name, array in by_name(grads).items()},
        }
        names = list(arrays)
        for i, one in enumerate(names):
            for other in names[:i]:
                assert not np.shares_memory(arrays[one], arrays[other]), f"{one}, {other}"


# Not of a GRU, whose biases do not enter as a sum.
@pytest.mark.parametrize("cell", ["linear", "tanh", "relu", "lstm"])
def test_the_two_bias_gradients_are_equal_and_two_arrays(cell: str, backend: str) -> None:
    p = make_problem(cell, 5, 3, 4, 7, 2)
    _, grads = bptt.value_and_grad(
        cell, p.params, p.x, p.target, loss="squared_error", at="all", backend=backend
    )
    np.testing.assert_array_equal(grads.b_ih, grads.b_hh)
    before = grads.b_hh.copy()
    grads.b_ih[:] = 7
    np.testing.assert_array_equal(grads.b_hh, before)


def test_writing_into_results_does_not_change_the_tape(cell: str, backend: str) -> None:
    p = make_problem(cell, 5, 3, 4, 7)
    tape = bptt.forward(cell, p.params, p.x, p.state, backend=backend)
    first = p.backward(tape)
    expected = {name: array.copy() for name, array in by_name(first).items()}
    for array in (*parts("last", tape.state).values(), *by_name(first).values()):
        array[...] = 7
    for name, array in by_name(p.backward(tape)).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    axes=st.permutations(range(3)),
    strides=st.tuples(*[st.sampled_from([-3, -1, 1, 2])] * 3),
)
def test_any_strides_of_x_give_the_same_bits(
    backend: str, axes: list[int], strides: tuple[int, ...]
) -> None:
    p = make_problem("tanh", 5, 3, 4, 7)
    stored = np.zeros([p.x.shape[axis] * abs(strides[axis]) for axis in axes])
    view = stored.transpose(np.argsort(axes))
    view = view[tuple(slice(None, None, stride) for stride in strides)]
    view = view[tuple(slice(n) for n in p.x.shape)]
    view[...] = p.x
    found = replace(p, x=view).forward_backward(backend)
    for name, value in p.forward_backward(backend).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
