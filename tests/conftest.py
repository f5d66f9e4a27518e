"""What every test may ask for: each available backend, each cell, each dtype of the kernels.

And which cases run: `--tier quick`, the default, takes of each test a few cases in which every pair
of parameter values meets (covering.py), all cases of a test marked `full_product`, and none of one
marked `slow`. `--tier rest` takes what is left, and `--tier all` takes both.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterator

# The matrices of these tests are small. NumPy's own threads would do nothing but wait for each
# other, and where a processor is busy they wait long: with them the suite takes five times as much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Nor would those of several workers of pytest-xdist: each takes its share of the processors.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS",
        str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))),
    )

import bptt
import custom_cells  # noqa: F401  defines mgu, a cell like any other
import numpy as np
import pytest
from bptt.backends import REGISTRY
from covering import pairwise
from problems import LOSSES, make_problem

# A job that a shell starts in the background ignores Ctrl-C, and so would the programs that tests
# start to send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

IN_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # which must not start workers of its own
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

STATUS = bptt.backends()
BACKENDS = [name for name in REGISTRY if STATUS[name].available]


def pytest_report_header() -> list[str]:
    """Say which backends this run tests, and why it does not test the others."""
    return [f"backend {name}: {status}" for name, status in STATUS.items()]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier",
        choices=("quick", "rest", "all"),
        default="quick",
        help="which cases run: few in which all pairs of values meet, those left by these, or all",
    )


# --- in parallel --------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the option
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs on all processors, if pytest-xdist is there and -n was not given."""
    whole_suite = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    no_number = getattr(config.option, "numprocesses", 0) is None
    if whole_suite and no_number and not IN_WORKER:
        config.option.numprocesses = "auto"
        if config.option.dist == "no":
            config.option.dist = "loadfile"  # the tests of a file share its fixtures
            config.option.loadscopereorder = False  # which takes files of many, short cases first


@pytest.fixture(scope="session", autouse=True)
def numba_kernels(request: pytest.FixtureRequest) -> None:
    """Each worker compiles its share of Numba's kernels, and finds the others in Numba's cache."""
    if not IN_WORKER or not any("numba" in names_of_values(i) for i in request.session.items):
        return
    before = bptt.get_num_threads()
    # Both kernels of a dtype in one process: the second has half of the first's work done.
    for dtype in ("float32", "float64")[WORKER::WORKERS]:
        for threads in (1, 2):
            bptt.set_num_threads(threads)
            make_problem("tanh", 70, 64, 64, 64, dtype=dtype).forward_backward("numba")
    bptt.set_num_threads(before)


# --- which cases --------------------------------------------------------------------------------


def pytest_pycollect_makeitem(collector: pytest.Collector) -> list[pytest.Item] | None:
    """Cases of a module marked `pairs` are not even made for the tier that leaves them out."""
    rest = collector.config.getoption("tier") == "rest"
    return [] if rest and collector.get_closest_marker("pairs") else None


class Planned:
    """A case that is not made yet, with what the choice of cases reads of one."""

    def __init__(self, metafunc: pytest.Metafunc, callspec: object) -> None:
        self.callspec = callspec
        self.fixturenames = metafunc.fixturenames
        self.nodeid = metafunc.definition.nodeid
        self._definition = metafunc.definition

    def get_closest_marker(self, name: str) -> object:
        own = [mark for mark in self.callspec.marks if mark.name == name]
        return own[0] if own else self._definition.get_closest_marker(name)


@pytest.hookimpl(hookwrapper=True)  # when all parameters are there
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Where nothing but the quick tier chooses, the cases that it leaves out are not even made."""
    yield
    calls = metafunc._calls
    if metafunc.config.getoption("tier") != "quick" or chooses_cases(metafunc.config):
        return
    cases = [case for call in calls if exists(case := Planned(metafunc, call))]
    # Without any there would be one that has no parameters: the first stays, and is left out below.
    calls[:] = [case.callspec for case in quick_tier(cases)] or calls[:1]


def chooses_cases(config: pytest.Config) -> bool:
    """Whether the command line chooses cases of a test: of these all pairs meet then."""
    named = any("[" in argument for argument in config.args)
    return named or any(map(config.getoption, ("keyword", "markexpr", "deselect")))


@pytest.hookimpl(trylast=True)  # after -k and -m: of what these select, all pairs meet
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = {item.nodeid: item for item in items if exists(item)}
    tier = config.getoption("tier")
    if tier != "all":
        quick = {item.nodeid: item for item in quick_tier(list(chosen.values()))}
        rest = {
            nodeid: item
            for nodeid, item in chosen.items()
            if nodeid not in quick and not item.get_closest_marker("pairs")
        }
        chosen = quick if tier == "quick" else rest
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
    items[:] = [item for item in items if item.nodeid in chosen]


def values_of(item: pytest.Item | Planned) -> dict[str, object]:
    """The parameters of a case, by name."""
    return item.callspec.params if hasattr(item, "callspec") else {}


def exists(item: pytest.Item | Planned) -> bool:
    """Whether the backend of a case computes its cell; any may have neither."""
    case = values_of(item)
    cell = bptt.CELLS.get(case.get("cell"))
    backend = case.get("backend", case.get("compiled_backend"))
    if "core" in item.fixturenames:
        backend = "native"
    if cell is None or backend not in REGISTRY:
        return True
    return REGISTRY[backend].supports(cell, np.dtype("float32"))


def quick_tier(items: list[pytest.Item | Planned]) -> Iterator[pytest.Item | Planned]:
    """All pairs of parameter values of each test, or its full product where it is marked so."""
    tests = defaultdict(list)
    for item in items:
        if not item.get_closest_marker("slow"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        if cases[0].get_closest_marker("full_product"):
            yield from cases
        else:
            yield from (cases[n] for n in pairwise([names_of_values(case) for case in cases]))


def names_of_values(item: pytest.Item | Planned) -> tuple[str, ...]:
    """The parts of a case's id. Parameters that one `parametrize` gives together are one part."""
    return tuple(item.callspec._idlist) if hasattr(item, "callspec") else ()


# --- fixtures -----------------------------------------------------------------------------------


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[name for name in ("native", "numba") if name in BACKENDS])
def compiled_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=list(bptt.CELLS))
def cell(request: pytest.FixtureRequest) -> str:
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
    from bptt import compiled

    return compiled.core


@pytest.fixture
def keep_isa(core: object) -> Iterator[None]:
    """Put the instruction set back after the test."""
    before = core.isa()
    yield
    core.select_isa(before)
