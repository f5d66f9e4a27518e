"""The report of the demo on the adding problem: its figures and facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..network import Network
from ..results import Results
from ..tasks.adding import BASELINE, Adding
from . import panels
from .page import Report
from .panels import Row, curves, line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_learning(networks: list[Network], task: Adding) -> Figure:
    """The held-out error in the course of training, one panel for each T."""
    error = line(
        lambda n: n.course.held_out[task.score_name], panels.by_cell, x=lambda n: n.course.evaluated
    )

    def steps(axis: Axes, members: list[Network]) -> None:
        axis.set_xlim(0, task.training_steps)
        axis.set_xlabel("training step")

    row = Row("T = {}", "held-out mean squared error", [error], (BASELINE, "always 1"))
    return curves(networks, "steps", [row], steps, height=3.9, legend=panels.cells(networks))


def draw_distance(networks: list[Network], task: Adding) -> Figure:
    """||dL/dS_k|| / ||dL/dS_T|| by distance, one panel for each T."""

    def distances(axis: Axes, members: list[Network]) -> None:
        steps = members[0].steps
        panels.distance_axis(axis, steps, "distance $T-k$  (steps)", every=steps // 5)

    label = r"$\|\partial L/\partial S_k\|$ / $\|\partial L/\partial S_T\|$"
    row, legend = Row("T = {}", label, panels.RELATIVE), panels.cells(networks)
    legend += panels.BEFORE_AND_AFTER
    return curves(networks, "steps", [row], distances, height=3.9, legend=legend)


def facts(results: Results) -> dict[str, Any]:
    return {"baseline": f"{BASELINE:.3f}"}


def row(network: Network, task: Adding) -> dict[str, str]:
    """The error as a part of that of the answer 1 to the same sequences."""
    error = network.course.last[task.score_name]
    return {"of_one": f"{error / task.error_of_one(network.steps):.1%}"}


ADDING = Report(
    command="demo",
    title="The adding problem",
    text="adding.html",
    groups={"all": list},
    figures={"adding": ("all", draw_learning), "adding-distance": ("all", draw_distance)},
    facts=facts,
    row=row,
)
