"""The command line of ``python -m bench``."""

from __future__ import annotations

import argparse
import os
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from .cases import Case, load_families, select
from .threads import available_cpus

__all__ = ["Options", "parse"]

_MIN_TIME, _QUICK_MIN_TIME = 0.1, 0.01


@dataclass(frozen=True)
class Options:
    """What to measure. An empty tuple of cells or peers stands for all of them."""

    families: tuple[str, ...]
    patterns: tuple[str, ...]
    cells: tuple[str, ...]
    dtypes: tuple[str, ...]
    peers: tuple[str, ...]
    threads: int
    rounds: int
    min_time: float
    max_call: float
    out: Path
    list_only: bool

    def cases(self) -> list[Case]:
        """The cases that were chosen."""
        families = load_families()
        return select((families[name] for name in self.families), self.patterns)


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; exit with a message if it makes no sense."""
    families = load_families()
    parser = _parser(tuple(families))
    given = parser.parse_args(arguments)
    if (definitions := getattr(given, "import")) is not None:
        if not definitions.is_file():
            parser.error(f"--import: expected a Python file, got {definitions}")
        runpy.run_path(str(definitions))
    chosen = ("quick",) if given.quick and not given.family else given.family or ("design",)
    if chosen == ("all",):
        chosen = tuple(name for name in families if name != "quick")
    unknown = [name for name in chosen if name not in families]
    if unknown:
        parser.error(f"--family: {', '.join(unknown)} not in {', '.join(families)}, all")
    options = Options(
        families=chosen,
        patterns=given.case,
        cells=given.cell,
        dtypes=given.dtype,
        peers=given.peers,
        threads=given.threads,
        rounds=given.rounds,
        min_time=given.min_time or (_QUICK_MIN_TIME if given.quick else _MIN_TIME),
        max_call=given.max_call,
        out=given.out or _default_out(chosen),
        list_only=given.list,
    )
    if not options.cases():
        parser.error(f"--case: nothing in {', '.join(chosen)} matches {', '.join(given.case)}")
    if options.out.suffix != ".json":
        parser.error(f"--out: expected a name that ends in .json, got {options.out.name}")
    return options


def _parser(families: tuple[str, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Time bptt against PyTorch, JAX and its own other backends, in alternation. "
        "LIST is one or more names, separated by commas.",
        epilog="Also: 'python -m bench builds', 'ladder', 'lags', 'overhead', 'report FILE.json'.",
    )
    add = parser.add_argument
    add("--family", type=_names, default=(), metavar="LIST", help=f"{', '.join(families)}, or all")
    add("--case", type=_names, default=(), metavar="LIST", help="names or patterns, as 'B1-*'")
    add("--cell", type=_names, default=(), metavar="LIST", help="default: all")
    add("--import", type=Path, metavar="FILE.py", help="run it first: it may define cells")
    add("--dtype", type=_names, default=("float32",), metavar="LIST", help="float32, float64")
    add("--peers", type=_names, default=(), metavar="LIST", help="default: all that are installed")
    add("--threads", type=_positive, default=_default_threads(), help="of everybody")
    add("--rounds", type=_positive, default=7, help="samples a peer (default: %(default)s)")
    add("--min-time", type=float, metavar="S", help="seconds a sample lasts at least (0.1)")
    add("--max-call", type=float, default=10.0, metavar="S", help="leave out slower peers (10)")
    add("--quick", action="store_true", help="three small shapes, short samples")
    add("--out", type=Path, metavar="FILE.json", help="also FILE.txt and FILE-*.png")
    add("--list", action="store_true", help="print the cases and leave")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return number


def _default_threads() -> int:
    """OMP_NUM_THREADS if it holds a number, else the CPUs this process may run on."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else available_cpus()


def _default_out(families: tuple[str, ...]) -> Path:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Path(__file__).parent / "results" / f"{stamp}-{'-'.join(families)}.json"
