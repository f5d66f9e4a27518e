"""Maps over hidden size and batch, for a family that is a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .records import Row
from .summary import Block, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = ["draw_grid"]

_LARGEST_RATIO = 32.0


def draw_grid(
    figure: Figure, family_blocks: Sequence[Block], comparison: Comparison, isa: str | None
) -> None:
    """Above the time of the fastest peer over the baseline's, below the fraction of the peak."""
    from matplotlib.colors import LogNorm, Normalize

    baseline = str(comparison.baseline)

    def ratio(row: Row) -> float | None:
        best = comparison.best_ratio(row, comparison.rivals)
        return None if best is None else best[1].median

    def percent(row: Row) -> float | None:
        fraction = row.peak_fraction(baseline)
        return None if fraction is None else 100 * fraction.median

    figure.set_size_inches(1.8 + 4.6 * len(family_blocks), 8.6)
    panels = figure.subplots(2, len(family_blocks), squeeze=False)
    # Orange where a peer is faster, purple where the baseline is; white in between.
    sides = LogNorm(1 / _LARGEST_RATIO, _LARGEST_RATIO)
    for column, block in enumerate(family_blocks):
        above, below = panels[:, column]
        _map(above, block, ratio, "PuOr", sides)
        above.set_title(f"{block.cell}, {block.dtype}\nfastest peer's time / {baseline}'s")
        _map(below, block, percent, "cividis", Normalize(0, 100))
        below.set_title(f"{baseline}, % of the FMA peak with {isa}")


def _map(
    panel: Axes, block: Block, value: Callable[[Row], float | None], colours: str, norm: Normalize
) -> None:
    """Colour and number of every cell; three digits, so that 0.95 is not read as 1."""
    hidden = sorted({row.case.hidden_size for row in block.rows})
    batch = sorted({row.case.batch for row in block.rows})
    cells = [[math.nan] * len(batch) for _ in hidden]
    for row in block.rows:
        found = value(row)
        if found is not None:
            cells[hidden.index(row.case.hidden_size)][batch.index(row.case.batch)] = found
    image = panel.imshow(cells, cmap=colours, norm=norm, origin="lower", aspect="auto")
    for y, line in enumerate(cells):
        for x, found in enumerate(line):
            if not math.isnan(found):
                red, green, blue, _ = image.cmap(norm(found))
                is_dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
                text = f"{found:.2f}" if found < 10 else f"{found:.3g}"
                colour = "white" if is_dark else "black"
                panel.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
    panel.set_xticks(range(len(batch)), [str(b) for b in batch])
    panel.set_yticks(range(len(hidden)), [str(h) for h in hidden])
    panel.set_xlabel("batch B")
    panel.set_ylabel("hidden size H (= I)")
