"""``import bptt`` is light, and gives the names it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import bptt
import numpy as np
import pytest

PUBLIC = {
    "CELLS",
    "GradientCheck",
    "check_gradients",
    "AdaptiveHorizon",
    "BackendStatus",
    "Cell",
    "CellDefinition",
    "DevicePlan",
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
    "get_flush_subnormals",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "info",
    "init_params",
    "plan",
    "set_flush_subnormals",
    "Prediction",
    "StackGrads",
    "StackTape",
    "Stepper",
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


def test_info_and_backends_import_numba_to_know_whether_it_works_and_no_other() -> None:
    program = """
import sys, bptt
str(bptt.info())
bptt.backends()
print(*sorted({"matplotlib", "sklearn", "torch", "jax", "tqdm"} & sys.modules.keys()))
"""
    assert run(program) == "\n"


@pytest.mark.skipif(
    not bptt.backends()["native"].available, reason="the native backend is not available"
)
def test_a_call_that_native_does_imports_no_numba() -> None:
    program = """
import sys, bptt, numpy as np
params = bptt.init_params("tanh", input_size=1, hidden_size=2)
bptt.forward("tanh", params, np.zeros((1, 1, 1), "f4"))
print("numba" in sys.modules)
"""
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
    assert "pip install numba" in error


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_front_end_without_its_framework_says_how_to_get_it(framework: str) -> None:
    program = f"""
import sys
sys.modules["{framework}"] = None  # as if it were not installed
try:
    import bptt.{framework}
except ModuleNotFoundError as error:
    print(error.name, "|", error)
"""
    name, message = run(program).strip().split(" | ")
    assert name == framework
    assert message.endswith(f": pip install {framework}")


# Statements before the import of bptt, and how the reason begins.
BROKEN = {
    "numba": {
        "not installed": ("sys.modules['numba'] = None", "Numba is not installed (pip install"),
        "no llvmlite": (
            "raising('llvmlite', ModuleNotFoundError(\"No module named 'llvmlite'\"))",
            "Numba cannot be imported: No module named 'llvmlite' (pip install --upgrade",
        ),
        "another NumPy": (
            "raising('numba', ImportError('Numba needs NumPy 2.0 or less'))",
            "Numba cannot be imported: Numba needs NumPy 2.0 or less (pip install --upgrade",
        ),
        "damaged": (
            "raising('numba', SystemError('initialization of\\n _internal failed'))",
            "Numba cannot be imported: initialization of _internal failed (pip install",
        ),
        "said nothing": (
            "raising('numba', SystemError())",
            "Numba cannot be imported: SystemError (pip install",
        ),
        "too old": (
            "import numba; numba.__version__ = '0.56.4'",
            "Numba 0.56.4 is too old: 0.57 or newer is needed (pip install --upgrade",
        ),
        "interface changed": (
            "import numba; del numba.cfunc",
            "Numba cannot be imported: cannot import name 'cfunc'",
        ),
        "compiler switched off": (
            "os.environ['NUMBA_DISABLE_JIT'] = '1'",
            "Numba's compiler is switched off (NUMBA_DISABLE_JIT",
        ),
        "compiler switched off in the program": (
            "import numba; numba.config.DISABLE_JIT = True",
            "Numba's compiler is switched off (NUMBA_DISABLE_JIT",
        ),
    },
    "native": {
        "not built": ("sys.modules['bptt._core'] = None", "built without a C++ compiler"),
        "undefined symbol": (
            "raising('bptt._core', ImportError('_core.so: undefined symbol: f'))",
            "its compiled module cannot be loaded: _core.so: undefined symbol: f",
        ),
        "not readable": (
            "raising('bptt._core', OSError('cannot open shared object file'))",
            "its compiled module cannot be loaded: cannot open shared object file",
        ),
    },
}

BREAK = """
import os, sys

def raising(broken, error):
    class Finder:
        def find_spec(self, name, path, target=None):
            if name == broken:
                import importlib.machinery
                return importlib.machinery.ModuleSpec(name, self)
        def create_module(self, spec):
            return None
        def exec_module(self, module):
            raise error
    sys.meta_path.insert(0, Finder())
"""

USE = """
import bptt, numpy as np
status = bptt.backends()[BACKEND]
print(status)
params = bptt.init_params("tanh", input_size=1, hidden_size=2)
x = np.zeros((1, 1, 1), "f4")
try:
    bptt.forward("tanh", params, x, backend=BACKEND)
except (ImportError, RuntimeError) as error:
    print(error)
print(status == bptt.info().backends[BACKEND])
print(bptt.forward("tanh", params, x).backend != BACKEND or "native")
"""


@pytest.mark.parametrize(
    ("backend", "how"), [(b, how) for b, rows in BROKEN.items() for how in rows]
)
def test_a_backend_that_cannot_compute_says_so_and_auto_takes_another(
    backend: str, how: str
) -> None:
    if backend == "numba" and not bptt.backends()["numba"].available:
        pytest.skip("Numba is not available here anyway")
    statement, reason = BROKEN[backend][how]
    status, error, same, other = run(
        f"BACKEND = {backend!r}{BREAK}\n{statement}\n{USE}", NUMBA_DISABLE_JIT="0"
    ).splitlines()
    assert status.startswith(f"not available: {reason}")
    assert error == f"backend {backend!r} is {status}"
    assert (same, other) == ("True", "True")


def test_a_module_compiled_for_another_python_is_named(tmp_path: Path) -> None:
    from bptt import compiled

    (tmp_path / "_core.pyi").touch()
    assert compiled._why_not_found(tmp_path).startswith("built without a C++ compiler")
    (tmp_path / "_core.cpython-27-x86_64-linux-gnu.so").touch()
    assert compiled._why_not_found(tmp_path) == (
        "its compiled module is for another Python (_core.cpython-27-x86_64-linux-gnu.so); "
        "install it again"
    )


def test_a_cell_that_no_backend_knows_is_an_error_that_says_so() -> None:
    cell = bptt.Cell("made up", 1, "S_t = ?")
    params = bptt.init_params("tanh", input_size=1, hidden_size=2)
    with pytest.raises(TypeError, match=r"^no available backend computes cell 'made up' in dtype"):
        bptt.forward(cell, params, np.zeros((1, 1, 1), "f4"))
