// One lane: `Vec<T>` is T, for a thread of a GPU, and for a fibre that stands for one in tests. The
// contract is in simd/vec.h, without what the ends of rows and the tiles of products take.
//
// Compiled by NVRTC too, which has no header of the standard library.
#pragma once

#define BPTT_ONE_LANE

#ifdef __CUDACC__
#define BPTT_INLINE __device__ __forceinline__
#define BPTT_UNROLL _Pragma("unroll")
#define BPTT_ROLL _Pragma("unroll 1")
#define BPTT_UNROLL_BY_2 _Pragma("unroll 2")
#define BPTT_UNROLL_BY_4 _Pragma("unroll 4")
#define BPTT_TABLE static __device__
#else
#define BPTT_INLINE inline
#define BPTT_UNROLL
#define BPTT_ROLL
#define BPTT_UNROLL_BY_2
#define BPTT_UNROLL_BY_4
#define BPTT_TABLE static
#endif

namespace bptt::BPTT_ISA {

using Index = long long;

template <class T>
struct VecTypes;

template <>
struct VecTypes<float> {
  using Value = float;
  using Unaligned = float;
  using Bits = int;
};

template <>
struct VecTypes<double> {
  using Value = double;
  using Unaligned = double;
  using Bits = long long;
};

template <class T>
inline constexpr int kLanes = 1;

#ifdef __CUDACC__
BPTT_INLINE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
BPTT_INLINE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
BPTT_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
BPTT_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif

// Not fmin and fmax, which answer a NaN with the other value.
template <class T>
BPTT_INLINE T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
BPTT_INLINE T max(T a, T b) {
  return a > b ? a : b;
}

}  // namespace bptt::BPTT_ISA

#include "simd/vec.h"
