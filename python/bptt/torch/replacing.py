"""`replace` and `restore`: the recurrent layers of a model, in place."""

from __future__ import annotations

import warnings

import torch

from .modules import GRU, LSTM, RNN, Fused

__all__ = ["replace", "restore"]

_PAIRS = {torch.nn.RNN: RNN, torch.nn.GRU: GRU, torch.nn.LSTM: LSTM}


def replace(model: torch.nn.Module) -> list[str]:
    """Let `bptt` compute every RNN, GRU and LSTM of a model.

    Each stays the object that it is, with its weights, hooks and settings, and becomes one of
    `bptt.torch`'s classes. A class of yours that is derived from PyTorch's and has a ``forward`` of
    its own is left alone, and a warning says so; so does one of a model without any such layer.

    Parameters
    ----------
    model : torch.nn.Module
        May be such a layer itself.

    Returns
    -------
    list of str
        The names of the modules that were replaced, as ``model.named_modules()`` has them.

    Raises
    ------
    TypeError
        If `model` is no module.
    """
    _expect_module(model)
    found = []
    for name, module in model.named_modules():
        if type(module) in _PAIRS:
            module.__class__ = _PAIRS[type(module)]
            found.append(name)
        elif isinstance(module, tuple(_PAIRS)) and not isinstance(module, Fused):
            warnings.warn(
                f"bptt.torch.replace: {name or 'the model'} is left alone: "
                f"{type(module).__name__} is a class of its own",
                stacklevel=2,
            )
    if not found and not any(isinstance(module, tuple(_PAIRS)) for module in model.modules()):
        warnings.warn(
            f"bptt.torch.replace: {type(model).__name__} has no RNN, GRU or LSTM of torch.nn",
            stacklevel=2,
        )
    return found


def restore(model: torch.nn.Module) -> list[str]:
    """Undo `replace`: every module of `bptt.torch`'s RNN, GRU and LSTM becomes PyTorch's.

    Returns
    -------
    list of str
        The names of these modules.

    Raises
    ------
    TypeError
        If `model` is no module.
    """
    _expect_module(model)
    originals = {ours: theirs for theirs, ours in _PAIRS.items()}
    found = []
    for name, module in model.named_modules():
        if type(module) in originals:
            module.__class__ = originals[type(module)]
            found.append(name)
    return found


def _expect_module(model: object) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
