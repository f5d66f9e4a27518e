"""Between a plan and a GPU: NVRTC, its cache, and the driver, as far as that goes without one."""

from __future__ import annotations

import sys
import threading
import time
import types
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bptt
import pytest
from bptt.backends.cuda import CHIPS, Launch, compiling, launcher_in_use
from bptt.backends.cuda import driver as of_driver
from bptt.backends.cuda.chips import chip_named, chip_of
from bptt.backends.cuda.compiling import compiled, nvrtc_missing
from bptt.backends.cuda.driver import DriverKernel, DriverLauncher

NOTHING = 'extern "C" __global__ void nothing() {}'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for compiled kernels; skips the test where nothing compiles them."""
    missing = nvrtc_missing()
    if missing is not None:
        pytest.skip(missing)
    monkeypatch.setenv("BPTT_CUDA_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def forbidden(*_: object) -> Any:
    raise AssertionError("compiled again")


# --- NVRTC and the cache -------------------------------------------------------------------------


def test_a_kernel_is_compiled_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled(NOTHING, "sm_90")
    assert first.cubin[:4] == b"\x7fELF"
    assert first.told["nothing"].spilled == 0
    assert compiled(NOTHING, "sm_80").cubin != first.cubin
    assert len(list(cache.glob("*.cubin"))) == 2
    monkeypatch.setattr(compiling, "_compile", forbidden)
    assert compiled(NOTHING, "sm_90") == first


def test_a_damaged_file_of_the_cache_is_made_again(cache: Path) -> None:
    first = compiled(NOTHING, "sm_90")
    (path,) = cache.glob("*.cubin")
    whole = path.read_bytes()
    for damaged in (b"", b"{}\nabc", whole[:-1], b"\xff" + whole):
        path.write_bytes(damaged)
        assert compiled(NOTHING, "sm_90") == first
        assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_warns_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BPTT_CUDA_CACHE", str(tmp_path / "file" / "kernels"))
    monkeypatch.setattr(compiling._Warned, "of_cache", False)
    with pytest.warns(RuntimeWarning, match="compiled kernels are not kept: .*BPTT_CUDA_CACHE"):
        first = compiled(NOTHING, "sm_90")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(NOTHING, "sm_90") == first


def test_an_empty_name_asks_for_no_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_CUDA_CACHE", "")
    compiled(NOTHING, "sm_90")
    assert not cache.exists()


def test_a_text_that_is_none_is_an_error_with_the_compilers_words(cache: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)does not compile the kernels for sm_90: .*oops"):
        compiled("oops", "sm_90")


def test_a_chip_that_nvrtc_does_not_know_is_an_error_with_a_remedy(cache: Path) -> None:
    with pytest.raises(RuntimeError, match=r"NVRTC \d+\.\d+ does not compile for sm_999; pip inst"):
        compiled(NOTHING, "sm_999")


def test_nvrtc_that_cannot_be_loaded_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import nvrtc

    def no_library() -> Any:
        raise RuntimeError("no libnvrtc.so.13\nmore")

    monkeypatch.setattr(nvrtc, "nvrtcVersion", no_library)
    with pytest.raises(
        RuntimeError, match=r"NVRTC cannot be loaded \(no libnvrtc.so.13\); pip inst"
    ):
        compiled(NOTHING, "sm_90")


def test_without_cuda_core_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    reason = DriverLauncher().missing()
    assert reason is not None
    assert reason.startswith("cuda-core is not installed")
    assert reason.endswith("pip install 'bptt[cuda]'")


# --- The driver ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "count", "reason"),
    [
        ("CUDA_ERROR_NO_DEVICE", 0, "the NVIDIA driver finds no GPU"),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", 0, "cannot be used: CUDA_ERROR_SYSTEM_DRIVER_MISM"),
        ("CUDA_SUCCESS", 0, "the NVIDIA driver finds no GPU"),
        ("CUDA_SUCCESS", 1, None),
    ],
)
def test_a_driver_without_a_gpu_is_told(
    status: str, count: int, reason: str | None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cuda.bindings import driver

    monkeypatch.setattr(driver, "cuInit", lambda flags: (getattr(driver.CUresult, status),))
    counted = (driver.CUresult.CUDA_SUCCESS, count)
    monkeypatch.setattr(driver, "cuDeviceGetCount", lambda: counted)
    missing = DriverLauncher().missing()
    assert (missing is None) == (reason is None)
    assert reason is None or (missing is not None and reason in missing)


class Recorded:
    """What passes for a driver: it notes how kernels are launched, and what they ask for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        core = pytest.importorskip("cuda.core")
        from cuda.bindings import driver

        self.configs: list[dict[str, Any]] = []
        self.launched: list[tuple[int, ...]] = []
        self.streams: list[Any] = []
        self.asked: list[tuple[str, int]] = []
        self.status = driver.CUresult.CUDA_SUCCESS

        def set_attribute(attribute: Any, value: int, handle: Any, device: int) -> Any:
            self.asked.append((attribute.name, value))
            return (self.status,)

        def config(**given: Any) -> dict[str, Any]:
            self.configs.append(given)
            return given

        def device(number: int) -> Any:
            return types.SimpleNamespace(set_current=lambda: self.current.append(number))

        def put(stream: Any, config: Any, kernel: Any, *arguments: int) -> None:
            self.streams.append(stream.__cuda_stream__())
            self.launched.append(arguments)

        monkeypatch.setattr(driver, "cuKernelSetAttribute", set_attribute)
        monkeypatch.setattr(core, "LaunchConfig", config)
        monkeypatch.setattr(core, "launch", put)
        monkeypatch.setattr(core, "Device", device)
        self.current: list[int] = []
        kernel = types.SimpleNamespace(handle=7)
        self.kernel = DriverKernel(kernel, 1, CHIPS["sm_90"], "forward")


