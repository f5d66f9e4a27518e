"""``bptt info``: what this installation runs on."""

from __future__ import annotations

import argparse
import json
from typing import Any

import bptt


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "info",
        help="version, instruction set, threads, and the state of every backend",
        description="What this installation runs on: the same as bptt.info() in Python.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    found = bptt.info()
    print(json.dumps(found.to_dict(), indent=2) if args.json else found)
    return 0
