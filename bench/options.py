"""The command line that all commands share, and the number of threads, the same for everybody.

BLAS, Numba and JAX read the environment when they are loaded, bptt and PyTorch can be told later.
What does as it likes shows in the CPU time that is recorded beside the wall time.
"""

import argparse
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .cases import Case, load_families, select

T = TypeVar("T")

# XLA has no option for it: its CPU client sizes its pool by the first two (xla/pjrt/utils.cc).
_VARIABLES = (
    *("PJRT_NPROC", "NPROC", "NUMBA_NUM_THREADS"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
)
_OUT = "write quartiles, the table as FILE.txt and a run's charts as FILE-*.png"


def available_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """OMP_NUM_THREADS if it holds a number, else the CPUs this process may run on."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else available_cpus()


def set_environment(arguments: Sequence[str]) -> None:
    """Limit what is not loaded yet to ``--threads``, the largest of them if there are several.

    JAX is kept on the CPU, like everybody else. NumPy must not be loaded yet: it reads this once.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", add_help=False)
    parser.add_argument("--threads", type=numbers, default=(default_threads(),))
    threads = max(parser.parse_known_args(arguments)[0].threads)
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)), JAX_PLATFORMS="cpu")


def positive(text: str) -> int:
    """Of an option as ``--rounds 7``."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return number


def numbers(text: str) -> tuple[int, ...]:
    """Of an option as ``--threads 1,2``."""
    return tuple(positive(number) for number in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Of an option as ``--cell tanh,lstm``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def make_parser(
    command: str, text: str | None, *, threads: Callable[[str], Any] = positive, **defaults: Any
) -> argparse.ArgumentParser:
    """A parser of the options of every command that measures.

    `text` says what is measured, and is printed as it stands. `threads` may be `numbers`.
    `defaults` are pairs of ``rounds`` and ``min_time``, the second with ``--quick``; `parse` fills
    them in.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m bench {command}".strip(),
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(max_call=math.inf, defaults=defaults)
    add, cpus = parser.add_argument, str(default_threads())
    metavar = "LIST" if threads is numbers else "N"
    add("--threads", type=threads, default=cpus, metavar=metavar, help="of everybody (all CPUs)")
    add("--rounds", type=positive, metavar="N", help=f"samples of each ({defaults['rounds'][0]})")
    seconds = f"seconds of a sample at least; 0 is one call ({defaults['min_time'][0]:g})"
    add("--min-time", type=float, metavar="S", help=seconds)
    add("--quick", action="store_true", help="does it run? Small sizes, few and short samples")
    add("--out", type=_json, metavar="FILE.json", help=_OUT)
    return parser


def add_cases(
    parser: argparse.ArgumentParser, cells: tuple[str, ...] = (), *, dtypes: bool = True
) -> None:
    """Options that say which problems are timed; `parse` replaces --case with the shapes."""
    add, families = parser.add_argument, ", ".join(load_families())
    add("--family", type=names, default=(), metavar="LIST", help=f"{families}, or all (design)")
    add("--case", type=names, default=(), metavar="LIST", help="names or patterns, as 'B1-*'")
    default = ", ".join(cells) or "all"
    add("--cell", type=names, default=cells, metavar="LIST", help=f"cells ({default})")
    if dtypes:
        add("--dtype", type=names, default=("float32",), metavar="LIST", help="dtypes (float32)")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exit with a message if it makes no sense."""
    given = parser.parse_args(arguments)
    for name, (full, quick) in given.defaults.items():
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else full)
    if hasattr(given, "family"):
        given.case, given.titles = _cases(parser, given)
    if hasattr(given, "dtype"):
        given.dtype = [*choose(parser, "--dtype", given.dtype, {"float32": 0, "float64": 0})]
    isa = [f"BPTT_ISA={value}"] if (value := os.environ.get("BPTT_ISA")) else []
    no_paths = (word for word in arguments or () if not os.path.isabs(word))
    words = [w for w in no_paths if not w.startswith("--out") and w != str(given.out)]
    given.command = " ".join([*isa, parser.prog, *map(shlex.quote, words)])
    return given


def _cases(
    parser: argparse.ArgumentParser, given: argparse.Namespace
) -> tuple[list[Case], dict[str, str]]:
    """The cases that are wanted, and the titles of their families."""
    known = load_families()
    wanted = given.family or ("quick" if given.quick else "design",)
    if wanted == ("all",):
        wanted = tuple(name for name in known if name != "quick")
    families = choose(parser, "--family", wanted, known)
    cases = select(families.values(), given.case)
    if not cases:
        parser.error(f"--case: nothing in {', '.join(wanted)} matches {', '.join(given.case)}")
    return cases, {case.family: known[case.family].title for case in cases}


def choose(
    parser: argparse.ArgumentParser, option: str, wanted: Sequence[str], known: Mapping[str, T]
) -> dict[str, T]:
    """The entries of `known` that are wanted, in its order; all of them if none is named."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        parser.error(f"{option}: {', '.join(unknown)} not in {', '.join(known)}")
    return {name: value for name, value in known.items() if not wanted or name in wanted}


def _json(text: str) -> Path:
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .json, got {text}")
    return Path(text)
