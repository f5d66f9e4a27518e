"""Types of arguments that sub-commands share."""

from __future__ import annotations

import argparse

__all__ = ["path"]


def path(text: str) -> str:
    """A path that names something; an empty one would be taken as the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text
