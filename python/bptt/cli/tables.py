"""The tables of ``report.html``: one row a network, every number from `Results`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from .distance import ByDistance
from .gates import DirectRoute
from .results import Measured, NetworkResult, Results

__all__ = ["TABLES", "accuracy_of_sums", "html_table", "label", "number", "oldest_over_nearest"]

_Row = TypeVar("_Row")
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


def accuracy_of_sums(checks: Iterable[float]) -> str:
    """What a report says of `LagGradients.check` of all that it measured."""
    finite = [check for check in checks if math.isfinite(check)]
    if not finite:
        return ""
    return (
        "The terms of all lags, added up, are the gradient that BPTT computes in one pass: "
        "‖sum &minus; gradient‖ / ‖gradient‖ is rounding, and was at most "
        f"{number(max(finite))}."
    )


def learning(results: Results) -> str:
    """How well each network learned, and what became of its gradient's reach."""

    def clipped(result: NetworkResult) -> str:
        norms = np.array(result.history.norm)
        return f"{np.mean(norms > results.settings.clip_norm):.0%}" if len(norms) else "&ndash;"

    return _table(
        results.elman,
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
        results.elman,
        {
            f"{_FIRST_OVER_LAST}, measured": lambda r: number(r.before.gradient.relative[-1]),
            f"formula &rho;<sup>{far}</sup>": formula,
        },
    )


def share(results: Results) -> str:
    """The whole gradient, its oldest term, and how many terms make up 95 % of it."""
    return _table(
        results.elman,
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
        results.elman,
        {
            f"oldest term of ∂L<sub>t</sub>/∂W<sub>s</sub>, t = {near}": lambda r: number(
                r.by_loss_step.oldest[0]
            ),
            f"t = {far}": lambda r: number(r.by_loss_step.oldest[-1]),
            f"∂L<sub>t</sub>/∂W<sub>o</sub>, t = {near}": lambda r: number(r.by_loss_step.w_ho[0]),
            f"t = {far} ": lambda r: number(r.by_loss_step.w_ho[-1]),
        },
    )


def gated(results: Results) -> str:
    """The cells of equal size: accuracy, time, and the far end of the gradient over the near."""

    def time(result: NetworkResult) -> str:
        seconds = result.history.median_epoch_seconds
        return f"{1000 * seconds:.1f} ms" if result.history.epoch_seconds else "&ndash;"

    return _table(
        results.compared,
        {
            "units": lambda r: str(r.network.hidden_size),
            "parameters": lambda r: str(r.parameters),
            "held-out accuracy": lambda r: f"{r.history.accuracy[-1]:.1%}",
            "time per epoch": time,
            f"{_FIRST_OVER_LAST} before": lambda r: number(r.before.gradient.relative[-1]),
            "after": lambda r: number(r.after.gradient.relative[-1]),
            "oldest / nearest term of ∂L/∂W<sub>s</sub> before": lambda r: number(
                oldest_over_nearest(r.before.gradient)
            ),
            "after ": lambda r: number(oldest_over_nearest(r.after.gradient)),
        },
    )


def route(results: Results) -> str:
    """What the gate on the direct route lets through."""
    gates = {"lstm": "f<sub>t</sub>", "gru": "z<sub>t</sub>"}
    rows = [result for result in results.compared if result.network.gated]
    far = results.data["steps"] - 1
    return _table(
        rows,
        {
            "gate": lambda r: gates[r.network.cell],
            "mean before": lambda r: number(_route(r.before).gate),
            f"product over {far} steps": lambda r: number(_route(r.before).product),
            "mean after": lambda r: number(_route(r.after).gate),
            f"product over {far} steps ": lambda r: number(_route(r.after).product),
        },
    )


TABLES: dict[str, Callable[[Results], str]] = {
    "learning": learning,
    "regimes": regimes,
    "share": share,
    "readout": readout,
    "gated": gated,
    "route": route,
}


def _table(networks: list[NetworkResult], columns: _Columns) -> str:
    """An HTML table; headers are HTML, and so is what the columns return."""
    return html_table([label(r) for r in networks], networks, columns)


def html_table(
    names: Sequence[str], rows: Sequence[_Row], columns: dict[str, Callable[[_Row], str]]
) -> str:
    """One row for each name; headers are HTML, and so is what the columns return."""
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("network", *columns))
    lines = [
        [name, *(column(row) for column in columns.values())]
        for name, row in zip(names, rows, strict=True)
    ]
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _route(measured: Measured) -> DirectRoute:
    assert measured.route is not None
    return measured.route


def _oldest(gradient: ByDistance) -> float:
    """Norm of the term of step 2; that of step 1 multiplies S_0 = 0."""
    return float(gradient.w_hh[-2])


def oldest_over_nearest(gradient: ByDistance) -> float:
    """Norm of the term of step 2 over that of the last step."""
    return _oldest(gradient) / float(gradient.w_hh[0])


def _horizon(gradient: ByDistance, error: float = 0.05) -> int:
    """Smallest distance at which the gradient may be cut with at most this relative error."""
    return int(np.argmax(gradient.w_hh_error <= error))
