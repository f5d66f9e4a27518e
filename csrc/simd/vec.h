// The vector type: one contract, written once per instruction set.
//
// `Vec<T>` is a GCC/Clang vector of kLanes<T> values, so + - * / and comparisons are the
// language's own. What the language lacks is in simd/vec_<isa>.h, which an isa/ file includes first
// and which defines, for T in {float, double}:
//
//     Vec<T> fma(a, b, c)            a * b + c, rounded once (where the ISA has it)
//     Vec<T> min(a, b), max(a, b)    b if either is NaN, either of 0 and -0
//     Vec<T> load_first(p, n)        p[0..n), zeros above; 0 < n < lanes
//     void   store_first(p, v, n)    the first n lanes
//     Vec<double> widen(p)           kLanes<double> values from p, which are floats
//     void   fma_into(acc, a, b)     acc = fma(a, b, acc), where acc is
//     void   pin(v)                  v has to be in a register here, for all the compiler knows
//
// and the shape of the register tiles: kRegisters of the ISA, and the vectors of a tile's row in a
// product (kProductVectors) and in an outer product (kOuterVectors); gemm/tile.h does the rest.
//
// simd/one_lane.h does without vectors: what is written for `Vec<T>`, a thread of a GPU computes
// too.
//
// Everything lives in a namespace named after the ISA: the linker must never merge two
// instantiations that were compiled with different flags. For the same reason nothing below isa/
// uses inline functions of the standard library.
#pragma once

#if !defined(BPTT_ISA) || !(defined(BPTT_VECTOR_BYTES) || defined(BPTT_ONE_LANE))
#error "include a simd/vec_<isa>.h first"
#endif

#ifndef BPTT_ONE_LANE
#include <cstddef>
#include <cstdint>

#define BPTT_INLINE inline __attribute__((always_inline))
#define BPTT_UNROLL _Pragma("GCC unroll 16")
#define BPTT_ROLL _Pragma("GCC unroll 1")
#define BPTT_TABLE static  // a constant array

namespace bptt::BPTT_ISA {

using Index = std::ptrdiff_t;

template <class T>
struct VecTypes;

template <>
struct VecTypes<float> {
  typedef float Value __attribute__((vector_size(BPTT_VECTOR_BYTES)));
  typedef float Unaligned __attribute__((vector_size(BPTT_VECTOR_BYTES), aligned(4), may_alias));
  typedef std::int32_t Bits __attribute__((vector_size(BPTT_VECTOR_BYTES)));
};

template <>
struct VecTypes<double> {
  typedef double Value __attribute__((vector_size(BPTT_VECTOR_BYTES)));
  typedef double Unaligned __attribute__((vector_size(BPTT_VECTOR_BYTES), aligned(8), may_alias));
  typedef std::int64_t Bits __attribute__((vector_size(BPTT_VECTOR_BYTES)));
};

template <class T>
inline constexpr int kLanes = BPTT_VECTOR_BYTES / static_cast<int>(sizeof(T));

}  // namespace bptt::BPTT_ISA
#endif

namespace bptt::BPTT_ISA {

template <class T>
using Vec = typename VecTypes<T>::Value;
template <class T>
using Bits = typename VecTypes<T>::Bits;

template <class T>
BPTT_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecTypes<T>::Unaligned*>(p);
}

template <class T>
BPTT_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecTypes<T>::Unaligned*>(p) = v;
}

template <class T>
BPTT_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};  // v - 0 is v for every v, -0 and NaN included; compilers know
}

// The bits of a vector's values, and the values of bits.
template <class T>
BPTT_INLINE Bits<T> bits_of(Vec<T> v) {
  return __builtin_bit_cast(Bits<T>, v);
}
template <class T>
BPTT_INLINE Vec<T> of_bits(Bits<T> bits) {
  return __builtin_bit_cast(Vec<T>, bits);
}

}  // namespace bptt::BPTT_ISA
