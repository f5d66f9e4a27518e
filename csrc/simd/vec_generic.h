// Any CPU: 16-byte vectors in the language alone. The contract is in simd/vec.h.
//
// Without a hardware FMA, a * b + c is rounded twice here (a call of the C library's fma() for each
// lane would cost more than the rest), so this ISA's bits differ from the others'.
#pragma once

#define BPTT_VECTOR_BYTES 16
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

template <class V>
BPTT_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}

template <class V>
BPTT_INLINE V min(V a, V b) {
  return a < b ? a : b;
}

template <class V>
BPTT_INLINE V max(V a, V b) {
  return a > b ? a : b;
}

template <class T>
BPTT_INLINE Vec<T> load_first(const T* p, Index n) {
  Vec<T> v{};
  for (Index i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

template <class T>
BPTT_INLINE void store_first(T* p, Vec<T> v, Index n) {
  for (Index i = 0; i < n; ++i) p[i] = v[i];
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

// 16 registers: 12 accumulators.
inline constexpr int kProductAccumulators = 12, kProductVectors = 4;
inline constexpr int kOuterAccumulators = 12, kOuterVectors = 3;

}  // namespace bptt::BPTT_ISA
