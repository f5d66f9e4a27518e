"""Who is compared. A peer is one class in this folder and one entry of `all_peers`."""

from __future__ import annotations

import bptt

from .contract import Peer, Workload
from .jax import JaxBptt, JaxVjp
from .own import OwnBackend
from .torch import Torch

__all__ = ["OwnBackend", "Peer", "Workload", "all_peers", "versions"]


def all_peers() -> dict[str, Peer]:
    """Every peer by name, this package's own backends first."""
    own: list[Peer] = [OwnBackend(name) for name in bptt.backends()]
    own.insert(1, OwnBackend("native", reuses=True))
    return {peer.name: peer for peer in (*own, Torch(), JaxVjp(), JaxBptt())}


def versions(*names: str) -> dict[str, str]:
    """What runs of these peers, as far as they are there; of the package's backends if none."""
    found = [peer for name, peer in all_peers().items() if name in names or not names]
    return {
        peer.name: peer.version()
        for peer in found
        if peer.missing() is None and (names or peer.is_own)
    }
