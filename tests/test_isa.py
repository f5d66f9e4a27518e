"""The instruction set is chosen at run time, BPTT_ISA overrides it, and no bit depends on it.

(Among those with fused multiply-add; the generic kernels round twice and agree within tolerance.)
"""

from __future__ import annotations

import os
import subprocess
import sys

import bptt
import numpy as np
import pytest
from conftest import BACKENDS
from problems import Result, make_problem
from tolerance import assert_close, scales

pytestmark = pytest.mark.skipif(
    "native" not in BACKENDS, reason=f"native backend {bptt.backends()['native']}"
)

ISAS = bptt.info().isas
LANES = {"avx512": 16, "avx2": 8, "neon": 4, "generic": 4}  # of float32
FMA_ISAS = [isa for isa in ISAS if isa != "generic"]


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k != "BPTT_ISA"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


USE = """
import bptt, numpy as np
from bptt.compiled import core as _core
params = bptt.init_params("tanh", input_size=3, hidden_size=17, rng=0)
y = bptt.forward("tanh", params, np.ones((5, 2, 3), "f4"), backend="native").y
print(bptt.info().isa, _core.lanes())
"""


def test_the_generic_kernels_run_everywhere() -> None:
    assert "generic" in ISAS
    assert set(ISAS) <= set(LANES)


@pytest.mark.parametrize("isa", ISAS)
def test_bptt_isa_takes_effect(isa: str) -> None:
    """Not only in what info() says: the vectors of the kernels that run have another length."""
    done = run(USE, BPTT_ISA=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa, str(LANES[isa])]


@pytest.mark.parametrize("environment", [{}, {"BPTT_ISA": ""}])
def test_without_bptt_isa_the_best_is_used(environment: dict[str, str]) -> None:
    done = run(USE, **environment)
    assert done.stdout.split() == [ISAS[0], str(LANES[ISAS[0]])], done.stderr


@pytest.mark.parametrize("isa", ISAS)
def test_bptt_isa_may_be_written_in_capitals(isa: str) -> None:
    done = run(USE, BPTT_ISA=isa.upper())
    assert done.stdout.split() == [isa, str(LANES[isa])], done.stderr


@pytest.mark.parametrize("isa", ["sse", "avx-512", "avx2,avx512", " "])
def test_auto_does_not_pass_over_an_isa_that_is_none_and_info_says_the_same(isa: str) -> None:
    program = """
import bptt, numpy as np
from bptt.backends import resolve
params = bptt.init_params("tanh", input_size=3, hidden_size=5, rng=0)
for call in (
    lambda: resolve("auto", bptt.CELLS["tanh"], np.dtype("f4")),  # before anything is computed
    lambda: bptt.forward("tanh", params, np.ones((5, 2, 3), "f4")),
    lambda: bptt.plan("tanh", 5, 2, 3, 5),
):
    try:
        call()
    except ValueError as error:
        print(error)
print(bptt.backends()["native"])
print(*(line for line in str(bptt.info()).splitlines() if line.startswith("backend native")))
"""
    done = run(program, BPTT_ISA=isa)
    assert done.returncode == 0, done.stderr
    message = f"BPTT_ISA: expected one of {', '.join(ISAS)}, got '{isa}'"
    status = f"not available: {message}"
    assert done.stdout.splitlines() == [*[message] * 3, status, f"backend native  {status}"]


@pytest.mark.parametrize("isa", ["avx1024", "AVX3", "avx2,avx512", " "])
def test_an_isa_that_is_none_is_an_error_at_first_use(isa: str) -> None:
    program = """
import bptt, numpy as np
print("imported")
params = bptt.init_params("tanh", input_size=3, hidden_size=5, rng=0)
try:
    bptt.forward("tanh", params, np.ones((5, 2, 3), "f4"), backend="native")
except (ValueError, RuntimeError) as error:
    print(error)
print(bptt.forward("tanh", params, np.ones((5, 2, 3), "f4"), backend="numpy").backend)
"""
    done = run(program, BPTT_ISA=isa)
    assert done.returncode == 0, done.stderr
    imported, error, other = done.stdout.splitlines()
    assert (imported, other) == ("imported", "numpy")
    assert error == f"BPTT_ISA: expected one of {', '.join(ISAS)}, got '{isa}'"


