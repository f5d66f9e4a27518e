"""Pictures of a results file, one PNG for each family.

Listed shapes: a dot for each peer at its fraction of the FMA peak (or its rate, where the peak is
not known), on a log axis, so that equal distances are equal ratios. A grid of shapes: a map of
the ratio to the fastest peer, and one of native's fraction of the peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import load_families
from .chart_grid import draw_grid
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
    for family, title in document["settings"]["families"].items():
        family_blocks = [b for b in blocks(comparison.rows) if b.family == family]
        family_blocks = [b for b in family_blocks if any(row.timed() for row in b.rows)]
        if not family_blocks:
            continue
        figure = Figure(layout="constrained")
        is_grid = family in families and families[family].is_grid
        if is_grid and comparison.baseline is not None:
            draw_grid(figure, family_blocks, comparison)
        else:
            _draw_list(figure, family_blocks)
        figure.suptitle(f"{title}: forward and all gradients\n{_where(document)}", fontsize=11)
        paths.append(out.with_name(f"{out.stem}-{family}.png"))
        figure.savefig(paths[-1], dpi=150)
    return paths


def _where(document: dict[str, Any]) -> str:
    machine, settings = document["machine"], document["settings"]
    cpu = " ".join(
        [machine["cpu"], *(f"{n} {machine[n]}" for n in ("family", "model") if n in machine)]
    )
    return f"{cpu}, {machine['isa'] or 'no native backend'}, {count(settings['threads'], 'thread')}"


def _draw_list(figure: Figure, family_blocks: Sequence[Block]) -> None:
    """A panel for each cell and dtype; shapes from top to bottom."""
    longest = max(len(block.rows) for block in family_blocks)
    figure.set_size_inches(2.2 + 3.6 * len(family_blocks), 2.0 + 0.32 * longest)
    panels = figure.subplots(1, len(family_blocks), sharex=True, squeeze=False)[0]
    with_peak = all(row.peak for block in family_blocks for row in block.rows)
    for panel, block in zip(panels, family_blocks, strict=True):
        _panel(panel, block, with_peak)
    for panel in panels[1:]:
        if [r.case for r in family_blocks[0].rows] == [r.case for r in family_blocks[-1].rows]:
            panel.tick_params(labelleft=False)
    handles = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    order = [*_STYLES, *handles]
    handles = dict(sorted(handles.items(), key=lambda item: order.index(item[0])))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


def _panel(panel: Axes, block: Block, with_peak: bool) -> None:
    names = {name: None for row in block.rows for name in row.timed()}
    # The baseline last, on top of the others.
    for name in reversed(names):
        colour, marker = _STYLES.get(name, _OTHER_STYLE)
        points = list(_points(block.rows, name, with_peak))
        y = [index for index, _ in points]
        x = [value.median for _, value in points]
        spread = [[v.median - v.low for _, v in points], [v.high - v.median for _, v in points]]
        panel.errorbar(
            x,
            y,
            xerr=spread,
            fmt=marker,
            color=colour,
            label=name,
            markersize=8 if name == "native" else 6,
            elinewidth=1.5,
            alpha=0.9,
        )
    panel.set_xscale("log")
    panel.set_yticks(range(len(block.rows)), [_shape(row) for row in block.rows], fontsize=8)
    panel.set_ylim(len(block.rows) - 0.5, -0.5)
    panel.grid(axis="x", which="both", color="#dddddd", linewidth=0.6)
    panel.grid(axis="y", color="#eeeeee", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.set_title(f"{block.cell}, {block.dtype}", fontsize=10)
    if with_peak:
        panel.axvline(100, color="black", linewidth=1.2, linestyle="--")
        panel.set_xlabel("% of the FMA peak")
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        panel.set_xlabel("GF/s")


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
