"""The Python examples of the documentation run, file by file, from top to bottom.

A block that cannot run says why, as in ```python no-run: needs a model. One that needs PyTorch is
opened by ```python torch, or JAX and flax by ```python jax.
"""

from __future__ import annotations

import ast
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
        if not block["mark"].startswith("no-run")
    ]


WITH_EXAMPLES = [page for page in PAGES if examples(page)]


def test_the_derivation_is_among_the_pages_with_examples() -> None:
    assert ROOT / "docs" / "math.md" in WITH_EXAMPLES


def test_every_block_runs_or_says_why_not() -> None:
    for page in PAGES:
        for mark in marks(page):
            assert mark in {"", "torch", "jax"} or re.match(r"no-run: \w", mark), (page.name, mark)


def test_every_block_has_a_language() -> None:
    """So that none is Python in disguise: what opens a block is a word that is known."""
    known = {"c", "cmake", "math", "python", "sh", "text"}
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|~~~)(.*)$", page.read_text(encoding="utf-8"), re.M)
        assert {fence.split()[0] if fence else "" for fence in fences[::2]} <= known, page.name


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


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    changed = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert cited is not None
    assert changed is not None
    assert {cited[1], changed[1]} == {bptt.__version__}


@pytest.mark.parametrize("package", ["bptt", "bptt.torch", "bptt.jax"])
def test_the_reference_has_every_public_name(package: str) -> None:
    listed: set[str] = set()
    for page in (ROOT / "docs" / "reference").glob("*.rst"):
        text = page.read_text(encoding="utf-8")
        if f".. currentmodule:: {package}\n" in text:
            listed |= set(
                re.findall(r"^\.\. (?:auto)?(?:function|class|data):: (\w+)$", text, re.M)
            )
    folder = Path(bptt.__file__).parents[1].joinpath(*package.split("."))
    names = re.search(r"__all__ = (\[.*?\])", (folder / "__init__.py").read_text(), re.S)
    assert names is not None
    assert listed == set(ast.literal_eval(names[1])) - {"__version__"}
