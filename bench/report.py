"""Table and charts of a results file, printed and written beside it: nothing is measured."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bptt import files

from .chart import draw
from .records import Results
from .table import format_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a results file; write it and the charts beside it."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("name", help="results/NAME.json beside this, or a path to such a file")
    name = parser.parse_args(arguments).name
    path = Path(name) if name.endswith(".json") else Path(__file__).parent / f"results/{name}.json"
    try:
        show(Results.read(path), path)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


def show(results: Results, path: Path | None) -> None:
    """Print the table; write it and the charts beside the results file `path`."""
    table = format_table(results)
    print(table)
    if path is not None:
        files.write(path.with_suffix(".txt"), table + "\n")
        for drawn in draw(results, path):
            print(f"wrote {drawn.name}")
