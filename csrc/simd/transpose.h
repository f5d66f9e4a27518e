// A square tile of vectors, transposed in registers.
#pragma once

#include <utility>

#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// Lane j of the result is lane I_j of a, or lane I_j - kLanes of b.
template <class T, int... I>
BPTT_INLINE Vec<T> shuffle(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, I...);
#else
  return __builtin_shuffle(a, b, Bits<T>{I...});
#endif
}

// Swaps the blocks of S x S values off the diagonal of every block of 2S x 2S, then goes on with
// blocks of half the size: rows and lanes exchange one bit of their index at a time.
template <class T, int S = kLanes<T> / 2>
BPTT_INLINE void transpose(Vec<T> (&tile)[kLanes<T>]) {
  if constexpr (S > 0) {
    constexpr int kL = kLanes<T>;
    [&]<int... J>(std::integer_sequence<int, J...>) {
      using Upper = std::integer_sequence<int, (J & S ? kL + J - S : J)...>;
      using Lower = std::integer_sequence<int, (J & S ? kL + J : J + S)...>;
      BPTT_UNROLL for (int i = 0; i < kL; ++i) {
        if (i & S) continue;
        const Vec<T> a = tile[i], b = tile[i + S];
        tile[i] = shuffle<T>(a, b, Upper{});
        tile[i + S] = shuffle<T>(a, b, Lower{});
      }
    }(std::make_integer_sequence<int, kL>{});
    transpose<T, S / 2>(tile);
  }
}

}  // namespace bptt::BPTT_ISA
