// The slopes of what gates pass through, each written in the value of the function.
#pragma once

#include "simd/vec.h"

namespace bptt::BPTT_ISA {

template <class T>
BPTT_INLINE Vec<T> slope_of_sigmoid(Vec<T> s) {
  return fma(-s, s, s);
}
template <class T>
BPTT_INLINE Vec<T> slope_of_tanh(Vec<T> s) {
  return fma(-s, s, broadcast(T(1)));
}

}  // namespace bptt::BPTT_ISA
