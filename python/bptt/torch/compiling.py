"""What torch.compile has to be told of recurrent modules."""

from __future__ import annotations

__all__ = ["allow_compile"]


def allow_compile(allow: bool = True) -> None:
    """Let torch.compile trace through modules that are recurrent.

    It refuses every one that is derived from `torch.nn.RNN`, `GRU` or `LSTM`: with
    ``fullgraph=True`` it raises an error, else it leaves the module out of what it compiles, and
    the module runs as if there was no torch.compile. With this it takes those of `bptt.torch` as
    one operator a layer and direction. It holds for PyTorch's own modules, too, whose steps
    torch.compile traces one by one, which takes long. torch.export does not need it.

    Parameters
    ----------
    allow : bool
        False takes it back.

    Notes
    -----
    This sets ``torch._dynamo.config.allow_rnn``.
    """
    import torch._dynamo

    torch._dynamo.config.allow_rnn = bool(allow)
