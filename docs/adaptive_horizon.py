"""Trains a network by full BPTT, and with `AdaptiveHorizon`: the same loss, in less time.

    python docs/adaptive_horizon.py           # writes docs/images/adaptive-horizon.png

The task is the Mackey-Glass series (Mackey and Glass 1977, Science 197), a chaotic one with a delay
of 17 steps: from 400 noisy values, the value 20 steps ahead. The loss is read at the last step.
What it needs lies tens of steps back, so most of the way that full BPTT goes is for nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bptt
import numpy as np
from matplotlib.figure import Figure

STEPS, BATCH, HIDDEN, AHEAD = 400, 32, 64, 20
LAYER = ("w_ih", "w_hh", "b_ih", "b_hh")
TOLERANCE = 0.1
LOSS = {"loss": "squared_error", "at": "last"}


class MackeyGlass:
    """dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x, in steps of 1, with noise of 0.05."""

    def __init__(self, length: int = 20_000, delay: int = 17) -> None:
        rng = np.random.default_rng(0)
        x = 1.2 + 0.01 * rng.standard_normal(length + 1000)
        for t in range(delay, len(x) - 1):
            late = x[t - delay]
            x[t + 1] = x[t] + 0.2 * late / (1 + late**10) - 0.1 * x[t]
        self.series = (x[1000:] - 0.9).astype("float32")
        self.noisy = self.series + 0.05 * rng.standard_normal(length).astype("float32")
        self.tests = length * 4 // 5  # where they begin

    def draw(self, rng: np.random.Generator, size: int, *, test: bool = False) -> tuple:
        """x (T, B, 1) and the targets (T, B, 1), `AHEAD` steps after each of x."""
        low, high = (self.tests, len(self.series)) if test else (0, self.tests)
        start = rng.integers(low, high - STEPS - AHEAD, size)
        at = start + np.arange(STEPS)[:, None]
        return self.noisy[at][..., None], self.series[at + AHEAD][..., None]


class Adam:
    """Kingma and Ba 2015 (arXiv 1412.6980)."""

    def __init__(self, params: bptt.Params, rate: float = 3e-3) -> None:
        self.params, self.rate, self.step = params, rate, 0
        self.mean = {name: np.zeros_like(w) for name, w in params.arrays().items()}
        self.square = {name: np.zeros_like(w) for name, w in params.arrays().items()}

    def update(self, grads: bptt.Grads) -> None:
        self.step += 1
        rate = self.rate * (1 - 0.999**self.step) ** 0.5 / (1 - 0.9**self.step)
        for name, w in self.params.arrays().items():
            g, m, v = getattr(grads, name), self.mean[name], self.square[name]
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            w -= np.float32(rate) * m / (np.sqrt(v) + np.float32(1e-8))


class Stopwatch:
    """Seconds of one training alone, without its tests and checks, and without other trainings."""

    def __init__(self) -> None:
        self._stopped, self._started = 0.0, None

    def __call__(self) -> float:
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._stopped + running

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._stopped, self._started = self(), None


@dataclass
class Run:
    """One training, and its course."""

    cell: str
    seed: int
    watch: Stopwatch
    horizon: bptt.AdaptiveHorizon | None = None
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)
    horizons: list[int] = field(default_factory=list)
    biases: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.params = bptt.init_params(
            self.cell, input_size=1, hidden_size=HIDDEN, output_size=1, rng=self.seed
        )
        self.grads = bptt.Grads.zeros(self.params, STEPS, BATCH, cell=self.cell)
        self.optimizer = Adam(self.params)

    def update(self, x: np.ndarray, y: np.ndarray, *, check: bool) -> None:
        given = (self.cell, self.params, x, y)
        K = None
        with self.watch:
            if self.horizon is not None:
                K = self.horizon.update(*given, **LOSS)
            bptt.value_and_grad(*given, out=self.grads, truncate=K, **LOSS)
        if check and K is not None:
            _, full = bptt.value_and_grad(*given, **LOSS)
            self.checked.append(self.optimizer.step)
            self.horizons.append(K)
            self.biases.append(relative_bias(self.grads, full))
        with self.watch:
            self.optimizer.update(self.grads)

    def test(self, x: np.ndarray, y: np.ndarray) -> None:
        self.seconds.append(self.watch())
        self.losses.append(bptt.value_and_grad(self.cell, self.params, x, y, **LOSS)[0])

    def time_to(self, loss: float) -> float:
        reached = np.flatnonzero(np.array(self.losses) <= loss)
        return self.seconds[reached[0]] if reached.size else np.inf


def relative_bias(cut: bptt.Grads, full: bptt.Grads) -> float:
    """||g_K - g|| / ||g||, of all parameters of the layer as one vector."""
    pairs = [(getattr(cut, name).ravel(), getattr(full, name).ravel()) for name in LAYER]
    return float(
        np.linalg.norm(np.concatenate([a - b for a, b in pairs]))
        / np.linalg.norm(np.concatenate([b for _, b in pairs]))
    )


def train(cell: str, data: MackeyGlass, seed: int, updates: int, **options: Any) -> tuple[Run, Run]:
    """Both ways in alternation, on the same batches: what slows the machine slows both."""
    watch = Stopwatch()
    horizon = bptt.AdaptiveHorizon(TOLERANCE, max_lag=128, clock=watch, **options)
    runs = Run(cell, seed, Stopwatch()), Run(cell, seed, watch, horizon)
    x_test, y_test = data.draw(np.random.default_rng(1000), 256, test=True)
    for update, (x, y) in zip(range(updates), batches(data, seed), strict=False):
        for run in runs:
            run.update(x, y[-1], check=update % 4 == 0)
            if update % 25 == 24:
                run.test(x_test, y_test[-1])
    return runs


def batches(data: MackeyGlass, seed: int) -> Iterator[tuple]:
    rng = np.random.default_rng(100 + seed)
    while True:
        yield data.draw(rng, BATCH)


def report(cell: str, full: list[Run], adaptive: list[Run], loss: float) -> str:
    """A row of the table in docs/truncation.md."""
    biases = np.concatenate([run.biases for run in adaptive])
    columns = [cell]
    for runs in (full, adaptive):
        last = np.median([np.mean(run.losses[-8:]) for run in runs])
        columns += [f"{last:.2g}", f"{np.median([run.time_to(loss) for run in runs]):.2f} s"]
        columns += [f"{np.median([run.seconds[-1] for run in runs]):.2f} s"]
    columns += [f"{np.median(np.concatenate([run.horizons for run in adaptive])):.0f}"]
    columns += [f"{np.median(biases):.2g}"]
    columns += [f"{100 * np.mean(biases <= TOLERANCE):.1f} % of {biases.size}"]
    return "| " + " | ".join(columns) + " |"


def plot(cell: str, full: Run, adaptive: Run, path: Path) -> None:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss, horizon, bias = figure.subplots(1, 3)
    loss.semilogy(full.seconds, full.losses, label="full BPTT")
    loss.semilogy(adaptive.seconds, adaptive.losses, label=f"AdaptiveHorizon({TOLERANCE})")
    loss.set(xlabel="seconds of training", ylabel="test loss", title=f"{cell}, T = {STEPS}")
    loss.legend()
    horizon.plot(adaptive.checked, adaptive.horizons)
    horizon.set(xlabel="update", ylabel="K", title="lags that are kept")
    bias.semilogy(adaptive.checked, adaptive.biases, ".")
    bias.axhline(TOLERANCE, color="k", linestyle="--")
    bias.set(xlabel="update", title="relative bias, and the tolerance")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--loss", type=float, default=1e-3, help="the test loss to be reached")
    parser.add_argument("--margin", type=float, default=3)
    parser.add_argument("--memory", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    images = Path(__file__).parent / "images"
    parser.add_argument("--out", type=Path, default=images / "adaptive-horizon.png")
    asked = parser.parse_args()
    bptt.set_num_threads(asked.threads)
    data = MackeyGlass()
    for cell in ("tanh", "gru"):
        trained = [
            train(cell, data, seed, asked.updates, margin=asked.margin, memory=asked.memory)
            for seed in range(asked.seeds)
        ]
        full, adaptive = ([runs[n] for runs in trained] for n in range(2))
        print(report(cell, full, adaptive, asked.loss), flush=True)
    plot(cell, full[0], adaptive[0], asked.out)


if __name__ == "__main__":
    main()
