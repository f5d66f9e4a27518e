// AArch64 Advanced SIMD: 16-byte vectors. The contract is in simd/vec.h.
#pragma once

#include <arm_neon.h>

#define BPTT_VECTOR_BYTES 16
// The ISA's own fmin and fmax answer a NaN with NaN, not with b.
#include "simd/vec_language.h"

namespace bptt::BPTT_ISA {

BPTT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return vfmaq_f32(c, a, b); }
BPTT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return vfmaq_f64(c, a, b);
}

template <class V>
BPTT_INLINE void fma_into(V& acc, V a, V b) {
  acc = fma(a, b, acc);
}

template <class V>
BPTT_INLINE void pin(V& v) {
  asm volatile("" : "+w"(v));
}

// The tile of an outer product is wide because it can be no higher than a vector has lanes.
inline constexpr int kRegisters = 32, kProductVectors = 4, kOuterVectors = 6;

}  // namespace bptt::BPTT_ISA
