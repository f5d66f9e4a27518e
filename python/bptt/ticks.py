"""Labels of logarithmic axes. Importing this module imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axis import Axis

__all__ = ["label_logarithmic"]

_NARROW = 500  # the end of an axis over its beginning, up to which powers of ten are too few
_PLAIN = (1e-4, 1e4)  # numbers that are read more easily as they are


def label_logarithmic(axis: Axis) -> None:
    """Label the powers of ten of `axis`, and twice and five times them where it is short."""
    axis.set_major_locator(_Locator())
    axis.set_major_formatter(_Formatter())
    axis.set_minor_formatter(NullFormatter())


class _Locator(LogLocator):
    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        self.set_params(subs=(1.0, 2.0, 5.0) if vmax < _NARROW * vmin else (1.0,))
        return super().tick_values(vmin, vmax)


class _Formatter(LogFormatterSciNotation):
    """0.02, 0.05, 0.1 on a short axis; powers of ten on a long one, or far from one."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        low, high = cast("Axis", self.axis).get_view_interval()
        if high < _NARROW * low and _PLAIN[0] <= low and high <= _PLAIN[1]:
            return f"{x:g}"
        return str(super().__call__(x, pos))
