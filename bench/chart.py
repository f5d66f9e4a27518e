"""Charts of a run, one PNG for each family: of every peer at every shape the fraction of the FMA
peak (or the time, where that is not known), and the time over the baseline's. Both axes are
logarithmic, so that equal distances are equal ratios; lines go from quartile to quartile.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .machine import cpu_name
from .records import Quartiles, Record, Results
from .summary import Block, blocks
from .table import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's palette (told apart by people who do not see all colours), and a marker for print.
_STYLES = {
    "native": ("#0072B2", "o"),
    "native-reuse": ("#56B4E9", "o"),
    "numba": ("#E69F00", "P"),
    "numpy": ("#777777", "X"),
    "torch": ("#D55E00", "s"),
    "jax": ("#009E73", "^"),
    "jax-bptt": ("#CC79A7", "D"),
}
_OTHER_STYLE = ("#000000", "v")


def draw(results: Results, out: Path) -> list[Path]:
    """Draw every family of peers beside `out`; return the files."""
    if "others" not in results.head:
        return []
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    head, isa, paths = results.head, results.head["machine"]["isa"], []
    where = f"{cpu_name(head['machine'])}, {isa or 'no native backend'}"
    for family, title in head["titles"].items():
        timed = [row for row in results.rows if row.family == family and row.timed()]
        if not (shown := [*blocks(timed)]):
            continue
        heights = [0.8 + 0.42 * len(block.rows) for block in shown]
        figure = Figure((10, 1.2 + sum(heights)), layout="constrained")
        ratios = {"height_ratios": heights, "width_ratios": (3, 2)}
        panels = figure.subplots(len(shown), 2, squeeze=False, sharey="row", gridspec_kw=ratios)
        legend: dict[str, Any] = {}
        for block, (left, right) in zip(shown, panels, strict=True):
            _draw_block(left, right, block, isa)
            legend.update(zip(*left.get_legend_handles_labels()[::-1], strict=True))
        names = sorted(legend, key=[*_STYLES, *legend].index)
        handles = [legend[name] for name in names]
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        threads = count(head["threads"], "thread")
        figure.suptitle(f"{title}: forward and all gradients\n{where}, {threads}", fontsize=11)
        paths.append(out.with_name(f"{out.stem}-{family}.png"))
        figure.savefig(paths[-1], dpi=150)
    return paths


def _draw_block(left: "Axes", right: "Axes", block: Block, isa: str | None) -> None:
    """One cell and dtype, shapes from top to bottom."""
    left.set_title(block.work.replace(" ", ", "))
    if all(row.peak for row in block.rows):
        _dots(left, block, lambda record: record.share, 100)
        left.set_xlabel(f"% of the FMA peak with {isa}")
    else:
        _dots(left, block, lambda record: record.value, 1000)
        left.set_xlabel("ms")
    left.set_yticks(range(len(block.rows)), [row.name.replace("-", "  ") for row in block.rows])
    left.set_ylim(len(block.rows) - 0.5, -0.5)
    if baseline := block.rows[0].baseline:
        right.axvline(1, color="black", linewidth=1.2, linestyle="--")
        _dots(right, block, lambda record: record.ratio, 1)
        right.set_title(f"time / {baseline}'s")
        right.set_xlabel(f"above 1: {baseline} is faster")


def _dots(
    panel: "Axes", block: Block, figure: Callable[[Record], Quartiles | None], factor: float
) -> None:
    """Every peer on a line of its own within the band of its row, so that none hides another."""
    names = list(dict.fromkeys(name for row in block.rows for name in row.timed()))
    for row in range(0, len(block.rows), 2):
        panel.axhspan(row - 0.5, row + 0.5, color="#f2f2f2", linewidth=0)
    for place, name in enumerate(names):
        offset = 0.8 * ((place + 0.5) / len(names) - 0.5)
        of_rows = [figure(row.timed().get(name, Record())) for row in block.rows]
        places = [index + offset for index, found in enumerate(of_rows) if found]
        low, median, high = factor * np.array([q for q in of_rows if q]).reshape(-1, 3).T
        colour, marker = _STYLES.get(name, _OTHER_STYLE)
        dots: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": 5, "elinewidth": 1.2}
        panel.errorbar(median, places, xerr=[median - low, high - median], label=name, **dots)
    _plain_log_axis(panel)


def _plain_log_axis(panel: "Axes") -> None:
    """A log axis with some two to six numbers such as 40 and 0.5."""
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    digits = 1 if high > 2 * low else 2
    ticks = sorted({float(f"{tick:.{digits}g}") for tick in np.geomspace(low, high, 6)})
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(low, high)
    panel.grid(axis="x", color="#cccccc", linewidth=0.6)
    panel.set_axisbelow(True)
