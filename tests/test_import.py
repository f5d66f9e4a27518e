"""``import bptt`` is light, and gives the names it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata, resources

import bptt
import pytest

PUBLIC = {
    "CELLS",
    "GradientCheck",
    "check_gradients",
    "AdaptiveHorizon",
    "BackendStatus",
    "Cell",
    "CellDefinition",
    "cell",
    "Grads",
    "Info",
    "JacobianNorms",
    "LagGradients",
    "LagMonitor",
    "LagRecord",
    "LagTerm",
    "LyapunovExponents",
    "jacobian_norms",
    "lag_gradients",
    "lag_terms",
    "lyapunov_exponents",
    "Params",
    "Plan",
    "Tape",
    "__version__",
    "backends",
    "forward",
    "get_num_threads",
    "info",
    "init_params",
    "plan",
    "Prediction",
    "predict",
    "set_num_threads",
    "value_and_grad",
}


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_no_optional_package_is_imported() -> None:
    loaded = run("import sys, bptt; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    heavy = {"numba", "llvmlite", "matplotlib", "sklearn", "scipy", "torch", "jax", "tqdm", "PIL"}
    assert "numpy" in loaded.split()
    assert heavy.isdisjoint(loaded.split())


def test_info_and_backends_import_no_optional_package_either() -> None:
    program = "import sys, bptt; str(bptt.info()); bptt.backends(); print('numba' in sys.modules)"
    assert run(program) == "False\n"


def test_public_names_are_those_of_the_contract() -> None:
    assert set(bptt.__all__) == PUBLIC
    assert len(bptt.__all__) == len(PUBLIC)
    for name in PUBLIC:
        assert getattr(bptt, name) is not None


def test_every_public_function_is_documented() -> None:
    for name in PUBLIC - {"CELLS", "__version__"}:
        assert len(getattr(bptt, name).__doc__ or "") > 40, name


def test_the_package_is_typed() -> None:
    assert resources.files(bptt).joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_distribution() -> None:
    try:
        assert metadata.version("bptt") == bptt.__version__
    except metadata.PackageNotFoundError:
        pytest.skip("bptt runs from its source folder and is not installed")


def test_info_says_what_it_runs_on() -> None:
    info = bptt.info()
    assert info.version == bptt.__version__
    assert info.cells == tuple(bptt.CELLS)
    assert info.threads == bptt.get_num_threads()
    assert info.backends == bptt.backends()
    assert (info.isa is None) == (not info.backends["native"].available)
    for name, status in info.backends.items():
        assert f"backend {name}" in str(info)
        assert str(status) in str(info)
    assert info.to_dict()["backends"]["numpy"]["available"] is True


@pytest.mark.skipif(
    os.environ.get("BPTT_REQUIRE_NATIVE") != "1", reason="BPTT_REQUIRE_NATIVE=1 is not set"
)
def test_the_native_backend_is_there_where_it_is_required() -> None:
    assert bptt.backends()["native"].available, bptt.backends()["native"]


def test_without_a_compiler_the_others_work_and_say_why() -> None:
    program = """
import sys
sys.modules["bptt._core"] = None  # as if it had not been built
import bptt
print(bptt.backends()["native"])
params = bptt.init_params("tanh", input_size=1, hidden_size=2)
import numpy as np
x = np.zeros((1, 1, 1), "f4")
print(bptt.info().isa, bptt.forward("tanh", params, x).backend != "native")
try:
    bptt.forward("tanh", params, x, backend="native")
except RuntimeError as error:
    print(error)
"""
    status, chosen, error = run(program).splitlines()
    assert status.startswith("not available: built without a C++ compiler (pip install")
    assert chosen == "None True"
    assert error.startswith("backend 'native' is not available: built without a C++ compiler")


def test_without_numba_its_error_says_how_to_get_it() -> None:
    program = """
import sys
sys.modules["numba"] = None  # as if it were not installed
import bptt, numpy as np
print(bptt.backends()["numba"])
params = bptt.init_params("tanh", input_size=1, hidden_size=2)
try:
    bptt.forward("tanh", params, np.zeros((1, 1, 1), "f4"), backend="numba")
except ImportError as error:
    print(error)
"""
    status, error = run(program).splitlines()
    assert status.startswith("not available: ")
    assert "pip install" in error
    assert "bptt[numba]" in error
