"""``python -m bench``: check, time, print, write. See README.md beside this file.

Exit status: 0; 1 if a peer's outputs were wrong or it failed; 2 for a bad command line; 130 if
it was interrupted (what is finished has been written then).
"""

from __future__ import annotations

from collections.abc import Sequence

from .options import parse
from .threads import set_environment

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison that the command line asks for."""
    options = parse(arguments)
    if options.list_only:
        for case in options.cases:
            gflop = case.flops(gates=1) / 1e9
            print(f"{case.family:<10} {case.name:<24} {gflop:10.4g} GFlop a gate")
        return 0
    set_environment(options.threads)
    # Only now may NumPy and what needs it be loaded.
    from .session import Session

    return Session(options).run()
