"""The kernels for GPUs compile for every architecture, with all that they hold in registers."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from covering import pairwise
from cuda_tiles import (
    BYTES,
    CLUSTERS,
    GATES,
    MOST_BLOCKS,
    SHARED_KIB,
    THREADS,
    Tile,
    compiled,
    tile_for,
)

ROOT = Path(__file__).parents[1]

COLUMNS = (64, 128, 256, 512, 1024)
ROWS = (2, 8)
ALL = list(itertools.product(SHARED_KIB, BYTES, GATES, COLUMNS, ROWS))
# What cuda-core is asked for, a second or two each: a third of a few cases in which every pair of
# values meets.
SOME = [ALL[n] for n in pairwise(ALL)]


def test_no_tile_asks_for_more_than_a_chip_has() -> None:
    for arch, dtype, cell, columns, rows in ALL:
        tile = tile_for(arch, dtype, cell, columns, rows)
        assert tile.rows >= 1
        assert tile.shared_bytes <= SHARED_KIB[arch] * 1024
        assert tile.units * tile.blocks == columns
        assert tile.exchange != "Cluster" or (arch in CLUSTERS and tile.blocks <= MOST_BLOCKS)
        weights = GATES[cell] * columns * tile.units // THREADS
        assert weights * BYTES[dtype] // 4 <= 128, "half of a thread's 255 registers"


def nvrtc() -> Any:
    """Skips the test where there is no compiler."""
    pytest.importorskip("cuda.core", reason="there is no NVRTC: cuda-core is not installed")
    bindings = pytest.importorskip("cuda.bindings.nvrtc")
    try:
        bindings.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f"there is no NVRTC: {error}")


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "dtype", "cell", "columns", "rows"), SOME)
def test_kernels_compile_and_spill_nothing(
    arch: str, dtype: str, cell: str, columns: int, rows: int
) -> None:
    nvrtc()
    kernels = compiled(tile_for(arch, dtype, cell, columns, rows), arch)
    assert set(kernels) == {"forward", "backward", "one_forward", "one_backward"}
    for kernel in kernels.values():
        assert kernel.spilled == 0, kernel
        assert kernel.registers <= 255, kernel


@pytest.mark.slow
def test_a_kernel_that_holds_too_much_is_seen_to_spill() -> None:
    nvrtc()
    of_256_weights = Tile("float", "lstm", "Cluster", 64, 256, 2)
    kernels = compiled(of_256_weights, "sm_90")
    assert kernels["forward"].spilled > 0


@pytest.mark.slow
def test_the_program_that_runs_them_on_a_gpu_compiles(tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc")
    command = "nvcc -std=c++20 -fdevice-syntax-only --expt-relaxed-constexpr -arch=sm_90"
    folders = (f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'cpp'}")
    source = ROOT / "tests" / "cpp" / "test_cuda_device.cu"
    output = ("-c", str(source), "-o", str(tmp_path / "device.o"))
    ran = subprocess.run([*command.split(), *folders, *output], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_without_a_stage_the_bench_of_a_gpu_says_what_there_is() -> None:
    ran = subprocess.run([ROOT / "bench" / "device.sh"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "bench/device.sh run FOLDER" in ran.stdout
