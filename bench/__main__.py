"""``python -m bench``: the comparison, and what else README.md names."""

import sys
from importlib import import_module

_COMMANDS = ("builds", "ladder", "lags", "overhead", "report")

if __name__ == "__main__":
    # One module alone: `run` sets the environment before anything loads NumPy.
    name, arguments = "run", sys.argv[1:]
    if arguments and arguments[0] in _COMMANDS:
        name, *arguments = arguments
    sys.exit(import_module(f"bench.{name}").main(arguments))
