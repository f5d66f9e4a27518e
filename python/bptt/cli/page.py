"""What the reports share: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from importlib import resources
from string import Template

__all__ = ["figure", "page", "stopped"]


def page(template: str, fields: Mapping[str, str]) -> str:
    """The file `template` of this package with its ``$names`` filled in, in the reports' style."""
    return Template(_text(template)).substitute(fields, style=_text("report.css"))


def figure(png: bytes, caption: str) -> str:
    """The image inside the page itself, with its caption."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def stopped(finished: int, networks: int, partly: Mapping[str, int]) -> str:
    """What a report says first if training was interrupted; `partly` has names and their steps."""
    after = "".join(f" {name} was stopped after {steps} steps." for name, steps in partly.items())
    return (
        '<p class="stopped"><strong>This run was interrupted.</strong> '
        f"{finished} of {networks} networks were trained to the end."
        f"{after} For a network that was stopped, “after training” means that moment.</p>"
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