def test_a_launch_says_what_the_driver_has_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Recorded(monkeypatch)
    told.kernel.launch(Launch(12, 256, 4, False, 1000), [1, 2], 99)
    told.kernel.launch(Launch(6, 256, 1, True, 1000), [3], 0)
    assert told.configs == [
        {"grid": 3, "block": 256, "shmem_size": 1000, "cluster": 4},  # clusters
        {"grid": 6, "block": 256, "shmem_size": 1000, "is_cooperative": True},
    ]
    assert told.launched == [(1, 2), (3,)]
    assert told.streams == [(0, 99), (0, 0)]
    assert told.current == [1, 1]
    assert told.asked == []


def test_much_shared_memory_and_large_clusters_are_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Recorded(monkeypatch)
    for _ in range(2):
        told.kernel.launch(Launch(16, 256, 16, False, 100_000), [], 0)
    assert told.asked == [
        ("CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES", 100_000),
        ("CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED", 1),
    ]


def test_what_the_driver_refuses_is_an_error_that_names_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Recorded(monkeypatch)
    told.status = type(told.status).CUDA_ERROR_INVALID_VALUE
    with pytest.raises(
        RuntimeError, match=r"'forward' on H100 SXM: .* = 900000 is refused: CUDA_E"
    ):
        told.kernel.launch(Launch(1, 256, 1, False, 900_000), [], 0)

    def refuse(*_: object) -> None:
        raise OSError("too many resources requested")

    monkeypatch.setattr(sys.modules["cuda.core"], "launch", refuse)
    with pytest.raises(
        RuntimeError, match=r"'forward' cannot be launched on H100 SXM.*too many re"
    ):
        told.kernel.launch(Launch(1, 256), [], 0)


# --- Chips ---------------------------------------------------------------------------------------


def of_capability(major: int, minor: int) -> Any:
    facts: dict[str, Any] = {"shared_bytes": 99 << 10, "multiprocessors": 20, "cooperative": True}

    return chip_of("a GPU", (major, minor), most_cluster=4, khz=1_500_000, **facts)


