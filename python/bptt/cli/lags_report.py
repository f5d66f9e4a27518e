"""The report of ``bptt lags``: its figures, its table, its text."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import bptt

from . import panels
from .folder import write_file
from .lags_figures import FIGURES, TOLERANCE, figures_of
from .lags_measured import Measured, Results
from .page import figure, page
from .tables import accuracy_of_sums, html_table, number
from .training import MONITORED

__all__ = ["write_report"]

_CAPTIONS = {
    "heat": "Size of the gradient at the state of step t - lag, of the loss at step t; one scale "
    "for all, white where there is no gradient or no such step.",
    "error": "Left: error of the gradient of all parameters if what came over more than a lag is "
    "cut. Right: share of the gradient that came over up to a lag. The dots and dotted lines are "
    "the horizons.",
    "routes": "Size of the gradient at the states by lag: of the whole, and along each route.",
    "lyapunov": "Lyapunov exponents in their order; bars are standard errors.",
    "training": "The horizon in the course of training; a gap where no lag was far enough.",
}
# What a section says, above its figure; it is left out where there is nothing to show.
_SECTIONS = {
    "routes": (
        "Routes",
        "<p>A gated cell passes its memory on by a product of gates alone (f<sub>t</sub> of an "
        "LSTM, z<sub>t</sub> of a GRU): the direct route. Everything that meets "
        "<var>W<sub>s</sub></var> at least once on its way is the recurrent route. The terms of "
        "both add up to those of the whole; their norms need not, since they may point against "
        "each other.</p>",
    ),
    "lyapunov": (
        "Lyapunov exponents",
        "<p>The rates at which small changes of the state grow or fade along these sequences: a "
        "change in the i-th of N directions is multiplied by exp(exponent) at each step, in the "
        "mean. The largest is the rate that the slowest part of the gradient tends to. All below "
        "zero: the network forgets; above zero: it is chaotic. The sequences are finite, and the "
        "states are on their way from zero: these are rates over that time, not limits.</p>",
    ),
    "training": (
        "In training",
        "<p><code>bptt.LagMonitor</code> measured the horizon while the network was trained, on "
        f"{MONITORED} sequences of a minibatch, whose gradient scatters around that of all. "
        "It measures as often as 3&nbsp;% of the time of training allow; what it took is in the "
        "table, more than that only where a training is too short to pay for its first "
        "measurement, or a measurement was held up.</p>",
    ),
}

_OTHER_LOSS = (
    "<p>The loss of these networks is read at one step. The heat map asks what its gradient would "
    "be if it were read, with the same target, at any step t: its last column is the gradient of a "
    "loss at the last step.</p>"
)


def write_report(results: Results, folder: Path) -> None:
    """Draw the figures and write the report, from nothing but `results`."""
    fields = {**_facts(results), "table": _table(results)}
    fields |= {f"{Path(name).stem}_figure": "" for name in FIGURES}
    for name, draw in figures_of(results).items():
        key = Path(name).stem
        png = panels.to_png(partial(draw, results))
        write_file(folder / name, png)
        fields[f"{key}_figure"] = _section(key, figure(png, _CAPTIONS[key]))
    write_file(folder / "report.html", page("lags_report.html", fields))


def _section(key: str, image: str) -> str:
    if key not in _SECTIONS:
        return image
    title, text = _SECTIONS[key]
    return f"<h2>{title}</h2>\n{text}\n{image}"


def _table(results: Results) -> str:
    def horizon(network: Measured) -> str:
        found = network.lags.horizon(TOLERANCE)
        return "beyond all" if found is None else str(found)

    def far_over_near(network: Measured) -> str:
        norm = network.lags.norm["state"]
        return number(norm[-1] / norm[0]) if norm.size and norm[0] > 0 else "-"

    def half_life(network: Measured) -> str:
        found = network.lags.half_life()
        return "does not fade" if found == math.inf else number(found)

    columns = {
        "units": lambda n: str(n.hidden_size),
        "parameters": lambda n: str(n.parameters),
        "loss": lambda n: number(n.lags.loss),
        "horizon (5&nbsp;%)": horizon,
        "half-life of ‖δ‖": half_life,
        "‖δ‖, last lag / first": far_over_near,
        "largest exponent": lambda n: number(n.lyapunov.exponents[0]) if n.lyapunov else "-",
    }
    if results.trained:
        columns["training steps"] = lambda n: str(n.training.steps) if n.training else "-"
        columns["of it the monitor"] = lambda n: f"{n.training.overhead:.1%}" if n.training else "-"
    return html_table([network.cell for network in results.networks], results.networks, columns)


def _facts(results: Results) -> dict[str, str]:
    """Numbers and words that the text mentions."""
    options, found = results.options, results.networks
    at = {"last": "at the last step", "all": "at every step"}.get(
        str(results.at), f"at step {results.at} (from zero)"
    )
    sample = "" if options.sample is None else f", on {options.sample} of them drawn at random"
    overflown = [n for n in found if n.lags.overflow_lag is not None]
    facts = {
        "stopped": _stopped(results),
        "about": results.about,
        "trained": "after training" if results.trained else "as they are",
        "loss": results.loss.replace("_", " "),
        "at": at,
        "sample": sample,
        "other_loss": "" if results.at == "all" else _OTHER_LOSS,
        "overflow": "".join(
            f"<p>The gradient of the {n.cell} network overflows at lag {n.lags.overflow_lag}: its "
            "curves end there.</p>"
            for n in overflown
        ),
        "check": accuracy_of_sums(gradient.check for n in found for gradient in n.gradients),
        "seed": options.seed,
        "backend": results.backend,
        "version": bptt.__version__,
    }
    return {name: str(value) for name, value in facts.items()}


def _stopped(results: Results) -> str:
    if not results.interrupted:
        return ""
    finished = sum(network.finished for network in results.networks)
    partly = [network.cell for network in results.networks if not network.finished]
    after = f" The {partly[0]} network shows what was done of it." if partly else ""
    return (
        '<p class="stopped"><strong>This run was interrupted.</strong> '
        f"{finished} of {results.wanted} networks were measured to the end.{after}</p>"
    )
