"""Pictures of a results file, one PNG for each family.

Listed shapes: on the left a dot for each peer at its fraction of the FMA peak (or its rate, where
the peak is not known), on the right the time of the fastest peer over the baseline's, both on log
axes, so that equal distances are equal ratios. A grid of shapes: maps of the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import family_title, load_families
from .chart_grid import draw_grid
from .machine import cpu_name
from .records import Quartiles, Row, quartiles
from .summary import Block, Comparison, blocks
from .table import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

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


def draw(document: dict[str, Any], out: Path) -> list[Path]:
    """Draw every family of `document` beside `out`; return the files."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    comparison = Comparison(document)
    families = load_families()
    paths = []
    for family in document["settings"]["families"]:
        family_blocks = [b for b in blocks(comparison.rows) if b.family == family]
        family_blocks = [b for b in family_blocks if any(row.timed() for row in b.rows)]
        if not family_blocks:
            continue
        figure = Figure(layout="constrained")
        is_grid = family in families and families[family].is_grid
        if is_grid and comparison.baseline is not None:
            draw_grid(figure, family_blocks, comparison, document["machine"]["isa"])
        else:
            _draw_list(figure, family_blocks, comparison, document["machine"]["isa"])
        figure.suptitle(
            f"{family_title(document, family)}: forward and all gradients\n{_where(document)}",
            fontsize=11,
        )
        paths.append(out.with_name(f"{out.stem}-{family}.png"))
        figure.savefig(paths[-1], dpi=150)
    return paths


def _where(document: dict[str, Any]) -> str:
    machine, threads = document["machine"], count(document["settings"]["threads"], "thread")
    return f"{cpu_name(machine)}, {machine['isa'] or 'no native backend'}, {threads}"


def _draw_list(
    figure: Figure, family_blocks: Sequence[Block], comparison: Comparison, isa: str | None
) -> None:
    """Two panels for each cell and dtype, one block below the other; shapes from top to bottom."""
    heights = [0.8 + 0.42 * len(block.rows) for block in family_blocks]
    figure.set_size_inches(10, 1.2 + sum(heights))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=(3, 2))
    legend: dict[str, Any] = {}
    for index, block in enumerate(family_blocks):
        rates, ratios = figure.add_subplot(grid[index, 0]), figure.add_subplot(grid[index, 1])
        for panel in (rates, ratios):
            panel.set_ylim(len(block.rows) - 0.5, -0.5)
            for row in range(0, len(block.rows), 2):
                panel.axhspan(row - 0.5, row + 0.5, color="#f2f2f2", linewidth=0)
        rates.set_yticks(range(len(block.rows)), [_shape(row) for row in block.rows])
        ratios.set_yticks([])
        _draw_rates(rates, block, isa)
        _draw_ratios(ratios, block, comparison)
        handles, names = rates.get_legend_handles_labels()
        legend.update(zip(names, handles, strict=True))
    names = sorted(legend, key=[*_STYLES, *legend].index)
    handles = [legend[name] for name in names]
    figure.legend(handles=handles, labels=names, loc="outside lower center", ncols=len(names))


def _draw_rates(panel: Axes, block: Block, isa: str | None) -> None:
    """Every peer on a line of its own within the band of its row, so that none hides another."""
    with_peak = all(row.peak for row in block.rows)
    names = list(dict.fromkeys(name for row in block.rows for name in row.timed()))
    for place, name in enumerate(names):
        points = list(_points(block.rows, name, with_peak))
        offset = 0.8 * ((place + 0.5) / len(names) - 0.5)
        _dots(panel, [(index + offset, value) for index, value in points], name)
    panel.set_title(f"{block.cell}, {block.dtype}")
    if with_peak:
        panel.axvline(100, color="black", linewidth=1.2, linestyle="--")
    panel.set_xlabel(f"% of the FMA peak with {isa}" if with_peak else "GF/s")
    _plain_log_axis(panel)


def _draw_ratios(panel: Axes, block: Block, comparison: Comparison) -> None:
    """The fastest peer's time over the baseline's, with its name."""
    found = [comparison.best_ratio(row, comparison.rivals) for row in block.rows]
    if not any(found):
        panel.set_axis_off()
        return
    largest = max(best[1].high for best in found if best)
    for index, best in enumerate(found):
        if best is None:
            continue
        name, value = best
        _dots(panel, [(index, value)], name)
        text = f"{value.median:.2f} {name}"
        at_the_edge = panel.get_yaxis_transform()
        panel.text(0.98, index, text, transform=at_the_edge, ha="right", va="center", fontsize=9)
    panel.axvline(1, color="black", linewidth=1.2, linestyle="--")
    panel.set_title(f"fastest peer's time / {comparison.baseline}'s")
    panel.set_xlabel(f"above 1: {comparison.baseline} is faster")
    low = min(0.9, *(0.9 * best[1].low for best in found if best))
    panel.set_xlim(low, max(2.0, largest * (largest / low) ** 0.5))  # room for the names
    _plain_log_axis(panel)


def _dots(panel: Axes, points: Sequence[tuple[float, Quartiles]], name: str) -> None:
    """Medians, with a line from quartile to quartile."""
    colour, marker = _STYLES.get(name, _OTHER_STYLE)
    panel.errorbar(
        [value.median for _, value in points],
        [y for y, _ in points],
        xerr=[[v.median - v.low for _, v in points], [v.high - v.median for _, v in points]],
        fmt=marker,
        color=colour,
        label=name,
        markersize=5,
        elinewidth=1.2,
    )


def _plain_log_axis(panel: Axes) -> None:
    """A log axis with numbers such as 40 and 0.5, some three to eight of them."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    panel.set_xscale("log")
    low, high = panel.get_xlim()
    if high < 2 * low:
        panel.xaxis.set_major_locator(MaxNLocator(5))
    else:
        many, some = (1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5)
        subs = (1,) if high > 300 * low else some if high > 10 * low else many
        panel.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="x", color="#cccccc", linewidth=0.6)
    panel.set_axisbelow(True)


def _points(rows: Sequence[Row], name: str, with_peak: bool) -> Iterator[tuple[int, Quartiles]]:
    """(place of the row, fraction of the peak in % or rate in GF/s) of every row with times."""
    for index, row in enumerate(rows):
        if name not in row.timed():
            continue
        fraction = row.peak_fraction(name) if with_peak else None
        if fraction is not None:
            yield index, Quartiles(*(100 * value for value in fraction))
        else:
            yield index, quartiles([row.flops / s / 1e9 for s in row.results[name].seconds])


def _shape(row: Row) -> str:
    return row.case.name.replace("-", "  ")
