"""Table and charts of a results file, written and printed once more: nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import document
from .chart import draw
from .options import sub_parser
from .table import format_table

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a results file; write it and the charts beside it."""
    parser = sub_parser("report", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE.json", help="by 'python -m bench --out'")
    path = parser.parse_args(arguments).file
    try:
        results = document.read(path)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(format_table(results))
    document.write_table(results, path)
    for drawn in draw(results, path):
        print(f"wrote {drawn.name}")
    return 0
