"""PyTorch's recurrent layers, computed by `bptt`; needs PyTorch (``pip install 'bptt[torch]'``).

>>> import bptt.torch
>>> lstm = bptt.torch.LSTM(64, 128, num_layers=2)   # in the place of torch.nn.LSTM
>>> bptt.torch.replace(model)                       # or of every such layer of a model
>>> y, state = bptt.torch.layer("linear", params, x, lengths=lengths)  # any cell, as a function
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError("bptt.torch needs PyTorch: pip install torch", name="torch") from None

from .compiling import allow_compile
from .gpu_use import allow_cuda
from .modules import GRU, LSTM, RNN
from .monitor import LagMonitor
from .one_layer import layer
from .recurrent import Recurrent
from .replacing import replace, restore
from .who import why
from .workers import share_workers

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "LagMonitor",
    "Recurrent",
    "allow_compile",
    "allow_cuda",
    "layer",
    "replace",
    "restore",
    "why",
]

share_workers()