def test_a_chip_tells_more_than_the_table() -> None:
    known = of_capability(9, 0)
    assert (known.arch, known.multiprocessors, known.ghz) == ("sm_90", 20, 1.5)
    assert known.most_cluster == 4, "what it was found to have, not what its kind may have"
    assert of_capability(12, 1).fma64 == CHIPS["sm_120"].fma64


class CUDAError(Exception):
    """What passes for cuda-core's."""


class Device:
    """What passes for a GPU with clusters as far as `room` has any; it notes what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: dict[int, int], *, has: bool) -> None:
        core = pytest.importorskip("cuda.core")
        from cuda.bindings import driver

        self.room, self.asked, self.allowed = room, [], []
        self.current: list[Any] = []  # what was made the thread's, in order
        self.compiled = 0
        self.refusal: Exception = CUDAError("CUDA_ERROR_INVALID_CLUSTER_SIZE")
        self.no_context: Exception | None = None
        properties = types.SimpleNamespace(
            max_shared_memory_per_block_optin=227 << 10,
            multiprocessor_count=132,
            cluster_launch=has,
            cooperative_launch=1,
            clock_rate=1_980_000,
        )
        self.device = types.SimpleNamespace(
            name="a GPU",
            compute_capability=(9, 0),
            properties=properties,
            set_current=self.set_current,
            default_stream="the stream",
        )
        occupancy = types.SimpleNamespace(max_active_clusters=self.max_active_clusters)
        kernel = types.SimpleNamespace(occupancy=occupancy, handle=7)
        code = types.SimpleNamespace(get_kernel=lambda name: kernel)

        def set_attribute(attribute: Any, value: int, handle: Any, device: int) -> Any:
            self.allowed.append((attribute.name.removeprefix("CU_FUNC_ATTRIBUTE_"), value))
            return (driver.CUresult.CUDA_SUCCESS,)

        monkeypatch.setattr(driver, "cuKernelSetAttribute", set_attribute)

        def set_context(context: Any) -> Any:
            self.current.append(context)
            return (driver.CUresult.CUDA_SUCCESS,)

        now = lambda: (driver.CUresult.CUDA_SUCCESS, "another's context")  # noqa: E731
        monkeypatch.setattr(driver, "cuCtxGetCurrent", now)
        monkeypatch.setattr(driver, "cuCtxSetCurrent", set_context)
        monkeypatch.setattr(core, "Device", lambda number: self.device)
        monkeypatch.setattr(core, "LaunchConfig", lambda **given: given)
        of_cubin = types.SimpleNamespace(from_cubin=lambda cubin: code)
        monkeypatch.setattr(core, "ObjectCode", of_cubin)
        monkeypatch.setattr(of_driver, "compiled", self.compile)

    def set_current(self) -> None:
        if self.no_context is not None:
            raise self.no_context
        self.current.append("this device")

    def compile(self, text: str, arch: str) -> compiling.Code:
        self.compiled += 1
        return compiling.Code(b"", {})

    def max_active_clusters(self, config: dict[str, Any], *, stream: Any) -> int:
        assert stream == "the stream"
        assert (config["grid"], config["block"], config["shmem_size"]) == (1, 256, 227 << 10)
        self.asked.append(config["cluster"])
        if config["cluster"] not in self.room:
            raise self.refusal
        return self.room[config["cluster"]]


@pytest.mark.parametrize(
    ("room", "most"),
    [
        ({16: 7, 8: 16, 4: 32, 2: 66}, 16),
        ({16: 0, 8: 16, 4: 32, 2: 66}, 8),  # too few in reach of each other
        ({8: 2, 4: 4, 2: 8}, 8),  # a size that the driver refuses
        ({16: 0, 8: 0, 4: 2, 2: 4}, 4),  # a part of a chip
        ({16: 0, 8: 0, 4: 0, 2: 0}, 1),
    ],
)
def test_how_large_clusters_are_is_asked_of_the_device(
    room: dict[int, int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, room, has=True)
    chip = DriverLauncher().chip(0)
    assert (chip.most_cluster, chip.multiprocessors, chip.shared_bytes) == (most, 132, 227 << 10)
    assert device.asked == [size for size in (16, 8, 4, 2) if size >= max(most, 2)]
    assert device.allowed == [  # before it is asked
        ("MAX_DYNAMIC_SHARED_SIZE_BYTES", 227 << 10),
        ("NON_PORTABLE_CLUSTER_SIZE_ALLOWED", 1),
    ]


def in_use(monkeypatch: pytest.MonkeyPatch, launcher: DriverLauncher) -> DriverLauncher:
    monkeypatch.setattr(launcher, "missing", lambda: None)
    monkeypatch.setattr(launcher_in_use._Used, "launcher", launcher)
    return launcher


def test_to_tell_of_a_device_takes_no_context_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, {16: 1}, has=True)
    device.no_context = CUDAError("CUDA_ERROR_OUT_OF_MEMORY")
    in_use(monkeypatch, DriverLauncher())
    status = bptt.backends()["cuda"]
    assert status.available
    assert "a GPU (sm_90)" in status.reason
    assert "a GPU (sm_90)" in str(bptt.info())
    plan = bptt.plan("lstm", 8, 2, 16, 16, device="cuda:1")
    assert (plan.device, plan.arch) == ("a GPU", "sm_90")
    assert (device.current, device.asked) == ([], [])


def test_a_plan_of_several_blocks_asks_once_and_leaves_the_device_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch, {16: 0, 8: 1}, has=True)
    launcher = in_use(monkeypatch, DriverLauncher())
    for _ in range(2):
        assert bptt.plan("lstm", 8, 2, 512, 512, device="cuda").arch == "sm_90"
    assert launcher.chip(0).most_cluster == 8
    assert asdict(launcher.chip(0))["most_cluster"] == 8
    assert (device.asked, device.compiled) == ([16, 8], 1)
    assert device.current == ["this device", "another's context"]


def test_what_cannot_be_asked_is_an_error_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    device, chip = Device(monkeypatch, {8: 1}, has=True), DriverLauncher().chip(0)
    device.no_context = CUDAError("CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(CUDAError, match="OUT_OF_MEMORY"):
        _ = chip.most_cluster
    device.no_context = None
    device.refusal = TypeError("a call that cuda-core does not know")
    with pytest.raises(TypeError, match="does not know"):
        _ = chip.most_cluster
    assert device.current == ["this device", "another's context"]
    device.refusal = CUDAError("CUDA_ERROR_INVALID_CLUSTER_SIZE")
    assert chip.most_cluster == 8


def test_threads_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    device, launcher = Device(monkeypatch, {16: 1}, has=True), DriverLauncher()
    compile_, read = device.compile, []

    def slow(*given: str) -> compiling.Code:
        time.sleep(0.05)
        return compile_(*given)

    monkeypatch.setattr(of_driver, "compiled", slow)
    ask = lambda: read.append(launcher.chip(0).most_cluster)  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (read, device.compiled) == ([16] * 4, 1)


def test_a_driver_that_fails_is_told_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = in_use(monkeypatch, DriverLauncher())

    def fails() -> str:
        raise CUDAError("CUDA_ERROR_UNKNOWN")

    monkeypatch.setattr(launcher, "description", fails)
    assert str(bptt.backends()["cuda"]) == "not available: CUDA_ERROR_UNKNOWN"


def test_a_device_without_clusters_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, {}, has=False)
    assert DriverLauncher().chip(0).most_cluster == 1
    assert device.asked == []


def test_a_plan_without_a_gpu_takes_what_its_kind_may_have() -> None:
    assert [CHIPS[arch].most_cluster for arch in ("sm_80", "sm_90", "sm_120")] == [1, 16, 8]


def test_a_chip_that_is_too_old_or_unknown_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a GPU has compute capability 7.5: .* 8.0 \(sm_80\)"):
        of_capability(7, 5)
    with pytest.raises(ValueError, match=r"device: expected one of sm_80, .*, got 'sm_42'"):
        chip_named("sm_42")
    with pytest.raises(TypeError, match="device: expected a string, got int"):
        chip_named(90)
