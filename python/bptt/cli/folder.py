"""The folder that a command writes: chosen, and checked before any work is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import CommandError

__all__ = ["DEFAULT_FOLDER", "open_folder"]

DEFAULT_FOLDER = "bptt-demo"


def open_folder(
    out: str | None, *, force: bool, names: Iterable[str], default: str = DEFAULT_FOLDER
) -> Path:
    """Create the folder and make sure that it can be written to.

    Without `out` it is `default`, such as ``bptt-demo``, or the first free one of ``bptt-demo-2``,
    ... so that a second run loses nothing. A folder that is named must be new or empty, unless
    `force` allows to replace the files called `names`; others in it are never touched.

    Raises
    ------
    CommandError
        If the folder holds something, or cannot be created or written to.
    """
    folder = Path(default if out is None else out)
    try:
        if out is None and not force:
            folder = _first_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise CommandError(
                f"--out: {folder} is not empty; name another folder, or add --force to replace "
                "what an earlier run wrote there"
            )
        with tempfile.TemporaryFile(dir=folder):
            pass
        for name in names:
            target = Path(os.path.realpath(folder / name))  # a link stays
            target.unlink(missing_ok=True)
            (folder / name).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise CommandError(f"--out: cannot write to {folder}: {error.strerror or error}") from None
    return folder


def _first_free(folder: Path) -> Path:
    """`folder` itself, or with the first number that makes it new or empty."""
    candidate, number = folder, 1
    while os.path.lexists(candidate) and not (candidate.is_dir() and not any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
