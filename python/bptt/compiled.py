"""The compiled module ``bptt._core``, or why there is none."""

from __future__ import annotations

import importlib
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["core", "why_missing"]


def _load() -> tuple[Any, str | None]:
    """The compiled module, or None and why there is none."""
    try:
        return importlib.import_module("bptt._core"), None
    except Exception as error:  # an undefined symbol, another libstdc++, another Python
        if isinstance(error, ModuleNotFoundError) and error.name == "bptt._core":
            from pathlib import Path  # only here: it would cost `import bptt` a tenth

            package = Path(__file__).parent
            return None, _why_not_found(package)
        return None, f"its compiled module cannot be loaded: {error}"


def _why_not_found(package: Path) -> str:
    others = [
        file.name
        for file in sorted(package.glob("_core.*"))
        if file.suffix in (".so", ".pyd")
        and file.name.removeprefix("_core") not in EXTENSION_SUFFIXES
    ]
    if others:
        return f"its compiled module is for another Python ({', '.join(others)}); install it again"
    return "built without a C++ compiler (pip install with g++ to enable)"


core, why_missing = _load()
