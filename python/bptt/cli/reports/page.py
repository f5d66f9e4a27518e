"""One page that needs no other file, of figures, numbers, and a text with a little notation.

A text is an HTML file beside this one, in which there may be
- ``$name``: a fact;
- ``<figure id="name">caption</figure>``: a figure, left out if it has nothing to show;
- ``<each id="group">The {n.cell} network ...</each>``: repeated for each network of a group;
  ``{n.seconds!n}`` is a number to two or three digits;
- ``<table id="group">``: a line of headings and one that is repeated for each network, such as
  ``network | seconds`` and ``{n.cell} | {n.seconds!n}``; they go on after a ``|`` at their end;
- ``<section id="name">...</section>``: left out if that figure, group or fact is empty;
- ``<math>S_t = S_{t-1} + [dL|dW]</math>``: a formula, with subscripts and fractions; and one within
  a sentence, `S_{t-1}`, in backquotes.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from string import Formatter, Template
from typing import Any

from matplotlib.figure import Figure

import bptt
from bptt import files

from ..network import Network
from ..results import Results
from ..run import Run
from ..training import MONITORED
from .panels import to_png

Group = Callable[[list[Network]], list[Network]]


def only(test: Callable[[Network], Any]) -> Group:
    """Those networks that pass a test."""
    return lambda networks: [network for network in networks if test(network)]


@dataclass(frozen=True)
class Report:
    """How the results of a command become a page."""

    command: str
    title: str
    text: str  # the name of its file
    groups: dict[str, Group]  # some of the networks, by names that figures and texts use
    figures: dict[str, tuple[str, Callable[..., Figure]]]  # the group they show, and how
    row: Callable[[Network, Any], dict[str, str]]  # what it says of a network, given the settings
    # What the text says beside settings and data.
    facts: Callable[[Results], dict[str, Any]] = lambda results: {}

    def files(self) -> list[str]:
        """All that is written of a run, but for parameters."""
        return ["results.json", "report.html", *(f"figures/{name}.png" for name in self.figures)]


def conclude(report: Report, run: Run, summary: str = "") -> int:
    """Write all that was found, and tell the user how it ended; the exit code."""
    results, folder = run.results, run.folder
    results.status = "complete" if results.finished == results.wanted else "interrupted"
    results.save(folder)
    if results.interrupted:
        print("Writing what is done so far (Ctrl-C again to stop at once) ...", file=sys.stderr)
    write_report(report, results, folder)
    kept = "Interrupted: what was done is kept." if results.interrupted else ""
    print("\n".join(filter(None, (kept, summary, f"Report: {folder / 'report.html'}"))))
    return 130 if results.interrupted else 0


def write_report(report: Report, results: Results, folder: Path) -> None:
    """Draw the figures and write the page, from nothing but `results`."""
    groups = {name: group(results.networks) for name, group in report.groups.items()}
    groups["unfinished"] = only(lambda n: not n.finished)(results.networks)
    images = {}
    for name, (group, draw) in report.figures.items():
        if groups[group]:
            images[name] = to_png(partial(draw, groups[group], results.settings))
            files.write(folder / f"figures/{name}.png", images[name])
    rows = {
        name: [{"n": n, **report.row(n, results.settings)} for n in networks]
        for name, networks in groups.items()
    }
    text = _filled(_read(report.text), {**_facts(results), **report.facts(results)}, rows, images)
    topic = report.title[0].lower() + report.title[1:]
    frame = {"command": report.command, "title": report.title, "topic": topic, "text": text}
    html = Template(_read("page.html")).substitute(frame, style=_read("page.css"))
    files.write(folder / "report.html", html)


def number(value: float) -> str:
    """`value` to two or three digits, as HTML; powers of ten where it is far from one."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}·10<sup>{int(exponent)}</sup>".replace("-", "&minus;")


def _facts(results: Results) -> dict[str, Any]:
    """What every text may mention: settings, data, how far the run came, how exact it is."""
    known = {**vars(results.settings), **results.data}
    checks = [check for n in results.networks for check in n.checks if math.isfinite(check)]
    return {
        **{name: f"{v:.5g}" if isinstance(v, float) else v for name, v in known.items()},
        "backend": results.backend,
        "monitored": MONITORED,
        "version": bptt.__version__,
        "interrupted": results.interrupted,
        "finished": results.finished,
        "wanted": results.wanted,
        "check": ""
        if not checks
        else "The terms of all lags, added up, are the gradient that BPTT computes in one pass: "
        "‖sum &minus; gradient‖ / ‖gradient‖ is rounding, and was at most "
        f"{number(max(checks))}.",
    }


