"""What the tests read in a ``report.html``."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["stated_accuracy"]


def stated_accuracy(folder: Path) -> float:
    """The relative difference between summed terms and gradient that the report states."""
    text = (folder / "report.html").read_text()
    stated = re.findall(r"rounding, and was at most ([\d.]+)·10<sup>&minus;(\d+)</sup>", text)
    ((digits, exponent),) = stated
    return float(f"{digits}e-{exponent}")
