// Any CPU: 16-byte vectors in the language alone. The contract is in simd/vec.h.
//
// Without a hardware FMA, a * b + c is rounded twice here (a call of the C library's fma() for each
// lane would cost more than the rest), so this ISA's bits differ from the others'.
#pragma once

#define BPTT_VECTOR_BYTES 16
#include "simd/vec_language.h"

namespace bptt::BPTT_ISA {

template <class V>
BPTT_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}

template <class V>
BPTT_INLINE void fma_into(V& acc, V a, V b) {
  acc = fma(a, b, acc);
}

template <class V>
BPTT_INLINE void pin(V& v) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(v));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(v));
#else
  asm volatile("" : "+m"(v));
#endif
}

inline constexpr int kRegisters = 16, kProductVectors = 4, kOuterVectors = 3;

}  // namespace bptt::BPTT_ISA
