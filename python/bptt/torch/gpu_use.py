"""Whether modules take the kernels of `bptt` for tensors on a GPU."""

from __future__ import annotations

from functools import cache

from .. import checks
from ..backends import cuda

__all__ = ["allow_cuda", "refused"]


class _Chosen:
    """What `allow_cuda` was told last."""

    allowed = True


def allow_cuda(allow: bool = True) -> None:
    """Let the modules `RNN`, `GRU` and `LSTM` run by the backend "cuda" where tensors are on a GPU.

    So they do by themselves, if the backend is available. **Nobody has timed these kernels on a GPU
    yet**, or run them there: False leaves tensors on a GPU to PyTorch, whose kernels are cuDNN's.
    `bptt.torch.why` says which of both computes a call. `layer` and `Recurrent` do not ask.

    Parameters
    ----------
    allow : bool

    Notes
    -----
    A program that torch.compile made before keeps to what held then.
    """
    _Chosen.allowed = checks.boolean("allow", allow)


def refused() -> tuple[str, bool] | None:
    """Why modules leave a GPU to PyTorch, and whether a user has to be told; None if they do not.

    Known before anything is computed, so torch.compile takes it for a constant.
    """
    if not _Chosen.allowed:
        return "bptt.torch.allow_cuda(False) leaves GPUs to PyTorch", False
    missing = _missing(cuda.launcher())  # type: ignore[arg-type]  # which is hashable
    return None if missing is None else (f"backend 'cuda' is not available: {missing}", True)


# What torch._dynamo.assume_constant_result does, whose import takes seconds.
refused._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache  # to look for packages that are missing takes longer than a small layer
def _missing(launcher: cuda.Launcher) -> str | None:
    return launcher.missing()
