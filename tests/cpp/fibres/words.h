// The words of csrc/cuda/words.cuh on a CPU: every thread of a launch is a fibre (fibres.cpp).
//
// A word that orders memory knows where it stands, so that a test can take each away in turn.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda/format.cuh"
#include "fibres/fibres.h"

namespace bptt::BPTT_ISA {

inline int thread_index() { return fibres::thread_index(); }
inline int threads_of_block() { return fibres::threads_of_block(); }
inline int block_index() { return fibres::block_index(); }
inline int blocks_of_grid() { return fibres::blocks_of_grid(); }
inline unsigned char* shared_memory() { return fibres::shared_memory(); }

inline void block_barrier(int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  fibres::reach_block_barrier({"block_barrier", file, line});
}
inline void cluster_barrier(int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  fibres::reach_cluster_barrier({"cluster_barrier", file, line});
}

template <class T>
inline void store_to_peer(T* mine, int rank, T value) {
  const auto offset = reinterpret_cast<unsigned char*>(mine) - fibres::shared_memory();
  *reinterpret_cast<T*>(fibres::shared_memory_of_peer(rank) + offset) = value;
}

inline void signal(unsigned* counter, int line = __builtin_LINE(),
                   const char* file = __builtin_FILE()) {
  if (fibres::is_there({"signal's release", file, line})) {
    __atomic_fetch_add(counter, 1u, __ATOMIC_RELEASE);
  } else {
    __atomic_fetch_add(counter, 1u, __ATOMIC_RELAXED);
  }
}
inline void await(const unsigned* counter, unsigned value, int line = __builtin_LINE(),
                  const char* file = __builtin_FILE()) {
  if (!fibres::is_there({"await", file, line})) return;
  while (static_cast<int>(__atomic_load_n(counter, __ATOMIC_ACQUIRE) - value) < 0) {
    fibres::wait_for(counter, value);
  }
}

template <class T>
inline T load_l2(const T* p) {
  return *p;
}

inline unsigned load_word(const void* p) {
  unsigned word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

// The nearest multiple of 2^-24, of what is below 2^-14, and else with 11 bits: of two that are as
// near, the even one.
inline unsigned short half_of(float v) {
  const unsigned bits = __builtin_bit_cast(unsigned, v), magnitude = bits & 0x7fffffff;
  unsigned half;
  if (magnitude > 0x7f800000) {
    half = 0x7fff;
  } else if (magnitude < 0x38800000) {
    half = static_cast<unsigned>(std::nearbyint(std::fabs(v) * 0x1p24f));
  } else {
    half = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
    half = half < 0x7c00 ? half : 0x7c00;
  }
  return static_cast<unsigned short>(half | (bits >> 16 & 0x8000));
}

template <class Format>
inline typename Format::Value rounded(float v) {
  const unsigned bits = __builtin_bit_cast(unsigned, v);
  const bool is_nan = v != v;
  if constexpr (is_same<Format, Bf16>) {
    const unsigned near = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return static_cast<unsigned short>(is_nan ? 0x7fff : near);
  } else if constexpr (is_same<Format, F16>) {
    return half_of(v);
  } else {
    return is_nan ? 0x7fffe000 : (bits + 0x1000) & 0xffffe000;
  }
}

// A value of a register, which has one or two. Of tf32, lower bits than it has do not count.
template <class Format>
inline float value_of(unsigned word, int i) {
  [[maybe_unused]] const unsigned half = word >> 16 * i & 0xffff;
  if constexpr (is_same<Format, Bf16>) {
    return __builtin_bit_cast(float, half << 16);
  } else if constexpr (is_same<Format, F16>) {
    const unsigned exponent = half >> 10 & 31, fraction = half & 0x3ff;
    float v = std::ldexp(static_cast<float>(exponent ? fraction + 0x400 : fraction),
                         static_cast<int>(exponent ? exponent : 1) - 25);
    if (exponent == 31) v = fraction ? NAN : HUGE_VALF;
    return half & 0x8000 ? -v : v;
  } else {
    return __builtin_bit_cast(float, word & 0xffffe000);
  }
}

// Nothing: fibres do not part. It is no barrier here, so no kernel can rely on one.
inline void rejoin_warp() {}

// In the order of columns. A chip's order, and how it rounds within, are its own.
template <class Format>
inline void mma(float (&sum)[4], const unsigned (&left)[4], const unsigned (&right)[2]) {
  fibres::LaneOperands mine = {};
  for (int i = 0; i < Format::kPacked; ++i) {
    for (int r = 0; r < 4; ++r) mine.left[r][i] = value_of<Format>(left[r], i);
    for (int r = 0; r < 2; ++r) mine.right[r][i] = value_of<Format>(right[r], i);
  }
  const fibres::LaneOperands* const lanes = fibres::operands_of_warp(mine).lanes;
  const int lane = thread_index() % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
    for (int half = 0; half < 2; ++half) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        const auto& a = lanes[row % 8 * 4 + quarter].left[row / 8 + 2 * half];
        const auto& b = lanes[column * 4 + quarter].right[half];
        for (int k = 0; k < Format::kPacked; ++k) sum[i] += a[k] * b[k];
      }
    }
  }
}

}  // namespace bptt::BPTT_ISA
