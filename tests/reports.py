"""What the tests of commands ask of the folder that a command wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

__all__ = ["figures_of", "images_in", "require_extra", "results_of", "stated_accuracy", "undrawn"]


def require_extra() -> None:
    """Skip the test where the extra ``bptt[demo]`` is not installed."""
    for module in ("matplotlib", "sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)


def undrawn(patch: pytest.MonkeyPatch) -> None:
    """Write other bytes in place of figures, which take longer than all else in a small run."""
    patch.setattr("bptt.cli.reports.page.to_png", lambda draw: b"no figure")


def results_of(folder: Path) -> dict[str, Any]:
    """``results.json``, which has to be strict JSON."""

    def reject(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "results.json").read_text()
    found: dict[str, Any] = json.loads(text, parse_constant=reject)
    return found


def figures_of(folder: Path) -> set[str]:
    """The names of the figures, each of which has to be a PNG file."""
    paths = list((folder / "figures").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    return {path.stem for path in paths}


def images_in(folder: Path) -> int:
    """How many images are in ``report.html``, which may refer to nothing outside itself."""
    report = (folder / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', report)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    text = re.sub(r"base64,[^\"]*", "", report)
    assert "http" not in text
    assert "$" not in text
    return len(sources)


def stated_accuracy(folder: Path) -> float:
    """The relative difference between summed terms and gradient that the report states."""
    text = (folder / "report.html").read_text()
    stated = re.findall(r"rounding, and was at most ([\d.]+)·10<sup>&minus;(\d+)</sup>", text)
    ((digits, exponent),) = stated
    return float(f"{digits}e-{exponent}")
