"""``python -m bench``: the comparison, and what else README.md names."""

import sys

from bench import builds, ladder, lags, overhead, report, run

_COMMANDS = {
    "builds": builds.main,
    "ladder": ladder.main,
    "lags": lags.main,
    "overhead": overhead.main,
    "report": report.main,
}

if __name__ == "__main__":
    command = _COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    sys.exit(command(sys.argv[2:]) if command else run.main(sys.argv[1:]))
