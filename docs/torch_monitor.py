"""Trains PyTorch modules and draws how far back their gradient reaches while they learn.

    python docs/torch_monitor.py              # writes docs/images/torch-monitor.png

The task is an echo: at each step, the sign that was seen `DELAY` steps ago. The loop is one that
any program has; `bptt.torch.LagMonitor` is attached before it. ``--tensorboard DIR`` writes the
same horizons for TensorBoard, if that is installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bptt.torch
import torch
from matplotlib.figure import Figure

STEPS, BATCH, HIDDEN, DELAY = 40, 64, 48, 10


class Echo(torch.nn.Module):
    def __init__(self, layer: torch.nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.readout = layer, torch.nn.Linear(HIDDEN, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.layer(x)
        return self.readout(y)


def train(model: Echo, updates: int) -> float:
    """The mean loss of the last updates."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    recent = []
    for _ in range(updates):
        x = torch.randint(2, (STEPS, BATCH, 1)).float()
        echoed = model(2 * x - 1)[DELAY:]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(echoed, x[:-DELAY])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = [*recent[-19:], loss.item()]
    return sum(recent) / len(recent)


def writer_of(folder: Path | None) -> Any:
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # which needs tensorboard

    return SummaryWriter(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--tensorboard", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/torch-monitor.png"))
    args = parser.parse_args()
    writer = writer_of(args.tensorboard)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(DELAY, color="0.7", linestyle="--", label="delay of the task")
    for kind in (bptt.torch.RNN, bptt.torch.GRU, bptt.torch.LSTM):
        torch.manual_seed(0)
        model = Echo(kind(1, HIDDEN))
        monitor = bptt.torch.LagMonitor(model.layer, writer=writer, name=kind.__name__)
        loss = train(model, args.updates)
        monitor.draw(axes, label=f"{kind.__name__}, loss {loss:.3f}")
        print(
            f"{kind.__name__:5} loss {loss:.3f}  horizon {monitor.history[0].horizon} at first, "
            f"{monitor.history[-1].horizon} at last; {len(monitor.history)} measurements took "
            f"{monitor.overhead:.1%} of the training"
        )
    axes.legend()
    figure.savefig(args.out, dpi=150)


if __name__ == "__main__":
    main()
