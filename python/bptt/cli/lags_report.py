"""The report of ``bptt lags``: its figures, its table, its text."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import bptt
from bptt import files

from . import panels
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
    "cut. A curve ends before the last lag, whose error of 0 has no place on a logarithmic axis; "
    "what is below 0.0001 is not shown. Right: share of the gradient that came over up to a lag. "
    "The rings and the vertical dotted lines are the horizons.",
    "routes": "Size of the gradient at the states by lag: of the whole, and along each route. The "
    "recurrent route begins at lag 1, since at lag 0 nothing has met a recurrent weight.",
    "lyapunov": "Lyapunov exponents from the largest to the smallest, by their rank over their "
    "number (H, or 2 H for an LSTM); bars are standard errors.",
    "training": "The horizon in the course of training. Each mark is a measurement; a line ends at "
    "the last one, and has a gap where no lag was far enough.",
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
        "<p>The rates at which small changes of the state grow or fade along these sequences, one "
        "for each direction of the state: a change in that direction is multiplied by "
        "exp(exponent) at each step, in the mean. The gradient on its way back fades, in the long "
        "run, at the rate of the largest exponent. If all are below zero, the network forgets its "
        "state; if one is above zero, it is chaotic. Of an LSTM's state (h, c) often half of the "
        "exponents are far below the others, since h is computed anew from c at each step. The "
        "sequences are finite and their states start from zero, so these are rates over that "
        "time, not limits.</p>",
    ),
    "training": (
        "In training",
        "<p><code>bptt.LagMonitor</code> measured the horizon while the network was trained, on "
        f"{MONITORED} sequences of a minibatch, whose gradient scatters around that of all. "
        "It measures as often as 3&nbsp;% of the time of training allow, and may take one second "
        "more at the start, so that a short training has a curve too. What it took is in the table "
        "above.</p>",
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
        files.write(folder / name, png)
        fields[f"{key}_figure"] = _section(key, figure(png, _CAPTIONS[key]))
    files.write(folder / "report.html", page("lags_report.html", fields))


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
        columns["share of its time for the monitor"] = lambda n: (
            f"{n.training.overhead:.1%}" if n.training else "-"
        )
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
