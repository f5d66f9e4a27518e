"""Passes through a stack of layers, each the same pass that one layer makes."""

from .forward_pass import forward
from .gradient import value_and_grad
from .prediction import predict
from .tape import StackTape

__all__ = ["StackTape", "forward", "predict", "value_and_grad"]
