"""What every test may ask for: each available backend, each cell, each dtype of the kernels."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

# The matrices of these tests are small. NumPy's own threads would do nothing but wait for each
# other, and where a processor is busy they wait long: with them the suite takes five times as much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import bptt
import custom_cells  # noqa: F401  defines mgu, a cell like any other
import numpy as np
import pytest
from bptt.backends import REGISTRY
from problems import LOSSES

# A job that a shell starts in the background ignores Ctrl-C, and so would the programs that tests
# start to send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

STATUS = bptt.backends()
BACKENDS = [name for name, status in STATUS.items() if status.available]


def pytest_report_header() -> list[str]:
    """Say which backends this run tests, and why it does not test the others."""
    return [f"backend {name}: {status}" for name, status in STATUS.items()]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return that_computes_the_cell(request)


@pytest.fixture(params=[name for name in ("native", "numba") if name in BACKENDS])
def compiled_backend(request: pytest.FixtureRequest) -> str:
    return that_computes_the_cell(request)


def that_computes_the_cell(request: pytest.FixtureRequest) -> str:
    """The backend of this test, if it computes the cell that the test has, if it has one."""
    name = request.param
    if "cell" in request.fixturenames:
        cell = request.getfixturevalue("cell")
        if not REGISTRY[name].supports(bptt.CELLS[cell], np.dtype("float32")):
            pytest.skip(f"the {name} backend does not compute {cell}")
    return name


@pytest.fixture(params=list(bptt.CELLS))
def cell(request: pytest.FixtureRequest) -> str:
    if "core" in request.fixturenames and bptt.CELLS[request.param].step is not None:
        pytest.skip(f"{request.param} is not in the compiled module")
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def keep_num_threads() -> Iterator[None]:
    """Put the number of threads back after the test."""
    before = bptt.get_num_threads()
    yield
    bptt.set_num_threads(before)


@pytest.fixture
def core() -> object:
    """The compiled module itself; the test is skipped where it was not built."""
    if not STATUS["native"].available:
        pytest.skip(f"native backend {STATUS['native']}")
    from bptt.backends import native

    return native._core


@pytest.fixture
def keep_isa(core: object) -> Iterator[None]:
    """Put the instruction set back after the test."""
    before = core.isa()
    yield
    core.select_isa(before)