@pytest.mark.skipif(
    "avx512" in ISAS or "neon" in ISAS,
    reason="this CPU has every instruction set that is built",
)
def test_an_isa_that_the_cpu_lacks_is_an_error_at_first_use() -> None:
    done = run(USE, BPTT_ISA="avx512")
    assert done.returncode == 1
    assert "ValueError: BPTT_ISA: expected one of" in done.stderr
    assert "got 'avx512', which this CPU does not support" in done.stderr


def test_an_isa_that_is_none_cannot_be_selected(core: object, keep_isa: None) -> None:
    before = core.isa()
    with pytest.raises(ValueError, match=r"^isa: expected one of .*generic, got 'sse9'"):
        core.select_isa("sse9")
    assert core.isa() == before


SHAPES = [(9, 33, 20, 129, 9), (17, 3, 31, 65, 5), (60, 1, 7, 100, 3), (5, 17, 1, 1, 1)]


def results(core: object, isa: str, p: object) -> Result:
    core.select_isa(isa)
    fused = p.value_and_grad("native", "cross_entropy", "all")
    squared = p.value_and_grad("native", "squared_error", "weights")
    return {
        **p.forward_backward("native"),
        **{f"cross entropy: {name}": result for name, result in fused.items()},
        **{f"squared error: {name}": result for name, result in squared.items()},
    }


@pytest.mark.skipif(len(FMA_ISAS) < 2, reason=f"this CPU has {', '.join(ISAS)} only")
@pytest.mark.parametrize("shape", SHAPES)
def test_all_instruction_sets_with_fma_give_the_same_bits(
    shape: tuple[int, ...], cell: str, dtype: str, core: object, keep_isa: None
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    expected = results(core, FMA_ISAS[0], p)
    for isa in FMA_ISAS[1:]:
        for name, found in results(core, isa, p).items():
            assert np.array_equal(found, expected[name]), f"{name} of {p} on {isa}"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_agrees_with_the_reference(
    isa: str, shape: tuple[int, ...], cell: str, dtype: str, core: object, keep_isa: None
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    core.select_isa(isa)
    expected = p.astype("float64").forward_backward("numpy")
    assert_close(p.forward_backward("native"), expected, scales(p), p, dtype)


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_keeps_a_rows_bits_in_any_batch(
    isa: str, cell: str, dtype: str, core: object, keep_isa: None
) -> None:
    core.select_isa(isa)
    p = make_problem(cell, 7, 9, 5, 33, dtype=dtype)
    whole = p.forward_backward("native")
    for n in range(9):
        alone = p.row(n).forward_backward("native")
        assert np.array_equal(alone["y"][:, 0], whole["y"][:, n]), p.row(n)
        assert np.array_equal(alone["dx"][:, 0], whole["dx"][:, n]), p.row(n)


@pytest.mark.skipif(len(FMA_ISAS) < 2, reason=f"this CPU has {', '.join(ISAS)} only")
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_by_lag_has_the_same_bits_too(
    shape: tuple[int, ...], cell: str, dtype: str, core: object, keep_isa: None
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    found = []
    for isa in FMA_ISAS:
        core.select_isa(isa)
        for at, target in (("last", p.target[-1]), ("all", p.target)):
            call = {"loss": "squared_error", "at": at, "state": p.state, "backend": "native"}
            terms = bptt.lag_terms(cell, p.params, p.x, target, **call)
            found.append([g for term in terms for g in term.params.values()])
        lags = bptt.lag_gradients(cell, p.params, p.x, p.target[-1], **{**call, "at": "last"})
        found.append([lags.norm["w_hh"], lags.signal])
    # Sums of the scalar products of the state are NumPy's.
    for one, other in zip(found[:3], found[3:], strict=False):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_compiled_module_has_the_cells_as_python_describes_them(core: object) -> None:
    described = {
        name: {
            "gates": cell.gates,
            "states": len(cell.states),
            "saved": cell.saved,
            "apart": bool(cell.apart),
        }
        for name, cell in bptt.CELLS.items()
        if cell.step is None
    }
    assert described == core.CELLS
