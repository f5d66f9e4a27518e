"""The report of the demo on the adding problem: its figures, its table, its text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import bptt
from bptt import files

from . import panels
from .adding import BASELINE
from .adding_results import NetworkResult, Results
from .page import figure, page, stopped
from .tables import accuracy_of_sums, html_table, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "write_report"]

_CAPTIONS = {
    "adding": "Mean squared error on held-out sequences in the course of training, for each "
    "length T of the sequences. Dotted: the error of always answering 1.",
    "adding-distance": "Size of the gradient at the state of step k relative to that at the last "
    "step, by the distance between both; dotted before training, solid after it.",
}


def write_report(results: Results, folder: Path) -> None:
    """Draw the figures and write the report, from nothing but `results`."""
    fields = {**_facts(results), "table": _table(results)}
    for name, draw in FIGURES.items():
        key = Path(name).stem
        field = key.replace("-", "_") + "_figure"
        fields[field] = ""
        if results.networks:
            png = panels.to_png(partial(draw, results))
            files.write(folder / name, png)
            fields[field] = figure(png, _CAPTIONS[key])
    files.write(folder / "report.html", page("adding_report.html", fields))


def learning(results: Results) -> Figure:
    """The held-out error in the course of training, one panel for each T."""
    sheet, axes = panels.grid(1, len(results.lengths), height=3.9, sharey="all")
    for axis, steps in zip(axes[0], results.lengths, strict=True):
        for result in results.of_length(steps):
            course = result.course
            axis.semilogy(
                course.evaluated, course.mse, color=panels.cell_colour(result.network.cell)
            )
        panels.reference_line(axis, BASELINE, "always 1")
        axis.set(title=f"T = {steps}", xlabel="training step")
        axis.set_xlim(0, results.settings.training_steps)
    axes[0, 0].set_ylabel("held-out mean squared error")
    panels.cell_legend(sheet, _parameters(results))
    return sheet


def distance(results: Results) -> Figure:
    """||dL/dS_k|| / ||dL/dS_T|| by distance, one panel for each T."""
    sheet, axes = panels.grid(1, len(results.lengths), height=3.9, sharey="all", sharex=False)
    for axis, steps in zip(axes[0], results.lengths, strict=True):
        for result in results.of_length(steps):
            colour = panels.cell_colour(result.network.cell)
            axis.semilogy(result.before.relative, color=colour, **panels.BEFORE)
            axis.semilogy(result.after.relative, color=colour)
        axis.set_title(f"T = {steps}")
        panels.distance_axis(axis, steps, every=steps // 5)
        axis.set_xlabel("distance $T-k$  (steps)")
    axes[0, 0].set_ylabel(r"$\|\partial L/\partial S_k\|$ / $\|\partial L/\partial S_T\|$")
    panels.cell_legend(sheet, _parameters(results), before_and_after=True)
    return sheet


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "figures/adding.png": learning,
    "figures/adding-distance.png": distance,
}


def _parameters(results: Results) -> dict[str, int]:
    """Of each cell."""
    return {r.network.cell: r.parameters for r in results.networks}


def _table(results: Results) -> str:
    """How well each network learned, and the far end of its gradient over the near."""

    def over_baseline(result: NetworkResult) -> str:
        baseline = results.answering_one[result.network.steps]
        return f"{result.course.mse[-1] / baseline:.1%}"

    first_over_last = "‖∂L/∂S<sub>1</sub>‖ / ‖∂L/∂S<sub>T</sub>‖"
    return html_table(
        [f"T = {r.network.steps}, {r.network.cell}" for r in results.networks],
        results.networks,
        {
            "units": lambda r: str(r.network.hidden_size),
            "parameters": lambda r: str(r.parameters),
            "mean squared error": lambda r: number(r.course.mse[-1]),
            "of that of always 1": over_baseline,
            f"{first_over_last} before": lambda r: number(r.before.relative[-1]),
            "after": lambda r: number(r.after.relative[-1]),
            "seconds": lambda r: f"{r.seconds:.1f}",
        },
    )


def _facts(results: Results) -> dict[str, str]:
    """Numbers and words that the text mentions."""
    settings = results.settings
    checks = [m.check for r in results.networks for m in (r.before, r.after)]
    facts = {
        "stopped": _stopped(results),
        "batch_size": settings.batch_size,
        "training_steps": settings.training_steps,
        "learning_rate": settings.learning_rate,
        "clip_norm": f"{settings.clip_norm:g}",
        "held_out": settings.held_out,
        "radius": f"{settings.radius:g}",
        "baseline": f"{BASELINE:.3f}",
        "seed": settings.seed,
        "backend": results.backend,
        "version": bptt.__version__,
        "check": accuracy_of_sums(checks),
    }
    return {name: str(value) for name, value in facts.items()}


def _stopped(results: Results) -> str:
    if not results.interrupted:
        return ""
    partly = {
        f"{r.network.cell}, T = {r.network.steps}": len(r.course.loss)
        for r in results.networks
        if not r.finished
    }
    finished = len(results.networks) - len(partly)
    return stopped(finished, len(results.settings.networks()), partly)
