"""Options that sub-commands share, and what they check before any work is done."""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import TypeVar

import numpy as np

import bptt
from bptt.backends import REGISTRY

# What is imported of the extra ``bptt[demo]``, and the names that pip knows.
_PACKAGES = {
    "matplotlib.figure": "matplotlib",
    "tqdm": "tqdm",
    "sklearn.datasets": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
}
TRAINING = tuple(_PACKAGES)
DRAWING = ("matplotlib.figure", "tqdm")


T = TypeVar("T")


class CommandError(Exception):
    """A wrong call: one line on stderr."""


def expecting(
    what: str, parse: Callable[[str], T], valid: Callable[[T], bool] = lambda value: True
) -> Callable[[str], T]:
    """The type of an option, which says what is expected where it cannot be parsed or is wrong."""

    def parsed(text: str) -> T:
        with suppress(ValueError):
            value = parse(text)
            if valid(value):
                return value
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")

    return parsed


path = expecting("a path", str, bool)  # an empty one would be taken as the current folder
_seed = expecting("an integer from 0", int, lambda seed: seed >= 0)


def add_common_options(parser: argparse.ArgumentParser, folder: str, written: str) -> None:
    """Where random numbers begin, where results go, what computes; `folder` is the default one."""
    parser.add_argument("--seed", type=_seed, default=0, help="an integer from 0 (default: 0)")
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
        "--backend", choices=("auto", *REGISTRY), default="auto", help="default: auto"
    )


def require(modules: Iterable[str]) -> None:
    """Import some packages that the commands need beyond NumPy, before anything is created.

    For one that cannot be imported, a `CommandError` has the command that installs it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            package = _PACKAGES[module]
            raise CommandError(
                f"needs {package}, which cannot be imported ({error}); "
                f"install it with: pip install {package}"
            ) from None


def backends_used(name: str, cells: Iterable[str]) -> str:
    """The backends that `name` stands for here, which differ if ``auto`` finds another for a cell.

    An empty call to each lets it say, as a `CommandError`, that it is not available or does not
    know a cell, before any work is done.
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
    `force` allows to replace the files called `names`; others in it are never touched. What is
    wrong with it is a `CommandError`.
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
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    for each in chain([folder], numbered):
        if not os.path.lexists(each) or (each.is_dir() and not any(each.iterdir())):
            break
    return each
