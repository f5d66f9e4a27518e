// The formats of what tensor cores multiply; they sum in float.
//
// Of a warp, mma multiplies a tile of 16 rows and kDepth columns by kDepth columns of 8. A lane has
// four registers of the one and two of the other, each of kPacked values.
#pragma once

#include "simd/one_lane.h"

namespace bptt::BPTT_ISA {

template <class A, class B>
inline constexpr bool is_same = false;
template <class A>
inline constexpr bool is_same<A, A> = true;

struct Bf16 {
  using Value = unsigned short;
  static constexpr int kDepth = 16, kPacked = 2;
};

struct F16 {
  using Value = unsigned short;
  static constexpr int kDepth = 16, kPacked = 2;
};

struct Tf32 {
  using Value = unsigned;
  static constexpr int kDepth = 8, kPacked = 1;
};

}  // namespace bptt::BPTT_ISA
