"""Options that sub-commands share, and what they check before any work is done."""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import bptt

# What is imported of the extra ``bptt[demo]``, and the names that pip knows.
_PACKAGES = {
    "matplotlib.figure": "matplotlib",
    "sklearn.datasets": "scikit-learn",
    "tqdm": "tqdm",
}
TRAINING = tuple(_PACKAGES)
DRAWING = ("matplotlib.figure", "tqdm")


class CommandError(Exception):
    """Printed as one line on stderr; exit code 2 is a wrong call, 1 a failure on the way."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def path(text: str) -> str:
    """A path that names something; an empty one would be taken as the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer from 0, got {text!r}")
    return int(text)


def add_common_options(parser: argparse.ArgumentParser, folder: str, written: str) -> None:
    """Where random numbers begin, where results go, what computes; `folder` is the default one."""
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        help="an integer from 0 (default: 0)",
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        help=f"a new or empty folder (default: {folder}, numbered if it exists)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help=f"replace the files of an earlier {written} in the folder",
    )
    parser.add_argument(
        "--backend", choices=("auto", *bptt.backends()), default="auto", help="default: auto"
    )


def require(modules: Iterable[str]) -> None:
    """Import some packages that the commands need beyond NumPy, before anything is created.

    Raises
    ------
    CommandError
        If one cannot be imported, with the command that installs it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise CommandError(
                f"needs {_PACKAGES[module]}, which cannot be imported ({error}); "
                f"install it with: pip install {_PACKAGES[module]}"
            ) from None


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


def open_folder(out: str | None, *, force: bool, names: Iterable[str], default: str) -> Path:
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
