"""Kernels on a GPU by CUDA's driver, through cuda-core. Nothing here ran on a GPU yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from .chips import Chip, chip_of
from .compiling import compiled, nvrtc_missing, packages_missing
from .launching import Launch
from .source import Source
from .tiles import THREADS

__all__ = ["DriverLauncher"]

_PORTABLE = 8  # blocks of a cluster that every chip with clusters has, unless it is a part of one
# Sizes to ask for. A kernel that does nothing has room wherever one with its shared memory has.
_CLUSTERS = (16, 8, 4, 2)
_PROBE = 'extern "C" __global__ void nothing() {}'


class _Stream:
    """A stream of another library, as cuda-core takes it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


class DriverKernel:
    """A kernel that the driver has loaded."""

    def __init__(self, kernel: Any, device: int, chip: Chip, name: str) -> None:
        self._kernel, self._device = kernel, device
        self._chip, self._name = chip, name
        self._most_shared = 48 << 10  # what a block may ask for without more ado
        self._of_cluster = _PORTABLE
        self._lock = threading.Lock()

    def launch(self, launch: Launch, arguments: Sequence[int], stream: int) -> None:
        """See ``Kernel.launch``."""
        from cuda.core import Device, LaunchConfig
        from cuda.core import launch as put

        Device(self._device).set_current()  # another thread may have loaded the kernel
        self.allow(launch)
        chosen: dict[str, Any] = {}
        if launch.cluster > 1:
            chosen["cluster"] = launch.cluster
        if launch.cooperative:
            chosen["is_cooperative"] = True
        config = LaunchConfig(
            grid=launch.blocks // launch.cluster,  # of clusters, if there are some
            block=launch.threads,
            shmem_size=launch.shared_bytes,
            **chosen,
        )
        try:
            put(_Stream(stream), config, self._kernel, *arguments)
        except Exception as error:  # of cuda-core's own type
            raise RuntimeError(
                f"kernel {self._name!r} cannot be launched on {self._chip.name} with {launch}: "
                f"{error}"
            ) from error

    def allow(self, launch: Launch) -> None:
        """Ask for what a kernel may not have without being asked for."""
        from cuda.bindings import driver

        attribute = driver.CUfunction_attribute
        with self._lock:
            if launch.shared_bytes > self._most_shared:
                most = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._set(most, launch.shared_bytes)
                self._most_shared = launch.shared_bytes
            if launch.cluster > self._of_cluster:
                self._set(attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
                self._of_cluster = launch.cluster

    def _set(self, attribute: Any, value: int) -> None:
        from cuda.bindings import driver

        (status,) = driver.cuKernelSetAttribute(attribute, value, self._kernel.handle, self._device)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(
                f"kernel {self._name!r} on {self._chip.name}: {attribute.name} = {value} is "
                f"refused: {status.name}"
            )


class DriverLauncher:
    """`Launcher` of all GPUs of this machine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there = False
        self._kernels: dict[tuple[Source, str, int], DriverKernel] = {}
        self._loaded: dict[tuple[Source, int], Any] = {}

    def missing(self) -> str | None:
        """See ``Launcher.missing``."""
        if self._there:  # a GPU that is there stays there
            return None
        missing = packages_missing() or _driver_missing() or nvrtc_missing()
        self._there = missing is None
        return missing

    def description(self) -> str:
        """See ``Launcher.description``."""
        chip = self.chip(0)
        return f"{chip.name} ({chip.arch}); these kernels have never been run on a GPU by us"

    @cache  # noqa: B019 - there is one launcher in a process
    def chip(self, device: int) -> Chip:
        """See ``Launcher.chip``."""
        from cuda.core import Device

        found = Device(device)
        told = found.properties
        chip = chip_of(
            found.name,
            tuple(found.compute_capability),
            shared_bytes=told.max_shared_memory_per_block_optin,
            multiprocessors=told.multiprocessor_count,
            most_cluster=1,
            cooperative=bool(told.cooperative_launch),
            khz=told.clock_rate,
        )
        if not told.cluster_launch:
            return chip
        return replace(chip, most_cluster=_most_cluster(chip, device))

    def kernel(self, source: Source, name: str, device: int) -> DriverKernel:
        """See ``Launcher.kernel``."""
        key = (source, name, device)
        with self._lock:
            if key not in self._kernels:
                self._kernels[key] = self._load(source, name, device)
            return self._kernels[key]

    def _load(self, source: Source, name: str, device: int) -> DriverKernel:
        from cuda.core import Device, ObjectCode

        chip = self.chip(device)
        Device(device).set_current()
        loaded = self._loaded.get((source, device))
        if loaded is None:
            loaded = ObjectCode.from_cubin(compiled(source.joined(), chip.arch).cubin)
            self._loaded[source, device] = loaded
        try:
            kernel = loaded.get_kernel(name)
        except Exception as error:  # of cuda-core's own type
            raise RuntimeError(f"kernel {name!r} cannot be loaded on {chip.name}: {error}") from (
                error
            )
        return DriverKernel(kernel, device, chip, name)


def _most_cluster(chip: Chip, device: int) -> int:
    """The blocks of the largest cluster that the device has room for, each block on a
    multiprocessor of its own: a chip of a kind may have fewer in reach of each other than another,
    and so has a part of a chip (MIG)."""
    from cuda.core import Device, LaunchConfig, ObjectCode

    there = Device(device)
    there.set_current()
    probe = ObjectCode.from_cubin(compiled(_PROBE, chip.arch).cubin).get_kernel("nothing")
    kernel = DriverKernel(probe, device, chip, "nothing")
    for blocks in _CLUSTERS:
        launch = Launch(blocks, THREADS, blocks, False, chip.shared_bytes)
        config = LaunchConfig(grid=1, cluster=blocks, block=THREADS, shmem_size=chip.shared_bytes)
        try:
            kernel.allow(launch)
            found = probe.occupancy.max_active_clusters(config, stream=there.default_stream)
        except Exception:  # of cuda-core's own type: the driver refuses this size
            continue
        if found > 0:
            return blocks
    return 1


def _driver_missing() -> str | None:
    """Why there is no GPU for us; None if there is one."""
    from cuda.bindings import driver

    try:
        (status,) = driver.cuInit(0)
    except Exception as error:  # of a library that cannot be loaded, of several types
        reason = str(error).partition("\n")[0].rstrip(".")
        return f"there is no NVIDIA driver: {reason}"
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        return "the NVIDIA driver finds no GPU"
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"the NVIDIA driver cannot be used: {status.name}"
    status, count = driver.cuDeviceGetCount()
    if status != driver.CUresult.CUDA_SUCCESS or not count:
        return "the NVIDIA driver finds no GPU"
    return None
