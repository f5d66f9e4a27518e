"""The backend for GPUs, of arrays that live there: csrc/cuda/, compiled by NVRTC at first use."""

from .chips import CHIPS, Chip, chip_named
from .compiling import compiled, nvrtc_missing
from .launcher_in_use import launcher, use_launcher
from .launching import Kernel, Launch, Launcher
from .passes import DeviceLayer, DeviceRecord, Gradients, backward, forward
from .planning import ASSUMED, DevicePasses, passes_for, products_us_a_row
from .source import CELLS, Source, source_of_steps, source_of_tile
from .tiles import THREADS, Tile, tiles_for

__all__ = [
    "ASSUMED",
    "CELLS",
    "CHIPS",
    "THREADS",
    "Chip",
    "DeviceLayer",
    "DevicePasses",
    "DeviceRecord",
    "Gradients",
    "Kernel",
    "Launch",
    "Launcher",
    "Source",
    "Tile",
    "backward",
    "chip_named",
    "compiled",
    "forward",
    "launcher",
    "nvrtc_missing",
    "passes_for",
    "products_us_a_row",
    "source_of_steps",
    "source_of_tile",
    "tiles_for",
    "use_launcher",
]
