"""The report of the demo on digits: the figures and numbers of a run, explained."""

from __future__ import annotations

import math
from pathlib import Path

import bptt
from bptt import files

from .figures import FIGURES, draw
from .page import figure, page, stopped
from .results import Results
from .tables import TABLES, accuracy_of_sums, label, number, oldest_over_nearest
from .training import MONITORED

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
    "horizon": "The largest lag that has to be kept for an error of at most "
    "5\N{NO-BREAK SPACE}% in the gradient of all parameters, of "
    f"{MONITORED} sequences of a minibatch. Each mark is a measurement; a line ends at the last "
    "one.",
    "readout": "The loss is read at the end of each row of pixels, before training. Left: the "
    "term of step 2 in the gradient of the recurrent weights. Right: the gradient of the readout "
    "weights, and, dotted, the root mean square of the state's norm.",
    "gated": "Three cells with nearly as many parameters. Right: size of the gradient at the state "
    "of step k relative to that at the step of the loss, by the distance between both; dotted "
    "before training, solid after it.",
}


def write_report(results: Results, folder: Path) -> None:
    """Draw the figures and write the report, from nothing but `results`."""
    fields = _facts(results)
    fields.update({f"{name}_table": table(results) for name, table in TABLES.items()})
    for name in FIGURES:
        key = Path(name).stem
        fields[f"{key}_figure"] = ""
        if results.networks:
            png = draw(name, results)
            files.write(folder / name, png)
            fields[f"{key}_figure"] = figure(png, _CAPTIONS[key])
    files.write(folder / "report.html", page("report.html", fields))


def _facts(results: Results) -> dict[str, str]:
    """Numbers and words that the text mentions."""
    settings, data = results.settings, results.data
    example = results.networks[-1].network if results.networks else settings.networks()[0]
    checks = [m.gradient.check for r in results.networks for m in (r.before, r.after)]
    facts = {
        "stopped": _stopped(results),
        "gated_text": _mend(results),
        "steps": data["steps"],
        "train_images": data["train_images"],
        "held_out_images": data["held_out_images"],
        "mean": f"{data['pixel_mean']:.4f}",
        "deviation": f"{data['pixel_deviation']:.4f}",
        "hidden_size": settings.hidden_size,
        "learning_rate": settings.learning_rate,
        "gated_learning_rate": settings.gated_learning_rate,
        "batch_size": settings.batch_size,
        "epochs": settings.epochs,
        "clip_norm": f"{settings.clip_norm:g}",
        "seed": settings.seed,
        "backend": results.backend,
        "version": bptt.__version__,
        "check": accuracy_of_sums(checks),
        "monitor_share": _monitor_share(results),
        "params_file": example.params_file,
        "params_cell": example.cell,
    }
    return {name: str(value) for name, value in facts.items()}


def _mend(results: Results) -> str:
    """What the gates did for the far terms, and that they are not the only way."""
    if not any(result.network.gated for result in results.networks):
        return ""
    shares = ", ".join(
        f"{number(oldest_over_nearest(r.before.gradient))} in the {r.network.cell} cell"
        for r in results.compared
    )
    best = max(results.of_cell("tanh"), key=lambda result: result.history.accuracy[-1])
    return (
        "<p>Before training, the oldest term of ∂<var>L</var>/∂<var>W<sub>s</sub></var> was this "
        f"part of the nearest one: {shares}.</p>\n"
        "<p>The start matters as much: of the tanh networks of section 1, the one from "
        f"&rho; = {best.network.radius} reached {best.history.accuracy[-1]:.1%}; before training "
        f"its gradient at the first state was {number(best.before.gradient.relative[-1])} of that "
        "at the last. Longer sequences, and what that start is worth there: <code>bptt demo --task "
        "adding</code>.</p>"
    )


def _monitor_share(results: Results) -> str:
    shares = [r.monitor.overhead for r in results.networks if math.isfinite(r.monitor.overhead)]
    return f", in at most {max(shares):.1%} of the time of a training" if shares else ""


def _stopped(results: Results) -> str:
    if not results.interrupted:
        return ""
    partly = {label(r): len(r.history.loss) for r in results.networks if not r.finished}
    finished = len(results.networks) - len(partly)
    return stopped(finished, len(results.settings.networks()), partly)
