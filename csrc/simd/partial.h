// Vectors at the end of a row, which may be partial, and hints to fetch one.
#pragma once

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

// Any address will do.
template <class T>
BPTT_INLINE void prefetch_read(const T* p) {
  __builtin_prefetch(p);
}

template <class T>
BPTT_INLINE void prefetch_write(T* p) {
  __builtin_prefetch(p, 1);
}

}  // namespace bptt::BPTT_ISA
