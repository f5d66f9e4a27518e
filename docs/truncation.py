"""Measures what `truncate` and `detach_every` leave out of the gradient, and the time they take.

    python docs/truncation.py                 # writes docs/images/truncation.png, prints the tables

The network is the tanh or GRU layer of adaptive_horizon.py, trained there for a while.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bptt
import numpy as np
from adaptive_horizon import BATCH, HIDDEN, STEPS, Adam, MackeyGlass, batches, relative_bias
from bptt.ticks import label_logarithmic
from matplotlib.figure import Figure

REACHES = (1, 2, 5, 10, 20, 50, 100, 200)  # steps that a loss reaches at most: divisors of T
# The wide one is drawn beneath the narrow one, so that both are seen where they coincide.
LINES = (("full", ":", 1.5), ("detach_every", "--", 3.5), ("truncate", "-", 1.3))


def trained(cell: str, data: MackeyGlass, updates: int) -> bptt.Params:
    params = bptt.init_params(cell, input_size=1, hidden_size=HIDDEN, output_size=1, rng=0)
    optimizer = Adam(params)
    for _, (x, y) in zip(range(updates), batches(data, 0), strict=False):
        _, grads = bptt.value_and_grad(cell, params, x, y, loss="squared_error", at="all")
        optimizer.update(grads)
    return params


def options(reach: int) -> dict[str, dict[str, int]]:
    """Both ways to let a loss reach so many steps, its own among them."""
    return {"truncate": {"truncate": reach - 1}, "detach_every": {"detach_every": reach}}


def milliseconds(call: Callable[[], Any], rounds: int) -> float:
    """The least time of some calls; what others do at the same time is left out."""
    call()
    best = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best


def measure(cell: str, data: MackeyGlass, updates: int, rounds: int) -> list[dict[str, float]]:
    """For each reach: the bias with a loss at every step, and times with one there and at the
    last."""
    params = trained(cell, data, updates)
    x, y = data.draw(np.random.default_rng(2000), BATCH, test=True)
    out = bptt.Grads.zeros(params, STEPS, BATCH, cell=cell)

    def call(at: str, **cut: int) -> Callable[[], bptt.Grads]:
        target = y if at == "all" else y[-1]
        return lambda: bptt.value_and_grad(
            cell, params, x, target, loss="squared_error", at=at, out=out, **cut
        )[1]

    _, full = bptt.value_and_grad(cell, params, x, y, loss="squared_error", at="all")
    times = {f"full, {at}": milliseconds(call(at), rounds) for at in ("last", "all")}
    rows = []
    for reach in REACHES:
        row: dict[str, float] = {"reach": reach}
        for name, cut in options(reach).items():
            row[f"{name}, bias"] = relative_bias(call("all", **cut)(), full)
        row |= times
        for name, cut in options(reach).items():
            row |= {
                f"{name}, {at}": milliseconds(call(at, **cut), rounds) for at in ("last", "all")
            }
        rows.append(row)
    return rows


def table(rows: list[dict[str, float]]) -> str:
    lines = [f"| {' | '.join(rows[0])} |", "| --- " * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(f"{v:.3g}" for v in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def plot(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    figure = Figure(figsize=(11, 3.7), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("bias", "relative bias, loss at every step"),
        ("all", "milliseconds, loss at every step"),
        ("last", "milliseconds, loss at the last step"),
    )
    for axis, (what, title) in zip(axes, panels, strict=True):
        for n, (cell, rows) in enumerate(found.items()):
            reach = [row["reach"] for row in rows]
            for name, line, width in LINES:
                if f"{name}, {what}" in rows[0]:
                    values = [row[f"{name}, {what}"] for row in rows]
                    style = {"color": f"C{n}", "lw": width, "label": f"{cell}, {name}"}
                    axis.loglog(reach, values, line, **style)
        axis.set(xlabel="steps that a loss reaches, at most", title=title)
        label_logarithmic(axis.xaxis)
        label_logarithmic(axis.yaxis)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=20, help="calls of which the fastest counts")
    parser.add_argument("--threads", type=int, default=1)
    images = Path(__file__).parent / "images"
    parser.add_argument("--out", type=Path, default=images / "truncation.png")
    asked = parser.parse_args()
    bptt.set_num_threads(asked.threads)
    data = MackeyGlass()
    found = {}
    for cell in ("tanh", "gru"):
        found[cell] = measure(cell, data, asked.updates, asked.rounds)
        print(f"{cell}\n\n{table(found[cell])}\n", flush=True)
    plot(found, asked.out)


if __name__ == "__main__":
    main()
