"""The tables of ``report.html``: one row a network, every number from `Results`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .distance import ByDistance
from .results import NetworkResult, Results

__all__ = ["TABLES", "label", "number"]

_Columns = dict[str, Callable[[NetworkResult], str]]

_FIRST_OVER_LAST = "‖∂L/∂S<sub>1</sub>‖ / ‖∂L/∂S<sub>t</sub>‖"


def label(result: NetworkResult) -> str:
    """How text and tables call a network, as HTML."""
    return f"{result.network.cell}, &rho; = {result.network.radius}"


def number(value: float) -> str:
    """`value` to two or three digits, as HTML; powers of ten where it is far from one."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}·10<sup>{int(exponent)}</sup>".replace("-", "&minus;")


def learning(results: Results) -> str:
    """How well each network learned, and what became of its gradient's reach."""

    def clipped(result: NetworkResult) -> str:
        norms = np.array(result.history.norm)
        return f"{np.mean(norms > results.settings.clip_norm):.0%}" if len(norms) else "&ndash;"

    return _table(
        results,
        {
            "held-out accuracy": lambda r: f"{r.history.accuracy[-1]:.1%}",
            "&rho; after training": lambda r: f"{r.after.radius:.2f}",
            f"{_FIRST_OVER_LAST} before": lambda r: number(r.history.far_over_near[0]),
            "after": lambda r: number(r.history.far_over_near[-1]),
            "steps that were clipped": clipped,
        },
    )


def regimes(results: Results) -> str:
    """Measured against the formula, at the largest distance."""
    far = results.data["steps"] - 1

    def formula(result: NetworkResult) -> str:
        return number(result.network.radius**far) if result.network.cell == "linear" else "&ndash;"

    return _table(
        results,
        {
            f"{_FIRST_OVER_LAST}, measured": lambda r: number(r.before.gradient.relative[-1]),
            f"formula &rho;<sup>{far}</sup>": formula,
        },
    )


def share(results: Results) -> str:
    """The whole gradient, its oldest term, and how many terms make up 95 % of it."""
    return _table(
        results,
        {
            "before: ‖∂L/∂W<sub>s</sub>‖": lambda r: number(r.before.gradient.w_hh_whole),
            "its oldest term": lambda r: number(_oldest(r.before.gradient)),
            "distance for an error of 5 %": lambda r: str(_horizon(r.before.gradient)),
            "after: ‖∂L/∂W<sub>s</sub>‖": lambda r: number(r.after.gradient.w_hh_whole),
            "its oldest term ": lambda r: number(_oldest(r.after.gradient)),
            "distance for an error of 5 % ": lambda r: str(_horizon(r.after.gradient)),
        },
    )


def readout(results: Results) -> str:
    """Both gradients for the nearest and the farthest loss that was tried."""
    near, far = results.settings.loss_steps[0], results.settings.loss_steps[-1]
    return _table(
        results,
        {
            f"oldest term of ∂L<sub>t</sub>/∂W<sub>s</sub>, t = {near}": lambda r: number(
                r.by_loss_step.oldest[0]
            ),
            f"t = {far}": lambda r: number(r.by_loss_step.oldest[-1]),
            f"∂L<sub>t</sub>/∂W<sub>o</sub>, t = {near}": lambda r: number(r.by_loss_step.w_ho[0]),
            f"t = {far} ": lambda r: number(r.by_loss_step.w_ho[-1]),
        },
    )


TABLES: dict[str, Callable[[Results], str]] = {
    "learning": learning,
    "regimes": regimes,
    "share": share,
    "readout": readout,
}


def _table(results: Results, columns: _Columns) -> str:
    """An HTML table; headers are HTML, and so is what the columns return."""
    if not results.networks:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("network", *columns))
    rows = [[label(r), *(column(r) for column in columns.values())] for r in results.networks]
    cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _oldest(gradient: ByDistance) -> float:
    """Norm of the term of step 2; that of step 1 multiplies S_0 = 0."""
    return float(gradient.w_hh[-2])


def _horizon(gradient: ByDistance, error: float = 0.05) -> int:
    """Smallest distance at which the gradient may be cut with at most this relative error."""
    return int(np.argmax(gradient.w_hh_error <= error))
