// Elman cells (Elman 1990, Cognitive Science 14):
//
//     a_t = W_x x_t + b_ih + W_s S_{t-1} + b_hh        S_t = f(a_t)
//     dS_t = dL/dS_t + W_sᵀ da_{t+1}                   da_t = f'(a_t) dS_t
//
// The sums are products of matrices, done elsewhere; a policy holds the rest: f, and the chain rule
// through it, written in S = f(a) so that nothing but S is saved.
#pragma once

#include "simd/math.h"

namespace bptt::BPTT_ISA {

template <class T>
struct Linear {
  static constexpr const char* kName = "linear";
  static constexpr bool kIdentity = true;
  static BPTT_INLINE Vec<T> activate(Vec<T> a) { return a; }
  static BPTT_INLINE Vec<T> chain(Vec<T> ds, Vec<T>) { return ds; }
};

template <class T>
struct Tanh {
  static constexpr const char* kName = "tanh";
  static constexpr bool kIdentity = false;
  static BPTT_INLINE Vec<T> activate(Vec<T> a) { return tanh<T>(a); }
  static BPTT_INLINE Vec<T> chain(Vec<T> ds, Vec<T> s) { return ds * fma(-s, s, broadcast(T(1))); }
};

template <class T>
struct Relu {
  static constexpr const char* kName = "relu";
  static constexpr bool kIdentity = false;
  // NaN stays NaN, and + 0 makes -0 into 0, for which max may answer either.
  static BPTT_INLINE Vec<T> activate(Vec<T> a) { return max(Vec<T>{}, a) + T(0); }
  static BPTT_INLINE Vec<T> chain(Vec<T> ds, Vec<T> s) { return s <= T(0) ? Vec<T>{} : ds; }
};

}  // namespace bptt::BPTT_ISA
