"""The Python examples of the documentation run, file by file, from top to bottom.

A block that cannot run (it needs what a reader has) is opened by ```python no-run, and one that
needs PyTorch by ```python torch, or JAX and flax by ```python jax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import bptt
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^```python[ \t]*(?P<mark>[^\n]*)\n(?P<code>.*?)^```[ \t]*$", re.M | re.S)


def marks(page: Path) -> list[str]:
    """What stands behind the word python, of each block."""
    return [block["mark"].strip() for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def examples(page: Path) -> list[tuple[int, str]]:
    """The first line's number and the code of each block that is to be run."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, block.start("code")), block["code"])
        for block in BLOCK.finditer(text)
        if block["mark"].strip() != "no-run"
    ]


WITH_EXAMPLES = [page for page in PAGES if examples(page)]


def test_the_derivation_is_among_the_pages_with_examples() -> None:
    assert ROOT / "docs" / "math.md" in WITH_EXAMPLES


def test_every_mark_of_a_block_is_known() -> None:
    for page in PAGES:
        assert set(marks(page)) <= {"", "no-run", "torch", "jax"}, page.name


@pytest.fixture
def keep_cells() -> Iterator[None]:
    """Put the registry of cells back: examples define some that other tests have."""
    before = dict(bptt.CELLS)
    yield
    bptt.CELLS.clear()
    bptt.CELLS.update(before)


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("keep_cells")
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" in marks(page):
        pytest.importorskip("torch")
    if "jax" in marks(page):
        pytest.importorskip("flax")
        if bptt.info().jax is None:
            pytest.skip("bptt was built without handlers for JAX")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in examples(page):
        # Empty lines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * line + code, str(page), "exec"), names)


def test_links_between_pages_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
    for page in PAGES:
        for target in link.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
