"""What a run found, as ``results.json`` holds it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bptt
from bptt import files

from .network import Network


@dataclass
class Results:
    """All networks of one run."""

    settings: Any  # a dataclass: what decides the numbers
    backend: str  # that ran; settings.backend is the one that was asked for
    data: dict[str, Any]  # what the networks read
    wanted: int  # networks
    networks: list[Network] = field(default_factory=list)  # those that the run has come to
    status: str = "running"  # then "complete" or "interrupted"

    @property
    def interrupted(self) -> bool:
        return self.status == "interrupted"

    def save(self, folder: Path) -> None:
        """Strict JSON: numbers to seven digits, null where a number is not finite."""
        found = {**_plain(self), "bptt": bptt.info().to_dict()}
        text = json.dumps(found, indent=1, allow_nan=False) + "\n"
        files.write(folder / "results.json", text)

    @property
    def finished(self) -> int:
        """How many networks came to their end."""
        return sum(network.finished for network in self.networks)


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
