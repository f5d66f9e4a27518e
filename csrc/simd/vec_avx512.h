// AVX-512 (F, VL, DQ, BW): 64-byte vectors. The contract is in simd/vec.h.
#pragma once

#include <immintrin.h>

#define BPTT_VECTOR_BYTES 64
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

BPTT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return _mm512_fmadd_ps(a, b, c);
}
BPTT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return _mm512_fmadd_pd(a, b, c);
}

BPTT_INLINE Vec<float> min(Vec<float> a, Vec<float> b) { return _mm512_min_ps(a, b); }
BPTT_INLINE Vec<double> min(Vec<double> a, Vec<double> b) { return _mm512_min_pd(a, b); }
BPTT_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm512_max_ps(a, b); }
BPTT_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm512_max_pd(a, b); }

BPTT_INLINE Vec<float> load_first(const float* p, Index n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
BPTT_INLINE Vec<double> load_first(const double* p, Index n) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
}
BPTT_INLINE void store_first(float* p, Vec<float> v, Index n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
}
BPTT_INLINE void store_first(double* p, Vec<double> v, Index n) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), v);
}

// GCC makes two halves of the language's own conversion.
BPTT_INLINE Vec<double> widen(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }

// GCC gives some of these a register of their own, and moves the sum there and back.
BPTT_INLINE void fma_into(Vec<float>& acc, Vec<float> a, Vec<float> b) {
  asm("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
}
BPTT_INLINE void fma_into(Vec<double>& acc, Vec<double> a, Vec<double> b) {
  asm("vfmadd231pd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
}

template <class V>
BPTT_INLINE void pin(V& v) {
  asm volatile("" : "+v"(v));
}

inline constexpr int kRegisters = 32, kProductVectors = 4, kOuterVectors = 3;

}  // namespace bptt::BPTT_ISA
