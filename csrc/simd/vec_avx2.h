// AVX2 with FMA: 32-byte vectors. The contract is in simd/vec.h.
#pragma once

#include <immintrin.h>

#define BPTT_VECTOR_BYTES 32
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

BPTT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return _mm256_fmadd_ps(a, b, c);
}
BPTT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return _mm256_fmadd_pd(a, b, c);
}

BPTT_INLINE Vec<float> min(Vec<float> a, Vec<float> b) { return _mm256_min_ps(a, b); }
BPTT_INLINE Vec<double> min(Vec<double> a, Vec<double> b) { return _mm256_min_pd(a, b); }
BPTT_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
BPTT_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm256_max_pd(a, b); }

// The sign bit of lane i is set where i < n.
BPTT_INLINE __m256i first_mask(float, Index n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}
BPTT_INLINE __m256i first_mask(double, Index n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

BPTT_INLINE Vec<float> load_first(const float* p, Index n) {
  return _mm256_maskload_ps(p, first_mask(0.0f, n));
}
BPTT_INLINE Vec<double> load_first(const double* p, Index n) {
  return _mm256_maskload_pd(p, first_mask(0.0, n));
}
BPTT_INLINE void store_first(float* p, Vec<float> v, Index n) {
  _mm256_maskstore_ps(p, first_mask(0.0f, n), v);
}
BPTT_INLINE void store_first(double* p, Vec<double> v, Index n) {
  _mm256_maskstore_pd(p, first_mask(0.0, n), v);
}

BPTT_INLINE Vec<double> widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }

template <class V>
BPTT_INLINE void fma_into(V& acc, V a, V b) {
  acc = fma(a, b, acc);
}

template <class V>
BPTT_INLINE void pin(V& v) {
  asm volatile("" : "+x"(v));
}

inline constexpr int kRegisters = 16, kProductVectors = 4, kOuterVectors = 3;

}  // namespace bptt::BPTT_ISA
