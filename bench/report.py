"""``python -m bench report FILE.json``: table and charts of a results file, once more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a results file, and draw its charts beside it."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=main.__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.json")
    path = parser.parse_args(arguments).file
    from . import document
    from .chart import draw
    from .table import format_table

    try:
        results = document.read(path)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(format_table(results))
    for drawn in draw(results, path):
        print(f"wrote {drawn.name}")
    return 0
