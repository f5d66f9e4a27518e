"""The floating-point environment within the kernels of the Numba backend, on x86-64.

Round to nearest, no traps, and subnormal numbers flushed to zero or kept; what `csrc/engine/
float_environment.h` has, in LLVM's words. Elsewhere the caller's environment stays.

Importing this module imports Numba.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

__all__ = ["float_control", "restore_float_control", "set_float_control"]

# MXCSR: all traps masked; and with FTZ and DAZ.
KEEP_SUBNORMALS, FLUSH_SUBNORMALS = 0x1F80, 0x9FC0

_HAS_MXCSR = platform.machine() in ("x86_64", "AMD64")
_WORD = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()


def _call(builder: Any, name: str, word: Any) -> None:
    """Call the LLVM intrinsic `name`, of an instruction that reads or writes `word` in memory."""
    of_bytes = ir.FunctionType(ir.VoidType(), [_BYTES])
    function = builder.module.globals.get(name) or ir.Function(builder.module, of_bytes, name)
    builder.call(function, [builder.bitcast(word, _BYTES)])


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def float_control(typing: Any) -> Any:
    """The thread's control register; 0 where it has none that is known here."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not _HAS_MXCSR:
            return ir.Constant(_WORD, 0)
        word = builder.alloca(_WORD)
        _call(builder, "llvm.x86.sse.stmxcsr", word)
        return builder.load(word)

    return types.uint32(), generate


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def restore_float_control(typing: Any, control: Any) -> Any:
    """Give the thread the `control` that it had."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _HAS_MXCSR:
            word = builder.alloca(_WORD)
            builder.store(arguments[0], word)
            _call(builder, "llvm.x86.sse.ldmxcsr", word)
        return context.get_dummy_value()

    return types.void(types.uint32), generate


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def set_float_control(flush: bool) -> None:
    """Begin to compute: subnormal numbers are flushed, or kept."""
    restore_float_control(types.uint32(FLUSH_SUBNORMALS if flush else KEEP_SUBNORMALS))
