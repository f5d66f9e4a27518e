"""What bench/device.sh asks on a GPU: a line of JSON for each figure as soon as it is there.

    python -m bench.on_gpu facts     # the GPU, versions, and the chip as the backend sees it
    python -m bench.on_gpu cudnn     # training steps of torch.nn's modules and bptt.torch's
    python -m bench.on_gpu sweep     # both passes of a layer in every way that a chip has room for

All in float32. Needs PyTorch. No GPU was there when this was written.
"""

import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from importlib import metadata
from itertools import groupby, product
from typing import Any

import bptt
from bptt.array_libraries import place_of
from bptt.backends import require_cuda
from bptt.backends.cuda import (
    Chip,
    DeviceLayer,
    DevicePasses,
    Source,
    Tile,
    backward,
    compiled,
    forward,
    mma_tiles_for,
    passes_for,
    planning,
    source_of_steps,
    source_of_tile,
    tiles_for,
)
from bptt.backends.cuda.tiles import MOST_ROWS, THREADS

Figure = dict[str, Any]

DEVICE = "cuda"
STEPS = 1024
# What matters most comes first, should time end.
HIDDEN, BATCHES, CELLS = (256, 512, 1024, 128, 64), (16, 64, 1), ("lstm", "gru", "tanh")
MODULES = {"lstm": "LSTM", "gru": "GRU", "tanh": "RNN"}
PACKAGES = ("torch", "numpy", "cupy-cuda13x", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc")


def main(arguments: list[str]) -> int:
    stages = {"facts": facts, "cudnn": cudnn, "sweep": sweep}
    found = stages.get(arguments[0] if arguments else "")
    if found is None:
        print(__doc__)
        return 2
    try:
        import torch
    except ImportError:
        print("there is no PyTorch", file=sys.stderr)
        return 1
    if not torch.cuda.is_available():
        print("PyTorch sees no GPU", file=sys.stderr)
        return 1
    for figure in found(torch):
        print(json.dumps(figure), flush=True)
    return 0


# --- What is there ------------------------------------------------------------------------------


def facts(torch: Any) -> Iterator[Figure]:
    """Versions, the chip, and whether the backend can be used, each by itself: one may fail."""
    yield {"python": platform.python_version(), "machine": platform.platform()}
    yield {"packages": {name: _version(name) for name in PACKAGES}}
    yield {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpu": str(torch.cuda.get_device_properties(0)),
    }
    status = bptt.backends()["cuda"]
    yield {"backend": str(status)}
    if status.available:
        yield {"chip": asdict(require_cuda().chip(0))}
        for cell, hidden, batch in product(CELLS, HIDDEN, BATCHES):
            plan = bptt.plan(cell, STEPS, batch, hidden, hidden, device=DEVICE).to_dict()
            yield {"plan": plan}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# --- Against cuDNN ------------------------------------------------------------------------------


def cudnn(torch: Any) -> Iterator[Figure]:
    """Milliseconds of torch.nn's modules and of bptt.torch's, with the same weights and inputs."""
    import bptt.torch as ours

    if bptt.backends()["cuda"].available:
        launcher = require_cuda()
        yield compile_ahead(launcher.chip(0), planned_sources(launcher.chip(0), torch_cases()))
    for case in torch_cases():
        for tf32 in (False, True):
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            figure = {**case, "tf32": tf32}
            try:
                yield figure | compared(torch, ours, case)
            except RuntimeError as error:  # too little memory, say: the next may do
                yield figure | {"error": str(error)}


def torch_cases() -> Iterator[Figure]:
    """T, B, H = I, cell, layers, both directions, and whether sequences are packed, of lengths
    from 1 to T."""
    plain = {"T": STEPS, "layers": 1, "both": False, "packed": False}
    for hidden, batch, cell in product(HIDDEN, BATCHES, CELLS):
        yield {**plain, "cell": cell, "B": batch, "H": hidden}
        if batch == 16:
            yield {**plain, "cell": cell, "B": 32, "H": hidden, "packed": True}
    for cell in CELLS:
        yield {**plain, "cell": cell, "B": 32, "H": 256, "layers": 2, "both": True}


def compared(torch: Any, ours: Any, case: Figure) -> Figure:
    """Times of both, and how far their results are from each other."""
    found: Figure = {}
    torch.manual_seed(0)
    layers = {"num_layers": case["layers"], "bidirectional": case["both"]}
    name, sizes = MODULES[case["cell"]], (case["H"], case["H"])
    modules = {
        "torch.nn": getattr(torch.nn, name)(*sizes, **layers).to(DEVICE),
        "bptt.torch": getattr(ours, name)(*sizes, **layers).to(DEVICE),
    }
    modules["bptt.torch"].load_state_dict(modules["torch.nn"].state_dict())
    x = torch.randn(case["T"], case["B"], case["H"], device=DEVICE)
    if case["packed"]:
        lengths = [1 + b * (case["T"] - 1) // max(1, case["B"] - 1) for b in range(case["B"])]
        x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    results = {}
    for who, module in modules.items():

        def output(module: Any = module) -> Any:
            y = module(x)[0]
            return y.data if case["packed"] else y

        dy = torch.randn_like(output().detach())

        def step(output: Callable[[], Any] = output, dy: Any = dy) -> None:
            output().backward(dy)

        with torch.no_grad():
            found[f"{who} forward_ms"] = least_ms(torch, output)
        found[f"{who} step_ms"] = least_ms(torch, step)
        results[who] = output().detach()
    found["who"] = ours.why(modules["bptt.torch"], x)
    found["apart"] = float((results["torch.nn"] - results["bptt.torch"]).abs().max())
    found["ratio"] = found["torch.nn step_ms"] / found["bptt.torch step_ms"]
    return found


# --- Every way ----------------------------------------------------------------------------------


def sweep(torch: Any) -> Iterator[Figure]:
    """Microseconds a step of both passes, of each tile beside the plan's, products included."""
    chip = require_cuda().chip(0)
    ways = list(swept(chip))
    yield compile_ahead(chip, {source_of_tile(passes.tile) for *_, passes in ways if passes.tile})
    for sizes, of_sizes in groupby(ways, lambda way: way[:3]):
        try:
            layer, dy = drawn_layer(torch, *sizes)
            with layer.place.library.on(layer.place.device):
                reference = forward(layer, save=True).history[0]
        except RuntimeError as error:  # the plan's own launch, or memory: other sizes may go
            yield dict(zip(("cell", "H", "B"), sizes, strict=True)) | {"error": str(error)}
            continue
        for *_, passes in of_sizes:
            yield timed(torch, layer, dy, passes, reference)


def swept(chip: Chip) -> Iterator[tuple[str, int, int, DevicePasses]]:
    """A cell, H, B, and a way to run it: the plan's first, then clusters before grids, since blocks
    that spin are what may hang."""
    for hidden, batch, name in product(HIDDEN, BATCHES, CELLS[:2]):
        cell = bptt.CELLS[name]
        yield name, hidden, batch, passes_for(chip, cell, 4, batch, hidden)
        for precision in ("tf32", "bfloat16"):
            if mma_tiles_for(chip, cell, precision, hidden):
                yield name, hidden, batch, passes_for(chip, cell, 4, batch, hidden, precision)
        tiles = sorted(tiles_of(chip, name, hidden), key=lambda tile: tile.exchange)
        for tile in tiles:
            if tile.rows <= max(1, batch):
                yield name, hidden, batch, planning._held(chip, tile, batch, hidden)


def tiles_of(chip: Chip, name: str, hidden: int) -> Iterator[Tile]:
    """All that the chip has room for: of each exchange from the fewest blocks on."""
    cell = bptt.CELLS[name]
    for widest in tiles_for(chip, cell, 4, hidden):
        if widest.rows > 1:
            continue
        units = widest.units
        while units:
            blocks = -(-hidden // units)
            for exchange, rows in product(("OneBlock", "Cluster", "Grid"), (1, 2, 4, 8)):
                of_cell = (widest.itemsize, widest.cell, widest.gates)
                tile = Tile(*of_cell, exchange, units, widest.columns, rows)
                if rows <= MOST_ROWS[4] and fits(chip, tile, blocks):
                    yield tile
            units //= 2
        return


def fits(chip: Chip, tile: Tile, blocks: int) -> bool:
    """Whether there is such a tile, as csrc/cuda/tile.cuh demands, and the chip has room for it."""
    held = tile.gates * tile.units * tile.columns
    if held % (16 * THREADS) or tile.units * tile.columns % (4 * THREADS):
        return False
    if tile.exchange == "OneBlock":
        room = tile.units == tile.columns
    else:
        grid = chip.multiprocessors if chip.cooperative else 0
        room = 1 < blocks <= (grid if tile.exchange == "Grid" else chip.most_cluster)
    return room and tile.shared_bytes <= chip.shared_bytes


def drawn_layer(torch: Any, cell: str, hidden: int, batch: int) -> tuple[DeviceLayer, Any]:
    """A layer with its x, and what comes in at y, (N, H)."""
    drawn = bptt.init_params(cell, input_size=hidden, hidden_size=hidden, rng=0)
    arrays = drawn.arrays().items()
    params = bptt.Params(**{name: torch.tensor(a, device=DEVICE) for name, a in arrays})
    torch.manual_seed(0)
    x, dy = (torch.randn(STEPS * batch, hidden, device=DEVICE) for _ in range(2))
    place, kind = place_of(x), bptt.CELLS[cell]
    assert place is not None
    state = tuple(torch.zeros(batch, hidden, device=DEVICE) for _ in kind.states)
    layer = DeviceLayer(place, require_cuda(), kind, params, x, state, STEPS, None)
    return layer, dy


def timed(torch: Any, layer: DeviceLayer, dy: Any, passes: DevicePasses, reference: Any) -> Figure:
    tile, chosen = passes.tile, replace(layer)
    chosen.__dict__["passes"] = passes  # in place of the plan's
    nothing = (None,) * (len(layer.cell.states) - 1)
    names = ("x", "w_ih", "w_hh", "b_ih", "b_hh")
    figure = {"cell": layer.cell.name, "T": STEPS, "B": layer.batch, "H": layer.hidden}
    figure |= {"exchange": tile and tile.exchange, "units": tile and tile.units}
    figure |= {"precision": getattr(tile, "precision", None)}
    figure |= {"blocks": passes.blocks, "rows": tile and tile.rows, "groups": passes.groups}
    figure |= {"groups_at_once": passes.groups_at_once, "predicted_us_a_step": passes.step_us}
    with layer.place.library.on(layer.place.device):
        try:
            record = forward(chosen, save=True)
            apart = float((record.history[0] - reference).abs().max())
            ahead = least_ms(torch, lambda: forward(chosen, save=True))
            back = least_ms(torch, lambda: backward(chosen, record, (dy, *nothing), None, names))
        except RuntimeError as error:  # a launch that the driver refuses: the next may go
            return figure | {"error": str(error)}
    return figure | {
        "forward_us_a_step": 1e3 * ahead / STEPS,
        "backward_us_a_step": 1e3 * back / STEPS,
        "apart": apart,
    }


# --- Shared -------------------------------------------------------------------------------------


def planned_sources(chip: Chip, cases: Iterable[Figure]) -> set[Source]:
    """The kernels that plans for these cases take."""
    found = set()
    for case in cases:
        cell = bptt.CELLS[case["cell"]]
        tile = passes_for(chip, cell, 4, case["B"], case["H"]).tile
        found.add(source_of_steps(cell.name, 4) if tile is None else source_of_tile(tile))
    return found


def compile_ahead(chip: Chip, sources: set[Source]) -> Figure:
    """Compile kernels on all processors, into the cache: one after the other they take minutes."""
    texts = sorted(source.joined() for source in sources)
    workers = max(1, min(len(texts), os.cpu_count() or 1))
    # Not by a fork, after which CUDA cannot be used.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        registers = list(pool.map(_most_registers, texts, [chip.arch] * len(texts)))
    return {"compiled": len(texts), "arch": chip.arch, "most_registers": max(registers, default=0)}


def _most_registers(text: str, arch: str) -> int:
    return max((told.registers for told in compiled(text, arch).told.values()), default=0)


def least_ms(torch: Any, work: Callable[[], object]) -> float:
    """The least of some times; the first call, which warms up, is none of them."""
    found = []
    for _ in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return float(min(found[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
