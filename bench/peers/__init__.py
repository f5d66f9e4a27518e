"""Who is compared. A peer is one class in this folder and one entry of `all_peers`."""

from __future__ import annotations

import bptt

from .contract import Peer, Workload
from .jax import JaxBptt, JaxVjp
from .own import OwnBackend, ReusingBackend
from .torch import Torch

__all__ = ["Peer", "Workload", "all_peers"]


def all_peers() -> dict[str, Peer]:
    """Every peer by name, this package's own backends first."""
    own: list[Peer] = [OwnBackend(name) for name in bptt.backends()]
    own.insert(1, ReusingBackend("native"))
    return {peer.name: peer for peer in (*own, Torch(), JaxVjp(), JaxBptt())}
