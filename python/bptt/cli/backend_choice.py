"""Which backend an option ``--backend`` means for the cells that a task trains."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

import bptt

from .errors import CommandError

__all__ = ["backends_used"]


def backends_used(name: str, cells: Iterable[str]) -> str:
    """The backends that `name` stands for here, which differ if ``auto`` finds another for a cell.

    An empty call to each lets it say what is wrong before any work is done.

    Raises
    ------
    CommandError
        If it is not available, or does not know a cell.
    """
    nothing = np.empty((0, 0, 1), np.float32)
    found = []
    for cell in cells:
        params = bptt.init_params(cell, input_size=1, hidden_size=1)
        try:
            found.append(bptt.forward(cell, params, nothing, backend=name).backend)
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            raise CommandError(f"--backend {name}: {error}") from None
    return ", ".join(dict.fromkeys(found))
