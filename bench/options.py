"""The command line: what all commands share, and the shapes that some of them choose from."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from .cases import Case, Family, load_families, select
from .threads import default_threads, positive

__all__ = ["add_cases", "choose", "make_parser", "names", "parse"]

T = TypeVar("T")

_OUT = "write quartiles, the table as FILE.txt and a run's charts as FILE-*.png"


def make_parser(
    command: str,
    text: str | None,
    full: Mapping[str, float],
    quick: Mapping[str, float],
) -> argparse.ArgumentParser:
    """A parser of the options of every command that measures.

    `text` says what is measured, and is printed as it stands. `full` and `quick` have the default
    of ``rounds`` and ``min_time`` without and with ``--quick``; `parse` fills them in.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m bench {command}".strip(),
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        conflict_handler="resolve",
    )
    parser.set_defaults(full=full, quick_defaults=quick)
    add = parser.add_argument
    text = "of every contestant (as many as CPUs)"
    add("--threads", type=positive, default=default_threads(), metavar="N", help=text)
    add("--rounds", type=positive, metavar="N", help=f"samples of each ({full['rounds']})")
    seconds = f"seconds of a sample at least; 0 is one call ({full['min_time']:g})"
    add("--min-time", type=float, metavar="S", help=seconds)
    add("--quick", action="store_true", help="does it run? Small sizes, few and short samples")
    add("--out", type=_json, metavar="FILE.json", help=_OUT)
    return parser


def add_cases(parser: argparse.ArgumentParser, cells: tuple[str, ...] = ()) -> None:
    """Options that say which problems are timed; `parse` replaces --case with the shapes."""
    add, families = parser.add_argument, ", ".join(load_families())
    add("--family", type=names, default=(), metavar="LIST", help=f"{families}, or all (design)")
    add("--case", type=names, default=(), metavar="LIST", help="names or patterns, as 'B1-*'")
    default = ", ".join(cells) or "all"
    add("--cell", type=names, default=cells, metavar="LIST", help=f"cells ({default})")
    add("--dtype", type=names, default=("float32",), metavar="LIST", help="dtypes (float32)")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exit with a message if it makes no sense."""
    given = parser.parse_args(arguments)
    for name, default in (given.quick_defaults if given.quick else given.full).items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    if hasattr(given, "family"):
        given.case = _cases(parser, given)
        given.dtype = [*choose(parser, "--dtype", given.dtype, {"float32": 0, "float64": 0})]
    isa = os.environ.get("BPTT_ISA")
    no_paths = (word for word in arguments or () if not os.path.isabs(word))
    words = [w for w in no_paths if not w.startswith("--out") and w != str(given.out)]
    prefix = [f"BPTT_ISA={isa}"] if isa else []
    given.command = " ".join([*prefix, parser.prog, *map(shlex.quote, words)])
    return given


def _cases(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Case]:
    known = load_families()
    wanted = given.family or (("quick",) if given.quick else ("design",))
    if wanted == ("all",):
        wanted = tuple(name for name in known if name != "quick")
    families: Iterable[Family] = choose(parser, "--family", wanted, known).values()
    cases = select(families, given.case)
    if not cases:
        parser.error(f"--case: nothing in {', '.join(wanted)} matches {', '.join(given.case)}")
    return cases


def choose(
    parser: argparse.ArgumentParser, option: str, wanted: Sequence[str], known: Mapping[str, T]
) -> dict[str, T]:
    """The entries of `known` that are wanted, in its order; all of them if none is named."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        parser.error(f"{option}: {', '.join(unknown)} not in {', '.join(known)}")
    return {name: value for name, value in known.items() if not wanted or name in wanted}


def names(text: str) -> tuple[str, ...]:
    """Of an option as ``--cell tanh,lstm``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _json(text: str) -> Path:
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .json, got {text}")
    return Path(text)
