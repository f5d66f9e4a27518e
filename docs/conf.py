"""The site: the pages of this folder, and a reference made of the docstrings, by Sphinx.

    sphinx-build -W --keep-going -c docs . build/site

Its pages are also the README of the repository and those beside it, so that its links, which are
those that one follows in the repository, lead somewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bptt
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
logger = logging.getLogger(__name__)

project = "bptt"
author = copyright = "The bptt developers"
version = release = bptt.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "bench/*.md", "docs/**.md", "docs/**.rst"]
exclude_patterns = [".*", "build", "csrc", "dist", "examples", "python", "tests"]

# What the sidebar shows, in this order.
CONTENTS = {
    "Guide": [
        "docs/demo",
        "docs/your-data",
        "docs/stacks",
        "docs/lags",
        "docs/truncation",
        "docs/jacobians",
        "docs/custom-cells",
    ],
    "In other programs": ["docs/torch", "docs/from-torch", "docs/jax", "docs/c"],
    "Reference": [
        "docs/reference/layers",
        "docs/reference/lags",
        "docs/reference/jacobians",
        "docs/reference/cells",
        "docs/reference/settings",
        "docs/reference/torch",
        "docs/reference/jax",
        "docs/reference/c",
    ],
    "How it works": [
        "docs/math",
        "docs/architecture",
        "docs/performance",
        "docs/cuda",
        "docs/adr/README",
    ],
    "Project": [
        "docs/README",
        "Benchmarks <bench/README>",
        "CONTRIBUTING",
        "docs/releasing",
        "CHANGELOG",
    ],
}

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "none"  # docstrings have shapes and dtypes as well
default_role = "py:obj"
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_google_docstring = False
napoleon_use_param = False  # which would tear names apart that stand together
napoleon_use_rtype = False

html_css_files = ["site.css"]
html_static_path = ["site.css"]
html_theme = "furo"
html_title = f"bptt {release}"
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    """Links to folders, of which there is no page, become text; pages get their lists of pages."""
    folder = (ROOT / page).parent

    def without_folders(link: re.Match[str]) -> str:
        return link[1] if (folder / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^][]+)\]\(([\w./-]+)\)", without_folders, source[0])
    if page == root_doc:
        for title, pages in CONTENTS.items():
            source[0] += _contents(f":caption: {title}", *pages)
    elif page == "docs/adr/README":
        source[0] += _contents(":glob:", "0*")


def _contents(option: str, *pages: str) -> str:
    return "\n".join(["\n```{toctree}", ":hidden:", option, "", *pages, "```\n"])


def _prepare_docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Link the pages that a docstring names, and let no "H." at the start of a line be a list."""
    for i, line in enumerate(lines):
        linked = re.sub(r"\bdocs/([\w-]+)\.md", r":doc:`/docs/\1`", line)
        lines[i] = re.sub(r"^( *)(?=[A-Z]\.(?: |$))", r"\1\\", linked)


def _formula(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """MathML, which browsers show by themselves."""
    block = isinstance(node, nodes.math_block)
    found = convert(node.astext(), display="block" if block else "inline")
    if "\\" in found:
        logger.warning("a command of LaTeX that is not known: %s", node.astext(), location=node)
    writer.body.append(f'<div class="formula">{found}</div>\n' if block else found)
    raise nodes.SkipNode


def _begin_at_the_readme(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        to = f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html">'
        (Path(app.outdir) / "index.html").write_text(to + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _prepare_docstring, priority=400)  # before napoleon
    app.connect("build-finished", _begin_at_the_readme)
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
