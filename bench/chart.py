"""Charts of a run, one PNG for each family.

Listed shapes: on the left a dot for each peer at its fraction of the FMA peak (or its rate, where
the peak is not known), on the right the time of the fastest peer over the baseline's, both on log
axes, so that equal distances are equal ratios. A grid of shapes: maps of the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Case, load_families
from .machine import cpu_name
from .records import Quartiles, Record, Results, Row
from .summary import Block, Comparison, blocks
from .table import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
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
_LARGEST_RATIO = 32.0  # at which the colours of a map end


def draw(results: Results, out: Path) -> list[Path]:
    """Draw every family of peers beside `out`; return the files."""
    if "others" not in results.head:
        return []
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    comparison, families, machine = Comparison(results), load_families(), results.head["machine"]
    where = f"{cpu_name(machine)}, {machine['isa'] or 'no native backend'}"
    paths = []
    for family, title in results.head["titles"].items():
        found = [b for b in blocks(results.rows) if b.family == family]
        found = [b for b in found if any(row.timed() for row in b.rows)]
        if not found:
            continue
        figure = Figure(layout="constrained")
        is_grid = family in families and families[family].is_grid
        painter = _draw_maps if is_grid and comparison.baseline else _draw_lists
        painter(figure, found, comparison, machine["isa"])
        threads = count(results.head["threads"], "thread")
        figure.suptitle(f"{title}: forward and all gradients\n{where}, {threads}", fontsize=11)
        paths.append(out.with_name(f"{out.stem}-{family}.png"))
        figure.savefig(paths[-1], dpi=150)
    return paths


def _draw_lists(
    figure: Figure, shown: Sequence[Block], comparison: Comparison, isa: str | None
) -> None:
    """Two panels for each cell and dtype, one block below the other; shapes from top to bottom."""
    heights = [0.8 + 0.42 * len(block.rows) for block in shown]
    figure.set_size_inches(10, 1.2 + sum(heights))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=(3, 2))
    legend: dict[str, Any] = {}
    for index, block in enumerate(shown):
        rates, ratios = figure.add_subplot(grid[index, 0]), figure.add_subplot(grid[index, 1])
        for panel in (rates, ratios):
            panel.set_ylim(len(block.rows) - 0.5, -0.5)
            for row in range(0, len(block.rows), 2):
                panel.axhspan(row - 0.5, row + 0.5, color="#f2f2f2", linewidth=0)
        rates.set_yticks(
            range(len(block.rows)), [row.name.replace("-", "  ") for row in block.rows]
        )
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
        offset = 0.8 * ((place + 0.5) / len(names) - 0.5)
        points = [
            (index + offset, _rate(row, row.records[name], with_peak))
            for index, row in enumerate(block.rows)
            if name in row.timed()
        ]
        _dots(panel, points, name)
    panel.set_title(_title(block))
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


def _rate(row: Row, record: Record, with_peak: bool) -> Quartiles:
    """Fraction of the peak in %, or rate in GF/s."""
    if with_peak and record.share is not None:
        return Quartiles(*(100 * value for value in record.share))
    assert record.value is not None
    high, median, low = (float(row.flops or 0) / seconds / 1e9 for seconds in record.value)
    return Quartiles(low, median, high)


def _title(block: Block) -> str:
    """ "tanh, float32"."""
    return block.work.replace(" ", ", ")


def _draw_maps(
    figure: Figure, shown: Sequence[Block], comparison: Comparison, isa: str | None
) -> None:
    """Above the time of the fastest peer over the baseline's, below the fraction of the peak."""
    from matplotlib.colors import LogNorm, Normalize

    baseline = str(comparison.baseline)

    def ratio(row: Row) -> float | None:
        best = comparison.best_ratio(row, comparison.rivals)
        return None if best is None else best[1].median

    def percent(row: Row) -> float | None:
        share = row.records[baseline].share
        return None if share is None else 100 * share.median

    figure.set_size_inches(1.8 + 4.6 * len(shown), 8.6)
    panels = figure.subplots(2, len(shown), squeeze=False)
    # Orange where a peer is faster, purple where the baseline is; white in between.
    sides = LogNorm(1 / _LARGEST_RATIO, _LARGEST_RATIO)
    for column, block in enumerate(shown):
        above, below = panels[:, column]
        _map(above, block, ratio, "PuOr", sides)
        above.set_title(f"{_title(block)}\nfastest peer's time / {baseline}'s")
        _map(below, block, percent, "cividis", Normalize(0, 100))
        below.set_title(f"{baseline}, % of the FMA peak with {isa}")


def _map(
    panel: Axes, block: Block, value: Callable[[Row], float | None], colours: str, norm: Normalize
) -> None:
    """Colour and number of every cell; three digits, so that 0.95 is not read as 1."""
    cases = [(Case.named(row.name), row) for row in block.rows]
    found = {(case.hidden_size, case.batch): value(row) for case, row in cases}
    hidden, batch = (sorted(set(sizes)) for sizes in zip(*found, strict=True))
    cells = [[found.get((h, b)) or math.nan for b in batch] for h in hidden]
    image = panel.imshow(cells, cmap=colours, norm=norm, origin="lower", aspect="auto")
    for (h, b), number in found.items():
        if number is not None:
            red, green, blue, _ = image.cmap(norm(number))
            colour = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "black"
            text = f"{number:.2f}" if number < 10 else f"{number:.3g}"
            place = (batch.index(b), hidden.index(h))
            panel.text(*place, text, ha="center", va="center", fontsize=8, color=colour)
    panel.set_xticks(range(len(batch)), [str(b) for b in batch])
    panel.set_yticks(range(len(hidden)), [str(h) for h in hidden])
    panel.set_xlabel("batch B")
    panel.set_ylabel("hidden size H (= I)")
