"""The handlers of XLA's foreign function interface that the compiled module has."""

from __future__ import annotations

from typing import Any

import jax
import jax.ffi

from ..compiled import core, why_missing

__all__ = ["BACKWARD", "LAYER", "expect_handlers", "export_checks"]

LAYER, BACKWARD = "bptt_layer", "bptt_layer_backward"


def expect_handlers() -> None:
    """Raise RuntimeError if this installation has no handlers, saying how to get them."""
    if core is None:
        raise RuntimeError(f"bptt.jax needs the compiled module: {why_missing}")
    if core.xla_ffi is None:
        raise RuntimeError(
            "bptt.jax needs handlers that were not built, as there was no jaxlib: install bptt "
            "again with BPTT_JAX=1 in the environment, or with --no-build-isolation beside jaxlib"
        )


def export_checks() -> list[Any]:
    """What `jax.export.export` has to be told, as ``disabled_checks``, to take a function with a
    layer of `bptt`: that the names of its custom calls keep their meaning."""
    import jax.export

    return [jax.export.DisabledSafetyCheck.custom_call(name) for name in (LAYER, BACKWARD)]


for _name, _handler in ({} if core is None else core.xla_handlers()).items():
    jax.ffi.register_ffi_target(_name, _handler, platform="cpu")
