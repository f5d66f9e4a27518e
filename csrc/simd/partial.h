// Vectors at the end of a row, which may be partial, and hints to fetch one.
#pragma once

#include <type_traits>

#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// Values [0, n) from p, zeros above; n may be anything.
template <class T>
BPTT_INLINE Vec<T> load_up_to(const T* p, Index n) {
  return n >= kLanes<T> ? load(p) : n > 0 ? load_first(p, n) : Vec<T>{};
}

// The first n lanes, or all of them if n is more; n > 0.
template <class T>
BPTT_INLINE void store_up_to(T* p, Vec<T> v, Index n) {
  n >= kLanes<T> ? store<T>(p, v) : store_first(p, v, n);
}

// To read, or if T is not const to write. Any address will do.
template <class T>
BPTT_INLINE void prefetch(T* p) {
  __builtin_prefetch(p, !std::is_const_v<T>);
}

// To read it later, from the second-level cache.
template <class T>
BPTT_INLINE void prefetch_nearby(const T* p) {
  __builtin_prefetch(p, 0, 2);
}

}  // namespace bptt::BPTT_ISA
