"""The onset of chaos in random tanh networks, and their Lyapunov spectra: ``python docs/chaos.py``.

Networks without input, S_t = tanh(W S_{t-1}) with W[i, j] ~ N(0, g^2 / H), against mean-field
theory. With Delta = g^2 <tanh^2> the variance of W S_{t-1} and d = 1 - tanh^2 its slopes,

    the largest exponent                 lambda_1 = 1/2 log(g^2 <d^2>)
    the one at the fraction c = i / H    lambda(c) = 1/2 log(g^2 c / delta),
                                         <delta d^2 / (1 + delta d^2)> = c

where <.> is the mean over W S ~ N(0, Delta). See docs/jacobians.md. Some minutes on two cores;
writes docs/images/chaos.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bptt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The mean over a standard normal: f(NODES) @ WEIGHTS.
NODES = np.linspace(-8, 8, 1001)
WEIGHTS = np.exp(-(NODES**2) / 2)
WEIGHTS /= WEIGHTS.sum()


# --- Networks ----------------------------------------------------------------------------------


def exponents(
    hidden: int, gain: float, steps: int, seed: int, k: int | None = None
) -> bptt.LyapunovExponents:
    """Of one network, with a fifth of the steps left out while it finds its attractor."""
    rng = np.random.default_rng(seed)
    w_hh = gain / np.sqrt(hidden) * rng.standard_normal((hidden, hidden))
    params = bptt.Params(np.zeros((hidden, 1)), w_hh)
    x, state = np.zeros((steps, 1, 1)), rng.standard_normal((1, hidden))
    return bptt.lyapunov_exponents("tanh", params, x, state, k=k, skip=steps // 5)


# --- Mean-field theory -------------------------------------------------------------------------


def slopes(gain: float) -> np.ndarray:
    """d = 1 - tanh^2 at `NODES`, on the attractor."""
    variance = gain**2
    for _ in range(5000):
        variance = gain**2 * WEIGHTS @ np.tanh(np.sqrt(variance) * NODES) ** 2
    return 1 - np.tanh(np.sqrt(variance) * NODES) ** 2


def largest_in_theory(gain: float) -> float:
    """Molgedey, Schuchhardt and Schuster 1992, Phys. Rev. Lett. 69(26), without noise."""
    return float(np.log(gain**2 * WEIGHTS @ slopes(gain) ** 2) / 2)


def spectrum_in_theory(gain: float, fractions: np.ndarray) -> np.ndarray:
    """Of products of matrices d W with W drawn anew at each step."""
    squares = slopes(gain) ** 2
    log_delta = np.linspace(-20, 100, 6001)
    delta = np.exp(log_delta)[:, None]
    share = (delta * squares / (1 + delta * squares)) @ WEIGHTS
    return np.log(gain**2 * fractions) / 2 - np.interp(fractions, share, log_delta) / 2


def dimension(spectrum: np.ndarray) -> float:
    """Kaplan and Yorke's, over H."""
    return float(np.argmax(np.cumsum(spectrum) < 0) / len(spectrum))


# --- Figure ------------------------------------------------------------------------------------


def draw_onset(axes: Axes, less: int) -> None:
    hidden, networks, steps = 1000 // less, 4, 1500 // less
    gains = np.array([0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0])
    found = np.array(
        [[exponents(hidden, g, steps, n, k=1).exponents[0] for n in range(networks)] for g in gains]
    )
    print(f"largest exponent, H = {hidden}, mean of {networks} networks (std) | theory")
    for g, of_networks in zip(gains, found, strict=True):
        mean, std = of_networks.mean(), of_networks.std(ddof=1)
        print(f"  g = {g:<4} {mean:8.4f} ({std:.4f}) | {largest_in_theory(g):8.4f}", flush=True)
    fine = np.linspace(gains[0], gains[-1], 100 // less)
    axes.plot(fine, [largest_in_theory(g) for g in fine], "k-", lw=1, label="mean field")
    axes.errorbar(
        gains, found.mean(axis=1), found.std(axis=1, ddof=1), fmt="o", ms=4, label=f"H = {hidden}"
    )
    axes.axhline(0, color="gray", lw=0.8)
    axes.axvline(1, color="gray", lw=0.8, ls=":")
    axes.set(title="Largest exponent", xlabel="gain g", ylabel="nats per step")
    axes.legend()


def draw_spectra(axes: Axes, less: int) -> None:
    gain, fine = 3.0, np.linspace(0.001, 0.995, 500)
    theory = spectrum_in_theory(gain, fine)
    print(
        f"spectrum, g = {gain}: rms of the difference from theory, dimension / H, entropy rate / H"
    )
    for hidden, steps, marker in ((64, 3000, "^"), (128, 2000, "s"), (512, 500, ".")):
        hidden, steps = hidden // less, steps // less
        found = exponents(hidden, gain, steps, seed=0)
        at = (np.arange(hidden) + 0.5) / hidden
        off = found.exponents - spectrum_in_theory(gain, at)
        print(
            f"  H = {hidden:<4} {np.sqrt(np.mean(off**2)):.3f} {found.dimension / hidden:.3f} "
            f"{found.entropy_rate / hidden:.4f}",
            flush=True,
        )
        few = np.unique(np.linspace(0, hidden - 1, 25).astype(int))
        axes.plot(at[few], found.exponents[few], marker, ms=5, mfc="none", label=f"H = {hidden}")
    mean = np.maximum(theory, 0).mean()
    print(f"  theory         {dimension(theory):.3f} {mean:.4f}")
    axes.plot(fine, theory, "k-", lw=1, label="random matrices")
    axes.axhline(0, color="gray", lw=0.8)
    axes.set(title=f"Spectrum at g = {gain:g}", xlabel="rank of the exponent / H")
    axes.set(ylabel="nats per step")
    axes.legend()


def draw_dimension(axes: Axes, less: int) -> None:
    hidden, steps, networks = 200 // less, 800 // less, 3
    gains = np.array([1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 14.0])
    found = np.array(
        [
            [exponents(hidden, g, steps, n).dimension / hidden for n in range(networks)]
            for g in gains
        ]
    )
    fractions = np.linspace(0.0005, 0.9995, 1000)
    fine = np.geomspace(1.02, gains[-1], 60 // less)
    theory = [dimension(spectrum_in_theory(g, fractions)) for g in fine]
    print(f"dimension / H, H = {hidden}, mean of {networks} networks (std) | theory")
    for g, d in zip(gains, found, strict=True):
        print(
            f"  g = {g:<4} {d.mean():.3f} ({d.std(ddof=1):.3f}) | {np.interp(g, fine, theory):.3f}"
        )
    axes.semilogx(fine, theory, "k-", lw=1, label="random matrices")
    axes.errorbar(
        gains, found.mean(axis=1), found.std(axis=1, ddof=1), fmt="o", ms=4, label=f"H = {hidden}"
    )
    axes.set(title="Dimension of the attractor", xlabel="gain g", ylabel="dimension / H")
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.set_xticks([], minor=True)
    axes.legend()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="does it run? Tiny networks")
    images = Path(__file__).parent / "images"
    parser.add_argument("--out", type=Path, default=images / "chaos.png")
    asked = parser.parse_args()
    less = 20 if asked.quick else 1
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    onset, spectra, dimensions = figure.subplots(1, 3)
    draw_onset(onset, less)
    draw_spectra(spectra, less)
    draw_dimension(dimensions, less)
    figure.savefig(asked.out, dpi=110)


if __name__ == "__main__":
    main()
