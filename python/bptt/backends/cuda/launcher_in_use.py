"""The launcher that runs kernels: CUDA's driver, unless tests put theirs in its place."""

from __future__ import annotations

from .driver import DriverLauncher
from .launching import Launcher

__all__ = ["launcher", "use_launcher"]


class _Used:
    """Made when it is first asked for."""

    launcher: Launcher | None = None


def launcher() -> Launcher:
    """The one in use, of CUDA's driver unless another was put in its place."""
    if _Used.launcher is None:
        _Used.launcher = DriverLauncher()
    return _Used.launcher


def use_launcher(other: Launcher | None) -> Launcher | None:
    """Put another in place, None for the driver's; return the one before."""
    before, _Used.launcher = _Used.launcher, other
    return before
