"""Kernels on a GPU by CUDA's driver, through cuda-core. Nothing here ran on a GPU yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class _RefusedError(RuntimeError):
    """What the driver does not let a kernel have."""


class _AskedChip(Chip):
    """A chip whose `most_cluster` is asked for where a plan needs it: that takes a context on the
    device, and a kernel there. Equal to itself alone: a plan is kept by its chip."""

    __eq__, __hash__ = object.__eq__, object.__hash__

    @classmethod
    def of(cls, chip: Chip, ask: Callable[[Chip], int]) -> _AskedChip:
        found = cls(**vars(chip))
        known = vars(found)
        del known["most_cluster"]  # so that it is looked for below
        known["_ask"] = ask
        return found

    def __getattr__(self, name: str) -> Any:
        # A launcher asks once and keeps it.
        if name == "most_cluster" and "_ask" in vars(self):
            return vars(self)["_ask"](self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


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
            raise _RefusedError(
                f"kernel {self._name!r} on {self._chip.name}: {attribute.name} = {value} is "
                f"refused: {status.name}"
            )


class DriverLauncher:
    """`Launcher` of all GPUs of this machine."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # who loads a kernel asks for the chip
        self._there = False
        self._chips: dict[int, Chip] = {}
        self._most_clusters: dict[int, int] = {}
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
        from cuda.core import Device

        found = Device(0)
        major, minor = found.compute_capability
        return f"{found.name} (sm_{major}{minor}); these kernels have never been run on a GPU by us"

    def chip(self, device: int) -> Chip:
        """See ``Launcher.chip``. Makes no context on the device."""
        with self._lock:
            if device not in self._chips:
                self._chips[device] = self._read_chip(device)
            return self._chips[device]

    def _read_chip(self, device: int) -> Chip:
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
        return _AskedChip.of(chip, lambda chip: self._most_cluster(chip, device))

    def _most_cluster(self, chip: Chip, device: int) -> int:
        with self._lock:
            if device not in self._most_clusters:
                self._most_clusters[device] = _most_cluster(chip, device)
            return self._most_clusters[device]

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
    from cuda.core import LaunchConfig, ObjectCode

    with _current(device) as there:
        probe = ObjectCode.from_cubin(compiled(_PROBE, chip.arch).cubin).get_kernel("nothing")
        kernel = DriverKernel(probe, device, chip, "nothing")
        for blocks in _CLUSTERS:
            launch = Launch(blocks, THREADS, blocks, False, chip.shared_bytes)
            config = LaunchConfig(
                grid=1, cluster=blocks, block=THREADS, shmem_size=chip.shared_bytes
            )
            try:
                kernel.allow(launch)
                found = probe.occupancy.max_active_clusters(config, stream=there.default_stream)
            except Exception as error:
                if not _is_refusal(error):
                    raise
                continue
            if found > 0:
                return blocks
    return 1


@contextmanager
def _current(device: int) -> Iterator[Any]:
    """The device, which is the thread's current one within, and the one before afterwards."""
    from cuda.bindings import driver
    from cuda.core import Device

    there = Device(device)
    status, before = driver.cuCtxGetCurrent()
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the NVIDIA driver tells no current device: {status.name}")
    there.set_current()
    try:
        yield there
    finally:
        driver.cuCtxSetCurrent(before)


def _is_refusal(error: Exception) -> bool:
    """Whether the driver refused something, and not a mistake in how it was asked."""
    # cuda-core keeps the type in a module that it does not publish.
    kinds = (kind.__name__ for kind in type(error).__mro__)
    return isinstance(error, _RefusedError) or "CUDAError" in kinds


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
