"""The C interface, by ctypes: the bits of the Python functions, its errors, and what it exports."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple
from c_library import (
    Cell,
    Gradients,
    Incoming,
    Layer,
    Options,
    Record,
    loaded,
    made,
    shared_library,
)

try:
    FOLDER = Path(bptt.get_library_dir())
except RuntimeError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = pytest.mark.pairs  # of cells and kinds of sequences

T, B, INPUTS, H = 6, 4, 3, 5
CELLS = ("linear", "tanh", "relu", "lstm", "gru")
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
RESET = np.random.default_rng(5).random((T, B)) < 0.3
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": np.array([3, 6, 0, 5])},
    "reset": {"reset": RESET},
    "reverse": {"reverse": True},
    "all": {"lengths": np.array([2, 6, 4, 0]), "reset": RESET, "reverse": True},
}
INVALID, INTERRUPTED = 1, 3
TEAM = "bptt_team_1"  # by which copies of the engine find each other: csrc/engine/team_table.h


@pytest.fixture(scope="module")
def library() -> Any:
    return loaded(shared_library(FOLDER))


def layer_of(cell: str, dtype: str, kind: str) -> tuple[Any, bptt.Params, Any, tuple[Any, ...]]:
    rng = np.random.default_rng(2)
    sizes = {"input_size": INPUTS, "hidden_size": H}
    params = bptt.init_params(cell, **sizes, rng=rng, dtype=dtype)
    x = rng.standard_normal((T, B, INPUTS)).astype(dtype)
    states = tuple(rng.standard_normal((B, H)).astype(dtype) for _ in bptt.CELLS[cell].states)
    how = dict(KINDS[kind])
    if "lengths" in how:
        how["lengths"] = how["lengths"].astype(np.int32)
    if "reset" in how:
        how["reset"] = how["reset"].astype(np.uint8)
    layer = made(
        Layer,
        cell=cell.encode(),
        dtype=int(dtype == "float64"),
        steps=T,
        batch=B,
        inputs=INPUTS,
        hidden=H,
        x=x,
        **dict(zip("hc", states, strict=False)),
        **params.arrays(),
        **how,
    )
    return layer, params, x, states


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("save", ["gates", "minimal"])
def test_a_pass_and_its_way_back_have_the_bits_of_python(
    library: Any, cell: str, kind: str, dtype: str, save: str
) -> None:
    layer, params, x, states = layer_of(cell, dtype, kind)
    tape = bptt.forward(cell, params, x, as_given(states), backend="native", **KINDS[kind])
    rng = np.random.default_rng(3)
    dy, *dlast = (
        rng.standard_normal(a.shape).astype(dtype) for a in (tape.y, *as_tuple(tape.state))
    )
    expected = tape.backward(dy, as_given(tuple(dlast)))

    shape = made(Cell)
    assert library.bptt_describe_cell(cell.encode(), ctypes.byref(shape)) == 0
    assert (shape.gates, shape.states) == (bptt.CELLS[cell].gates, len(states))
    new = lambda *sizes: np.full(sizes, np.nan, dtype)  # noqa: E731
    written = {"y": new(T, B, H), "last_h": new(B, H)}
    if len(states) > 1:
        written |= {"c_y": new(T, B, H), "last_c": new(B, H)}
    if save == "gates" and shape.saved:
        written["saved"] = new(T, B, shape.saved, H)
    record = made(Record, **written)
    assert library.bptt_forward(ctypes.byref(layer), ctypes.byref(record), None) == 0
    assert np.array_equal(written["y"], tape.y)
    for name, e in zip(("last_h", "last_c"), as_tuple(tape.state), strict=False):
        assert np.array_equal(written[name], e)

    found = {name: np.full_like(getattr(params, name), np.nan) for name in WEIGHTS}
    found |= {"x": np.full_like(x, np.nan)}
    found |= {name: new(B, H) for name, _ in zip("hc", states, strict=False)}
    incoming = made(Incoming, y=dy, **dict(zip(("last_h", "last_c"), dlast, strict=False)))
    into = made(Gradients, **found)
    given = map(ctypes.byref, (layer, record, incoming, into))
    assert library.bptt_backward(*given, None) == 0, library.bptt_error_message()
    for name in ("x", *WEIGHTS):
        assert np.array_equal(found[name], getattr(expected, name)), name
    for name, e in zip("hc", as_tuple(expected.state), strict=False):
        assert np.array_equal(found[name], e), name


def test_without_a_state_it_is_zero_and_nothing_else_has_to_be_there(library: Any) -> None:
    layer, params, x, _ = layer_of("lstm", "float32", "dense")
    layer.h = layer.c = None
    y = np.empty((T, B, H), np.float32)
    assert library.bptt_forward(ctypes.byref(layer), ctypes.byref(made(Record, y=y)), None) == 0
    assert np.array_equal(y, bptt.forward("lstm", params, x, backend="native").y)


def test_a_struct_of_an_older_version_has_zeros_for_what_it_lacks(library: Any) -> None:
    layer, params, x, states = layer_of("tanh", "float32", "all")
    layer.struct_size = Layer.lengths.offset  # it had neither lengths nor resets
    layer.reverse = 0
    y = np.empty((T, B, H), np.float32)
    assert library.bptt_forward(ctypes.byref(layer), ctypes.byref(made(Record, y=y)), None) == 0
    assert np.array_equal(y, bptt.forward("tanh", params, x, states[0], backend="native").y)


def test_what_a_newer_version_has_is_an_error_if_it_is_set(library: Any) -> None:
    class Newer(ctypes.Structure):
        _fields_ = [("known", Record), ("added", ctypes.c_void_p)]

    layer = layer_of("tanh", "float32", "dense")[0]
    y = np.full((T, B, H), 7, np.float32)
    record = Newer(made(Record, y=y), None)
    record.known.struct_size = ctypes.sizeof(Newer)
    assert library.bptt_forward(ctypes.byref(layer), ctypes.byref(record), None) == 0
    y[:] = 7
    record.added = 1
    assert library.bptt_forward(ctypes.byref(layer), ctypes.byref(record), None) == INVALID
    assert library.bptt_error_message().startswith(b"record: a member is set that this version")
    assert (y == 7).all()


def test_any_byte_but_zero_is_a_reset(library: Any) -> None:
    layer, params, x, states = layer_of("gru", "float32", "reset")
    layer.kept["reset"] *= 255
    y = np.empty((T, B, H), np.float32)
    assert library.bptt_forward(ctypes.byref(layer), ctypes.byref(made(Record, y=y)), None) == 0
    expected = bptt.forward("gru", params, x, states[0], backend="native", reset=RESET)
    assert np.array_equal(y, expected.y)


WRONG = {
    "cell: unknown name 'rnn'": {"cell": b"rnn"},
    "cell: expected a name": {"cell": None},
    "dtype: expected BPTT_FLOAT32": {"dtype": 7},
    "steps, batch: expected sizes": {"steps": -1},
    "inputs, hidden: expected sizes": {"hidden": 0},
    "steps, batch, inputs, hidden: expected sizes": {"steps": 1 << 32, "batch": 1 << 32},
    "x: expected an array": {"x": None},
    "w_ih, w_hh: expected arrays": {"w_hh": None},
    "h, c: expected both or neither": {"c": None},
    "layer: expected struct_size": {"struct_size": 0},
}


@pytest.mark.parametrize("message", WRONG)
@pytest.mark.full_product
def test_what_is_wrong_is_named_and_nothing_is_written(library: Any, message: str) -> None:
    layer = layer_of("lstm", "float32", "dense")[0]
    for name, value in WRONG[message].items():
        setattr(layer, name, value)
    y = np.full((T, B, H), 7, np.float32)
    status = library.bptt_forward(ctypes.byref(layer), ctypes.byref(made(Record, y=y)), None)
    assert status == INVALID
    assert library.bptt_error_message().decode().startswith(message)
    assert (y == 7).all()


def test_null_pointers_and_lengths_out_of_range_are_errors(library: Any) -> None:
    layer = layer_of("tanh", "float32", "lengths")[0]
    assert library.bptt_forward(None, None, None) == INVALID
    assert library.bptt_error_message() == b"layer: expected a struct, got NULL"
    layer.kept["lengths"][1] = 7
    record = made(Record, y=np.empty((T, B, H), np.float32))
    assert library.bptt_forward(ctypes.byref(layer), ctypes.byref(record), None) == INVALID
    assert library.bptt_error_message() == b"lengths: expected lengths from 0 to steps"


def test_a_callback_ends_a_long_call(library: Any) -> None:
    asked = []
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: asked.append(1) or 1)
    steps, batch, hidden = 60_000, 16, 64
    w = np.zeros((hidden, hidden), np.float32)
    y = np.empty((steps, batch, hidden), np.float32)
    sizes = {"steps": steps, "batch": batch, "inputs": hidden, "hidden": hidden}
    layer = made(Layer, cell=b"tanh", x=np.zeros_like(y), w_ih=w, w_hh=w, **sizes)
    options = made(Options, threads=1, interrupt=ctypes.cast(callback, ctypes.c_void_p).value)
    given = map(ctypes.byref, (layer, made(Record, y=y), options))
    assert library.bptt_forward(*given) == INTERRUPTED
    assert len(asked) == 1


def test_the_version_is_that_of_the_package(library: Any) -> None:
    assert library.bptt_version().decode() == bptt.__version__
    assert library.bptt_isa().decode() == bptt.info().isa
    header = (Path(bptt.get_include()) / "bptt" / "bptt.h").read_text()
    numbers = [f"VERSION_{part}" for part in ("MAJOR", "MINOR", "PATCH")]
    found = [line.split()[-1] for n in numbers for line in header.splitlines() if n in line]
    assert ".".join(found) == bptt.__version__


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_only_the_functions_of_the_header_are_exported() -> None:
    library = next(FOLDER.glob("libbptt.*"))
    command = ["nm", "-D", "--defined-only", str(library)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in found.splitlines()}
    header = (Path(bptt.get_include()) / "bptt" / "bptt.h").read_text()
    assert names - {TEAM} == {n for n in names if f"{n}(" in header}
    assert "bptt_backward" in names
    assert library.stat().st_size < 1_500_000
