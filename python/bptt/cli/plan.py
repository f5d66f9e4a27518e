"""What the demo trains: its networks, and the settings they share."""

from __future__ import annotations

from dataclasses import dataclass

import bptt

from .digits import CLASSES

__all__ = ["Network", "Settings"]


@dataclass(frozen=True)
class Network:
    """One network: its cell, and the spectral radius that its W_s starts from."""

    cell: str
    radius: float

    @property
    def name(self) -> str:
        """Name for files and tables, such as ``tanh-radius-0.8``."""
        return f"{self.cell}-radius-{self.radius}"

    @property
    def params_file(self) -> str:
        """Where its trained parameters go, relative to the demo's folder."""
        return f"params/{self.name}.npz"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the demo's numbers, as it stands in ``results.json``."""

    seed: int = 0
    backend: str = "auto"
    quick: bool = False
    cells: tuple[str, ...] = ("linear", "tanh")
    radii: tuple[float, ...] = (0.8, 1.0, 1.2)
    hidden_size: int = 64
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 3e-3
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
        return [Network(cell, radius) for cell in self.cells for radius in self.radii]

    def init_params(self, network: Network) -> bptt.Params:
        """The same seed for every network: they differ in cell and radius alone."""
        return bptt.init_params(
            network.cell,
            input_size=1,
            hidden_size=self.hidden_size,
            output_size=CLASSES,
            spectral_radius=network.radius,
            rng=self.seed,
        )
