"""The command line of ``python -m bench``, and what its sub-commands share of it."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from .cases import Case, load_families, select
from .threads import available_cpus

__all__ = [
    "Options",
    "add_cases",
    "add_out",
    "add_rounds",
    "choose",
    "numbers",
    "parse",
    "read_cases",
    "sub_parser",
]

T = TypeVar("T")

_ROUNDS, _MIN_TIME, _QUICK_MIN_TIME = 7, 0.1, 0.01


@dataclass(frozen=True)
class Options:
    """What to measure. An empty tuple of cells or peers stands for all of them."""

    families: tuple[str, ...]
    patterns: tuple[str, ...]
    cases: tuple[Case, ...]
    cells: tuple[str, ...]
    dtypes: tuple[str, ...]
    peers: tuple[str, ...]
    threads: int
    rounds: int
    min_time: float
    max_call: float
    out: Path
    list_only: bool


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; exit with a message if it makes no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (definitions := getattr(given, "import")) is not None:
        if not definitions.is_file():
            parser.error(f"--import: expected a Python file, got {definitions}")
        runpy.run_path(str(definitions))
    cases = read_cases(parser, given)
    families = tuple(dict.fromkeys(case.family for case in cases))
    options = Options(
        families=families,
        patterns=given.case,
        cases=cases,
        cells=given.cell,
        dtypes=given.dtype,
        peers=given.peers,
        threads=given.threads,
        rounds=given.rounds or _ROUNDS,
        min_time=given.min_time or (_QUICK_MIN_TIME if given.quick else _MIN_TIME),
        max_call=given.max_call,
        out=given.out or _default_out(families),
        list_only=given.list,
    )
    if options.out.suffix != ".json":
        parser.error(f"--out: expected a name that ends in .json, got {options.out.name}")
    return options


def sub_parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """A parser that prints `text`, what is measured, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m bench {name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_rounds(parser: argparse.ArgumentParser, default: int) -> None:
    """``--rounds`` (None if not given) and ``--quick``."""
    add = parser.add_argument
    add("--rounds", type=_positive, help=f"samples of each (default: {default})")
    add("--quick", action="store_true", help="does it run? Small sizes, few and short samples")


def add_out(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("--out", type=Path, metavar="FILE.json", help=f"write results{more}")


def add_cases(parser: argparse.ArgumentParser, cells: tuple[str, ...] = ()) -> None:
    """Options that say which problems are timed; `read_cases` reads them."""
    add, families = parser.add_argument, ", ".join(load_families())
    add("--family", type=_names, default=(), metavar="LIST", help=f"{families}, or all (design)")
    add("--case", type=_names, default=(), metavar="LIST", help="names or patterns, as 'B1-*'")
    default = ", ".join(cells) or "all"
    add("--cell", type=_names, default=cells, metavar="LIST", help=f"cells ({default})")
    add("--dtype", type=_names, default=("float32",), metavar="LIST", help="dtypes (float32)")


def read_cases(parser: argparse.ArgumentParser, given: argparse.Namespace) -> tuple[Case, ...]:
    """The shapes that were asked for; exits where there are none, or a family is unknown."""
    families = load_families()
    chosen = given.family or (("quick",) if given.quick else ("design",))
    if chosen == ("all",):
        chosen = tuple(name for name in families if name != "quick")
    unknown = [name for name in chosen if name not in families]
    if unknown:
        parser.error(f"--family: {', '.join(unknown)} not in {', '.join(families)}, all")
    cases = select((families[name] for name in chosen), given.case)
    if not cases:
        parser.error(f"--case: nothing in {', '.join(chosen)} matches {', '.join(given.case)}")
    return tuple(cases)


def choose(option: str, wanted: Sequence[str], known: Mapping[str, T]) -> dict[str, T]:
    """The entries of `known` that are wanted, in its order; all of them if none is named."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"{option}: {', '.join(unknown)} not in {', '.join(known)}", file=sys.stderr)
        sys.exit(2)
    return {name: value for name, value in known.items() if not wanted or name in wanted}


def numbers(text: str) -> tuple[int, ...]:
    """Of an option as ``--threads 1,2``."""
    return tuple(_positive(number) for number in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Time bptt against PyTorch, JAX and its own other backends, in alternation: "
        "the forward pass and all gradients of a recurrent layer. All cells at ten shapes take "
        "about twenty minutes. LIST is one or more names, separated by commas.",
        epilog="Other measurements have a --help of their own: python -m bench builds, ladder, "
        "lags, overhead. 'python -m bench report FILE.json' prints a results file again.",
    )
    add = parser.add_argument
    add_cases(parser)
    add("--import", type=Path, metavar="FILE.py", help="run it first: it may define cells")
    add("--peers", type=_names, default=(), metavar="LIST", help="default: all that are installed")
    add(
        "--threads",
        type=_positive,
        default=_default_threads(),
        help="threads of every peer (as many as CPUs)",
    )
    add("--min-time", type=float, metavar="S", help="seconds a sample lasts at least (0.1)")
    add("--max-call", type=float, default=10.0, metavar="S", help="leave out slower peers (10)")
    add_rounds(parser, _ROUNDS)
    add_out(parser, ", FILE.txt and FILE-*.png")
    add("--list", action="store_true", help="print the shapes and leave")
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
