"""Fused forward pass and BPTT compiled by Numba, for machines without a C++ compiler."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cells import Cell
from ..checks import Array
from ..grads import Grads
from ..losses import Objective
from ..params import Params
from .protocol import Forward, State

__all__ = ["NumbaBackend", "compile_seconds"]


def compile_seconds() -> float | None:
    return None


@dataclass(frozen=True)
class NumbaBackend:
    name: str = "numba"
    error: type[Exception] = ImportError

    def missing(self) -> str | None:
        return "being written"
    def description(self) -> str:
        return ""
    def supports(self, cell, dtype):
        return False
