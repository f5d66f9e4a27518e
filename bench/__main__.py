"""``python -m bench [COMMAND] ...``: each command is the module of its name, the first is `run`."""

import sys
from importlib import import_module

from .options import set_environment

COMMANDS = (
    *("run", "builds", "kernels", "ladder", "lags", "limits", "overhead", "report", "sequences"),
    *("jax", "torch"),
)

if __name__ == "__main__":
    name, arguments = "run", sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        name, *arguments = arguments
    set_environment(arguments)  # before anything loads NumPy
    sys.exit(import_module(f"bench.{name}").main(arguments))
