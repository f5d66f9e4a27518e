"""A callback of Lightning that follows the horizon of a model's recurrent layers in training.

    pip install lightning tensorboard
    python docs/torch_lightning.py --logs DIR      # then: tensorboard --logdir DIR

With a logger that has TensorBoard's ``add_scalar`` the horizons are scalars there, by the name of
each layer; without one they are in ``callback.monitors``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bptt.torch
import lightning.pytorch as pl
import torch
from torch import Tensor

RECURRENT = (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, bptt.torch.Recurrent)


class Horizons(pl.Callback):
    """A `bptt.torch.LagMonitor` on each recurrent layer in one direction, while a model is fitted.

    `options` are those of `bptt.torch.LagMonitor`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.monitors: dict[str, bptt.torch.LagMonitor] = {}

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        writer = getattr(trainer.logger, "experiment", None)
        writer = writer if hasattr(writer, "add_scalar") else None
        for name, layer in module.named_modules():
            if isinstance(layer, RECURRENT) and not getattr(layer, "bidirectional", False):
                self.monitors[name] = bptt.torch.LagMonitor(
                    layer, writer=writer, name=name, **self.options
                )

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for monitor in self.monitors.values():
            monitor.remove()


class Echo(pl.LightningModule):
    """At each step, the sign that was seen some steps ago."""

    def __init__(self, delay: int = 5, hidden: int = 32) -> None:
        super().__init__()
        self.delay = delay
        self.rnn, self.out = bptt.torch.GRU(1, hidden), torch.nn.Linear(hidden, 1)

    def training_step(self, x: Tensor, _: int) -> Tensor:
        scores = self.out(self.rnn(x)[0])[self.delay :]
        echoed = (x[: -self.delay] > 0).float()
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, echoed)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--logs", type=Path, help="a folder for TensorBoard")
    options = parser.parse_args()
    pl.seed_everything(0, verbose=False)
    signs = torch.randint(2, (options.updates, 30, 16, 1)).float() * 2 - 1
    logger: Any = False
    if options.logs is not None:
        from lightning.pytorch.loggers import TensorBoardLogger

        logger = TensorBoardLogger(options.logs)
    horizons = Horizons()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=logger,
        callbacks=[horizons],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Echo(), torch.utils.data.DataLoader(signs, batch_size=None))
    for name, monitor in horizons.monitors.items():
        first, last = monitor.history[0], monitor.history[-1]
        print(f"{name}: horizon {first.horizon} at first, {last.horizon} at last")


if __name__ == "__main__":
    main()
