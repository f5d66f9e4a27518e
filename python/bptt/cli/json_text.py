"""Dataclasses of results as ``results.json``."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

import bptt

__all__ = ["to_json"]


def to_json(results: Any) -> str:
    """As strict JSON: numbers to seven digits, null where a number is not finite."""
    found = {**_plain(results), "bptt": bptt.info().to_dict()}
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """`value` as dicts, lists, strings and numbers that JSON knows."""
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
