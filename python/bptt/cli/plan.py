"""What the demo on digits trains: its networks, and the settings they share."""

from __future__ import annotations

from dataclasses import dataclass

import bptt

from .digits import CLASSES, STEPS
from .sizes import equal_hidden_size

__all__ = ["Network", "Settings"]


@dataclass(frozen=True)
class Network:
    """One network: its cell, its width, and the spectral radius that its W_s starts from."""

    cell: str
    radius: float
    hidden_size: int

    @property
    def name(self) -> str:
        """Name for files and tables, such as ``tanh-radius-0.8``."""
        return f"{self.cell}-radius-{self.radius}"

    @property
    def params_file(self) -> str:
        """Where its trained parameters go, relative to the demo's folder."""
        return f"params/{self.name}.npz"

    @property
    def gated(self) -> bool:
        return bptt.CELLS[self.cell].gates > 1


@dataclass(frozen=True)
class Settings:
    """Everything that decides the demo's numbers, as it stands in ``results.json``."""

    seed: int = 0
    backend: str = "auto"
    quick: bool = False
    # The cells of the text, each from every radius ...
    cells: tuple[str, ...] = ("linear", "tanh")
    radii: tuple[float, ...] = (0.8, 1.0, 1.2)
    hidden_size: int = 64
    # ... and those that are compared with tanh, at this radius and as many parameters.
    gated_cells: tuple[str, ...] = ("gru", "lstm")
    compared_radius: float = 0.8
    epochs: int = 40
    batch_size: int = 64
    # Of 0.003 and 0.01 the one with which the cell gets further.
    learning_rate: float = 3e-3
    gated_learning_rate: float = 1e-2
    clip_norm: float = 1.0
    test_images: int = 360
    # Where the loss is read when it moves along the sequence: at the end of each row of pixels.
    loss_steps: tuple[int, ...] = (8, 16, 24, 32, 40, 48, 56, 64)

    @classmethod
    def make(cls, *, seed: int, backend: str, quick: bool) -> Settings:
        """The full demo, or one that trains for a tenth as long."""
        if quick:
            return cls(seed, backend, quick, epochs=4, learning_rate=5e-3)
        return cls(seed, backend, quick)

    def networks(self) -> list[Network]:
        """The text's networks, then the gated ones."""
        elman = [
            Network(cell, radius, self.hidden_size) for cell in self.cells for radius in self.radii
        ]
        return elman + [self._gated(cell) for cell in self.gated_cells]

    def _gated(self, cell: str) -> Network:
        size = equal_hidden_size(cell, 1, CLASSES, like=("tanh", self.hidden_size))
        return Network(cell, self.compared_radius, size)

    def rate(self, network: Network) -> float:
        """The learning rate that a network's training starts with."""
        return self.gated_learning_rate if network.gated else self.learning_rate

    def init_params(self, network: Network) -> bptt.Params:
        """The same seed for every network: they differ in cell, width and radius alone.

        The gate that keeps a memory starts open, for times up to the length of the sequence.
        """
        return bptt.init_params(
            network.cell,
            input_size=1,
            hidden_size=network.hidden_size,
            output_size=CLASSES,
            spectral_radius=network.radius,
            chrono=STEPS if network.gated else None,
            rng=self.seed,
        )
