"""``report.html``: the figures and numbers of a run, explained, in one file that needs no other."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import bptt

from .figures import FIGURES, draw
from .folder import write_file
from .results import Results
from .tables import TABLES, label, number

__all__ = ["write_report"]

# Below each figure, and read aloud to those who do not see it.
_CAPTIONS = {
    "learning": "Training loss (running mean over an epoch), held-out accuracy, and the gradient "
    "at the first state relative to that at the last. Dotted: guessing, and a gradient equally "
    "strong at both ends.",
    "regimes": "Size of the gradient at the state of step k relative to that at the step of the "
    "loss, before training.",
    "distance": "Size of the gradient at the state of step k by its distance from the loss, "
    "before and after training.",
    "share": "Share of each distance in the gradient of the recurrent weights. The two rows have "
    "different scales; dotted: all distances equal.",
    "cut": "Error of the gradient of the recurrent weights if the terms beyond a distance are "
    "left out. Dotted: an error of 5\N{NO-BREAK SPACE}%.",
    "readout": "The loss is read at the end of each row of pixels, before training. Left: the "
    "term of step 2 in the gradient of the recurrent weights. Right: the gradient of the readout "
    "weights, and, dotted, the root mean square of the state's norm.",
}


def write_report(results: Results, folder: Path) -> None:
    """Draw the figures and write the report, from nothing but `results`."""
    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    fields = _facts(results)
    fields.update({f"{name}_table": table(results) for name, table in TABLES.items()})
    for name in FIGURES:
        key = Path(name).stem
        fields[f"{key}_figure"] = ""
        if results.networks:
            png = draw(name, results)
            write_file(folder / name, png)
            fields[f"{key}_figure"] = _figure(png, _CAPTIONS[key])
    write_file(folder / "report.html", Template(template).substitute(fields))


def _facts(results: Results) -> dict[str, str]:
    """Numbers and words that the text mentions."""
    settings, data = results.settings, results.data
    example = results.networks[-1].network if results.networks else settings.networks()[0]
    checks = [m.gradient.check for r in results.networks for m in (r.before, r.after)]
    facts = {
        "stopped": _stopped(results),
        "steps": data["steps"],
        "train_images": data["train_images"],
        "held_out_images": data["held_out_images"],
        "mean": f"{data['pixel_mean']:.4f}",
        "deviation": f"{data['pixel_deviation']:.4f}",
        "hidden_size": settings.hidden_size,
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        "epochs": settings.epochs,
        "clip_norm": f"{settings.clip_norm:g}",
        "seed": settings.seed,
        "backend": results.backend,
        "version": bptt.__version__,
        "check": number(max(checks, default=0.0)),
        "params_file": example.params_file,
        "params_cell": example.cell,
    }
    return {name: str(value) for name, value in facts.items()}


def _stopped(results: Results) -> str:
    """What the report says first if training was interrupted."""
    if not results.interrupted:
        return ""
    finished = sum(result.finished for result in results.networks)
    partly = "".join(
        f" {label(result)} was stopped after {len(result.history.loss)} steps."
        for result in results.networks
        if not result.finished
    )
    return (
        '<p class="stopped"><strong>This run was interrupted.</strong> '
        f"{finished} of {len(results.settings.networks())} networks were trained to the end."
        f"{partly} For a network that was stopped, “after training” means that moment.</p>"
    )


def _figure(png: bytes, caption: str) -> str:
    """The image inside the page itself, with its caption."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
