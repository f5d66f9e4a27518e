"""The kernels for GPUs compile for every architecture, with all that they hold in registers."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import bptt
import pytest
from bptt.backends.cuda import (
    CHIPS,
    FORMATS,
    Cut,
    Source,
    Tile,
    mma_tiles_for,
    source_of_steps,
    source_of_tile,
    tiles_for,
)
from bptt.backends.cuda.compiling import compiled, nvrtc_missing
from covering import pairwise

ROOT = Path(__file__).parents[1]

CELLS = ("linear", "tanh", "relu", "lstm", "gru")
HIDDEN = (64, 128, 256, 512, 768, 1024)
# Bytes of a value, or a precision.
PRODUCTS: tuple[int | str, ...] = (4, 8, *FORMATS)
ALL = list(itertools.product(CHIPS, PRODUCTS, CELLS, HIDDEN, ("fewest rows", "most rows")))
# What NVRTC is asked for, a second or two each: a few cases in which every pair of values meets.
SOME = [ALL[n] for n in pairwise(ALL)]


def nvrtc() -> None:
    """Skips the test where there is no compiler."""
    missing = nvrtc_missing()
    if missing is not None:
        pytest.skip(missing)


def tile_of(arch: str, product: int | str, cell: str, hidden: int, rows: str) -> Cut | None:
    tiles: list[Cut]
    if isinstance(product, str):
        tiles = [*mma_tiles_for(CHIPS[arch], bptt.CELLS[cell], product, hidden)]
    else:
        tiles = list(tiles_for(CHIPS[arch], bptt.CELLS[cell], product, hidden))
    return tiles[0 if rows == "fewest rows" else -1] if tiles else None


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "product", "cell", "hidden", "rows"), SOME)
def test_kernels_compile_and_spill_nothing(
    arch: str,
    product: int | str,
    cell: str,
    hidden: int,
    rows: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvrtc()
    monkeypatch.setenv("BPTT_CUDA_CACHE", "")
    tile = tile_of(arch, product, cell, hidden, rows)
    if tile is not None:
        expect_no_spills(source_of_tile(tile), arch)
    elif isinstance(product, int):
        expect_no_spills(source_of_steps(cell, product), arch)


def expect_no_spills(source: Source, arch: str) -> None:
    told = compiled(source.joined(), arch).told
    assert set(told) == set(source.names)
    for name, kernel in told.items():
        assert kernel.spilled == 0, name
        assert kernel.registers <= 255, name


@pytest.mark.slow
def test_kernels_of_a_step_compile_and_spill_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc()
    monkeypatch.setenv("BPTT_CUDA_CACHE", "")
    for cell in CELLS:
        expect_no_spills(source_of_steps(cell, 8), "sm_80")


@pytest.mark.slow
def test_a_kernel_that_holds_too_much_is_seen_to_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc()
    monkeypatch.setenv("BPTT_CUDA_CACHE", "")
    of_256_weights = Tile(4, "lstm", 4, "Cluster", 64, 256, 2)
    told = compiled(source_of_tile(of_256_weights).joined(), "sm_90").told
    assert told["forward"].spilled > 0


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
