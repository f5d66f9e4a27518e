// What an instruction set without better ones of its own takes from the language (contract:
// simd/vec.h).
#pragma once

#include "simd/vec.h"

namespace bptt::BPTT_ISA {

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

BPTT_INLINE Vec<double> widen(const float* p) {
  typedef float Half __attribute__((vector_size(BPTT_VECTOR_BYTES / 2), aligned(4), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Half*>(p), Vec<double>);
}

}  // namespace bptt::BPTT_ISA
