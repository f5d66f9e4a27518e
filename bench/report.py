"""Table and charts of a results file, printed and written beside it: nothing is measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .chart import draw
from .records import Results, replace
from .table import format_table

__all__ = ["main", "write"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a results file; write it and the charts beside it."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("name", help="results/NAME.json beside this, or a path to such a file")
    name = parser.parse_args(arguments).name
    path = Path(name) if name.endswith(".json") else Path(__file__).parent / f"results/{name}.json"
    try:
        results = Results.read(path)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(format_table(results))
    write(results, path)
    return 0


def write(results: Results, path: Path) -> None:
    """Write the table and the charts beside the results file `path`."""
    replace(path.with_suffix(".txt"), format_table(results) + "\n")
    for drawn in draw(results, path):
        print(f"wrote {drawn.name}")
