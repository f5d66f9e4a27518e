"""The ``bptt`` command. Each of its sub-commands is one module with `add_parser` and a `run`.

Exit codes: 0 done; 1 failed on the way; 2 a wrong call, which touched nothing; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import bptt

from . import demo, info, lags
from .errors import CommandError

__all__ = ["main"]

_COMMANDS = (demo, info, lags)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (``sys.argv[1:]`` if not given) and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except CommandError as error:
        print(f"bptt {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nbptt {args.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bptt",
        description="Back-propagation through time as compiled kernels, resolved by distance.",
    )
    parser.add_argument("--version", action="version", version=f"bptt {bptt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
