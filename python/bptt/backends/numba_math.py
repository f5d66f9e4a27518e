"""What the functions of `bptt.pointwise` are where Numba compiles: errors below 3 ULP.

    E = exp(-z):   tanh |a| = -e / (1 + E) near zero, 1 - 2E / (1 + E) far from it; z = 2|a|
                   sigmoid a = 1 / (1 + E) for a >= 0, E / (1 + E) below;            z = |a|

With -z = n ln 2 + r, |r| <= ln(2) / 2, s = 2^n and p = expm1(r), a Taylor polynomial of degree 13:
E = s (1 + p), whose factors are normal numbers; s p may be subnormal, and flushed, before E is.
Near zero e = E - 1 = (s - 1) + s p. n is rounded by adding a number so large that n + bias is left
in the lowest bits; moved to the place of the exponent, these are 2^n.

Importing this module imports Numba, and registers the functions with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from ..pointwise import sigmoid, slope_of_sigmoid, slope_of_tanh, tanh

__all__: list[str] = []


class Format(NamedTuple):
    """A floating-point format."""

    real: Any
    bits: Any
    mantissa: int
    bias: int
    ln2: tuple[float, float]  # n times the high part is exact
    tanh_is_one: float  # from here on
    exp_is_normal: float  # e^-z, up to here


FORMATS = {
    types.float32: Format(
        np.float32, np.int32, 23, 127, (6.9313812256e-01, 9.0580006145e-06), 9.1, 87.0
    ),
    types.float64: Format(
        np.float64,
        np.int64,
        52,
        1023,
        (6.93147180369123816e-01, 1.90821492927058770e-10),
        19.1,
        708.0,
    ),
}

Inlined = Callable[..., Any]


def _make_exp_of_minus(f: Format) -> Inlined:
    """z -> (s, p), exp(-z) = s (1 + p), for z from 0 to `exp_is_normal`, or NaN."""
    real, bits, mantissa = f.real, f.bits, f.mantissa
    magic, log2_e = real(1.5 * 2.0**mantissa + f.bias), real(1 / math.log(2))
    ln2_high, ln2_low = real(f.ln2[0]), real(f.ln2[1])
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = (
        real(1 / math.factorial(k)) for k in range(2, 14)
    )

    def implementation(z: Any) -> Any:
        shifted = real(magic - z * log2_e)
        n = shifted - magic
        r = (-z - n * ln2_high) - n * ln2_low
        tail = c9 + r * (c10 + r * (c11 + r * (c12 + r * c13)))
        tail = c4 + r * (c5 + r * (c6 + r * (c7 + r * (c8 + r * tail))))
        p = r + r * r * (c2 + r * (c3 + r * tail))
        s = bits(real(shifted).view(bits) << bits(mantissa)).view(real)
        return s, p

    return register_jitable(forceinline=True)(implementation)  # type: ignore[no-any-return]


def _make_tanh(f: Format) -> Inlined:
    exp_of_minus = _make_exp_of_minus(f)
    one, two, near, limit = f.real(1), f.real(2), f.real(0.55), f.real(f.tanh_is_one)

    def implementation(a: Any) -> Any:
        size = abs(a)
        s, p = exp_of_minus(two * (limit if size > limit else size))
        sp = s * p
        e = (s - one) + sp
        far = size > near  # not so for NaN, which comes through e
        quotient = ((s + sp) * two if far else -e) / (two + e)
        return math.copysign(one - quotient if far else quotient, a)

    return implementation


def _make_sigmoid(f: Format) -> Inlined:
    exp_of_minus = _make_exp_of_minus(f)
    zero, one, limit = f.real(0), f.real(1), f.real(f.exp_is_normal)

    def implementation(a: Any) -> Any:
        size = abs(a)
        s, p = exp_of_minus(limit if size > limit else size)
        # Not s + s p: near the smallest normal number s p is subnormal, and may be flushed.
        e = zero if size > limit else s * (one + p)
        return (e if a < zero else one) / (one + e)

    return implementation


def _make_slope_of_sigmoid(f: Format) -> Inlined:
    def implementation(a: Any) -> Any:
        return a - a * a

    return implementation


def _make_slope_of_tanh(f: Format) -> Inlined:
    one = f.real(1)

    def implementation(a: Any) -> Any:
        return one - a * a

    return implementation


def _register(function: Callable[[Any], Any], make: Callable[[Format], Inlined]) -> None:
    """`function` becomes what `make` makes, in the format of its argument."""
    made = {kind: make(f) for kind, f in FORMATS.items()}

    def implementation_for(a: Any) -> Any:
        return made.get(a)

    overload(function, jit_options={"error_model": "numpy", "forceinline": True})(
        implementation_for
    )


_register(tanh, _make_tanh)
_register(sigmoid, _make_sigmoid)
_register(slope_of_tanh, _make_slope_of_tanh)
_register(slope_of_sigmoid, _make_slope_of_sigmoid)
