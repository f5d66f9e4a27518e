"""The report of the demo on the adding problem: its figures and facts."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..network import Network, grouped
from ..tasks.adding import BASELINE, Adding
from . import panels
from .page import Report
from .panels import Panel, line


def draw_learning(networks: list[Network], task: Adding) -> Figure:
    """The held-out error in the course of training, one panel for each T."""
    error = line(
        lambda n: n.course.held_out[task.score_name], panels.by_cell, x=lambda n: n.course.evaluated
    )
    look = {"xlim": (0, task.training_steps), "xlabel": "training step"}
    look["ylabel"] = "held-out mean squared error"
    panel = Panel("T = {}", [error], look, (BASELINE, "always 1"))
    return panels.figure(grouped(networks, "steps"), [panel], 3.9, panels.cells(networks))


def draw_distance(networks: list[Network], task: Adding) -> Figure:
    """||dL/dS_k|| / ||dL/dS_T|| by distance, one panel for each T."""
    draws = [*panels.RELATIVE, panels.distances("distance $T-k$  (steps)", parts=5)]
    label = r"$\|\partial L/\partial S_k\|$ / $\|\partial L/\partial S_T\|$"
    panel = Panel("T = {}", draws, {"ylabel": label})
    legend = panels.cells(networks) + panels.BEFORE_AND_AFTER
    return panels.figure(grouped(networks, "steps"), [panel], 3.9, legend)


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
    row=row,
)