def _filled(
    text: str,
    facts: dict[str, Any],
    rows: dict[str, list[dict[str, Any]]],
    images: dict[str, bytes],
) -> str:
    """A text with all of its notation replaced."""
    kept = {**facts, **images, **rows}
    text = Template(text).substitute(facts)
    text = _each("section").sub(lambda m: m["inside"] if kept.get(m["id"]) else "", text)
    text = _each("table").sub(lambda m: _table(m["inside"], rows[m["id"]]), text)
    text = _each("each").sub(lambda m: _repeated(m["inside"], rows[m["id"]]), text)
    text = _each("figure").sub(lambda m: _figure(m["inside"], images.get(m["id"])), text)
    text = _each("math").sub(lambda m: _formula(m["inside"]), text)
    return re.sub("`([^`]*)`", lambda m: _inline(m[1]), text)


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _each(tag: str) -> re.Pattern[str]:
    """Finds elements of a text, their ``id`` and what is ``inside``."""
    pattern = rf'<{tag}(?: id="(?P<id>[\w-]+)")?>\n?(?P<inside>.*?)\n?</{tag}>'
    return re.compile(pattern, re.DOTALL)


class _Row(Formatter):
    def convert_field(self, value: Any, conversion: Any) -> Any:
        return number(value) if conversion == "n" else super().convert_field(value, conversion)


def _repeated(template: str, rows: list[dict[str, Any]]) -> str:
    return "\n".join(_Row().format(template, **row) for row in rows)


def _table(lines: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head, template = (line.split("|") for line in lines.replace("|\n", "|").splitlines())
    cells = "".join(f"<td>{cell.strip()}</td>" for cell in template)
    names = "".join(f"<th>{cell.strip()}</th>" for cell in head)
    body = _repeated(f"<tr>{cells}</tr>", rows)
    return f"<table>\n<tr>{names}</tr>\n{body}\n</table>"


def _figure(caption: str, png: bytes | None) -> str:
    """The image inside the page itself, with its caption."""
    if png is None:
        return ""
    data, caption = base64.b64encode(png).decode(), " ".join(caption.split())
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


# Of a formula: what is one letter, digit or sign, and then what is made of several.
_LEAF = re.compile(r"(?P<mi>[a-z]{3,}|[^\W\d_])|(?P<mn>\d)|(?P<mo>[^\s\w{}\[\]|^])")
_PART = "(<mrow>(?:(?!<mrow>).)*?</mrow>|<m[ino]>[^<]*</m[ino]>)"
_NOTATION = {
    r"\{": "<mrow>",
    r"\}": "</mrow>",
    rf"(<mo>[∑∏]</mo>)_{_PART}\^{_PART}": r"<munderover>\1\2\3</munderover>",
    rf"(<mo>[∑∏]</mo>)_{_PART}": r"<munder>\1\2</munder>",
    rf"{_PART}_{_PART}": r"<msub>\1\2</msub>",
    r"\[(.*?)\|(.*?)\]": r"<mfrac><mrow>\1</mrow><mrow>\2</mrow></mfrac>",
    "  +": '<mspace width="2em"/>',
}


def _formula(text: str) -> str:
    """MathML of ``S_t = S_{t-1} + [dL|dW]``."""
    text = _LEAF.sub(lambda m: f"<{m.lastgroup}>{m[0]}</{m.lastgroup}>", text)
    for short, long in _NOTATION.items():
        text = re.sub(short, long, text)
    return f'<math display="block"><mrow>{text}</mrow></math>'


def _inline(text: str) -> str:
    """HTML of a short formula, which is not broken at a minus sign."""
    text = re.sub(r"([^\W\d_])", r"<var>\1</var>", text)
    text = re.sub(r"_(<var>.</var>|\d)|_\{(.*?)\}", r"<sub>\1\2</sub>", text)
    return re.sub("\\s\u2212\\s", "&nbsp;&minus;&nbsp;", text)
