"""Who is compared. A peer is one class in this folder and one entry of `all_peers`."""

import bptt

from ..problem import Peer, Workload
from .jax import Jax
from .own import OwnBackend
from .torch import Torch

__all__ = ["OwnBackend", "Peer", "Workload", "all_peers", "versions"]


def all_peers() -> dict[str, Peer]:
    """Every peer by name, this package's own backends first."""
    own: list[Peer] = [OwnBackend(name) for name in bptt.backends()]
    own.insert(1, OwnBackend("native", reuses=True))
    elman = ("linear", "tanh", "relu")
    jax = [Jax("jax", "by_vjp", *elman, "lstm", "gru"), Jax("jax-bptt", "by_hand", *elman)]
    return {peer.name: peer for peer in (*own, Torch(), *jax)}


def versions(*names: str) -> dict[str, str]:
    """What runs of these peers, as far as they are there; of the package's backends if none."""
    wanted = {name: p for name, p in all_peers().items() if (name in names if names else p.is_own)}
    return {name: peer.version() for name, peer in wanted.items() if peer.missing() is None}
