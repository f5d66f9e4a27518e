// Elman cells (Elman 1990, Cognitive Science 14):
//
//     a_t = W_x x_t + b_ih + W_s S_{t-1} + b_hh        S_t = f(a_t)
//     dS_t = dL/dS_t + W_sᵀ da_{t+1}                   da_t = f'(a_t) dS_t
//
// The sums are products of matrices, done elsewhere; a policy holds the rest: f, and the chain rule
// through it, written in S = f(a) so that nothing but S is saved.
#pragma once

#include "cells/pointwise.h"
#include "contract/kernels.h"
#include "simd/math.h"
#include "simd/vec.h"

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

// a_t -> S_t
template <class T, class Cell>
void elman_forward(const Pointwise<T>& p) {
  for_each_vector(p, [](T* value, const T*, Index exist) {
    if constexpr (Cell::kIdentity) return;
    store_up_to<T>(value, Cell::activate(load_up_to(value, exist)), exist);
  });
}

// dS_t -> da_t
template <class T, class Cell>
void elman_backward(const Pointwise<T>& p) {
  for_each_vector(p, [](T* value, const T* y, Index exist) {
    if constexpr (Cell::kIdentity) return;
    store_up_to<T>(value, Cell::chain(load_up_to(value, exist), load_up_to(y, exist)), exist);
  });
}

template <class T, class Cell>
constexpr bptt::Cell<T> elman_cell() {
  return {Cell::kName, kElmanShape, elman_forward<T, Cell>, elman_backward<T, Cell>,
          nullptr,     nullptr};
}

}  // namespace bptt::BPTT_ISA
