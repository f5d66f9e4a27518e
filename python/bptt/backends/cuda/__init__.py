"""The backend for GPUs, of arrays that live there: csrc/cuda/, compiled by NVRTC at first use."""

from .chips import CHIPS, Chip, chip_named
from .compiling import compiled, nvrtc_missing
from .launcher_in_use import launcher, use_launcher
from .launching import Kernel, Launch, Launcher
from .mma_tiles import FORMATS, MmaTile, mma_tiles_for
from .passes import DeviceLayer, DeviceRecord, Gradients, Kept, backward, forward
from .planning import ASSUMED, DevicePasses, passes_for, products_us_a_row
from .precision import read_precision
from .source import CELLS, Source, source_of_steps, source_of_tile
from .tiles import THREADS, Cut, Tile, tiles_for

__all__ = [
    "ASSUMED",
    "CELLS",
    "CHIPS",
    "FORMATS",
    "THREADS",
    "Chip",
    "Cut",
    "DeviceLayer",
    "DevicePasses",
    "DeviceRecord",
    "Gradients",
    "Kept",
    "Kernel",
    "Launch",
    "Launcher",
    "MmaTile",
    "Source",
    "Tile",
    "backward",
    "chip_named",
    "compiled",
    "forward",
    "launcher",
    "mma_tiles_for",
    "nvrtc_missing",
    "passes_for",
    "products_us_a_row",
    "read_precision",
    "source_of_steps",
    "source_of_tile",
    "tiles_for",
    "use_launcher",
]
