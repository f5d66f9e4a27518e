"""The ``bptt`` command. Each of its sub-commands is one module with `add_parser` and a `run`.

Exit codes: 0 done; 1 failed on the way; 2 a wrong call, which touched nothing; 130 interrupted; 141
nobody reads the output any more (128 and the number of SIGINT and SIGPIPE, as shells have it).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import bptt

from . import demo, info, lags
from .options import CommandError

__all__ = ["main"]

_COMMANDS = (demo, info, lags)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (``sys.argv[1:]`` if not given) and return its exit code.

    What any sub-command may meet ends here, in one line: an error of a file or of the output, a
    pipe that is closed, Ctrl-C, too little memory.
    """
    name = "bptt"
    try:
        try:
            args = _read(argv)
            name = f"bptt {args.command}"
            return int(args.run(args))
        finally:
            _flush_output()  # here, where an error can be told
    except CommandError as error:
        return _ended(f"{name}: {error}", 2)
    except KeyboardInterrupt:
        return _ended(f"\n{name}: interrupted", 130)
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        _discard_output()
        what = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename else ""
        return _ended(f"{name}: stopped: {where}{what}", 1)
    except MemoryError as error:
        return _ended(f"{name}: stopped: {str(error) or 'out of memory'}", 1)


def _ended(line: str, exit_code: int) -> int:
    print(line, file=sys.stderr)
    return exit_code


def _flush_output() -> None:
    if sys.stdout is not None:  # it is None if there was none from the start
        sys.stdout.flush()


def _discard_output() -> None:
    """What could not be written is still buffered, and would fail again when Python ends."""
    try:
        _flush_output()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _read(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a sub-command, which tells its own usage if one of its own is wrong."""
    parser = argparse.ArgumentParser(
        prog="bptt",
        description="Back-propagation through time as compiled kernels, resolved by distance.",
    )
    parser.add_argument("--version", action="version", version=f"bptt {bptt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in _COMMANDS:
        command.add_parser(commands)
    argv = sys.argv[1:] if argv is None else list(argv)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        before = unknown[0] in argv[: argv.index(args.command)]
        owner = parser if before else commands.choices[args.command]
        owner.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args
