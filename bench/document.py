"""The results file: what was run, on what, and every sample of every round."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import machine
from .cases import load_families
from .options import Options
from .peers import Peer
from .records import SCHEMA, Row
from .table import format_table

__all__ = ["begin", "read", "update", "write", "write_table"]

_WORK = "y and all gradients: 6 G T B H (I + H) flop a call"


def begin(options: Options, cells: Sequence[str], peers: Iterable[Peer]) -> dict[str, Any]:
    """A document without rows."""
    families = load_families()
    return {
        "schema": SCHEMA,
        "begun": machine.now(),
        "ended": None,
        "interrupted": True,
        "work": _WORK,
        "settings": {
            "families": {name: families[name].title for name in options.families},
            "patterns": list(options.patterns),
            "cells": list(cells),
            "dtypes": list(options.dtypes),
            "threads": options.threads,
            "rounds": options.rounds,
            "min_time": options.min_time,
            "max_call": options.max_call,
        },
        "load": [machine.load_average()],
        "machine": machine.machine(),
        "software": machine.software(peers),
        "rows": [],
    }


def update(document: dict[str, Any], rows: Iterable[Row], *, interrupted: bool) -> None:
    """Put `rows` into the document, as of now."""
    document["rows"] = [row.to_dict() for row in rows]
    document["interrupted"] = interrupted
    document["ended"] = machine.now()
    document["load"][1:] = [machine.load_average()]


def write(document: dict[str, Any], path: Path) -> None:
    """Write the JSON, and the table as text beside it; each appears only when it is complete."""
    # Infinity (the error of outputs that are missing) is no JSON number: it becomes a string.
    _replace(path, json.dumps(_finite(document), indent=1, allow_nan=False))
    write_table(document, path)


def write_table(document: dict[str, Any], path: Path) -> None:
    """Write the table as text beside the JSON."""
    _replace(path.with_suffix(".txt"), format_table(document))


def _replace(path: Path, content: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(content + "\n", encoding="utf-8")
    os.replace(partial, path)


def read(path: Path) -> dict[str, Any]:
    """Read a document that `write` wrote."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: expected schema {SCHEMA}, got {document.get('schema')!r}")
    return document


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return str(value)
    return value
