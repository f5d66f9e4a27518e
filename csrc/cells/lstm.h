// The long short-term memory (Hochreiter and Schmidhuber 1997, Neural Computation 9; with the
// forget gate of Gers, Schmidhuber and Cummins 2000, ibid. 12), without peepholes:
//
//     (a_i, a_f, a_g, a_o) = W_x x_t + b_ih + W_s S_{t-1} + b_hh
//     i = σ(a_i)    f = σ(a_f)    g = tanh(a_g)    o = σ(a_o)
//     c_t = f c_{t-1} + i g       S_t = o tanh(c_t)
//
// and back, with dc_t from outside, from the step after, and through S_t, dS_t o (1 - tanh²(c_t)):
//
//     da_i = dc_t g i (1 - i)     da_f = dc_t c_{t-1} f (1 - f)
//     da_g = dc_t i (1 - g²)      da_o = dS_t tanh(c_t) o (1 - o)      carried: f dc_t
//
// The gates are saved; tanh(c_t) is computed again.
#pragma once

#include "cells/slopes.h"
#include "simd/math.h"

namespace bptt::BPTT_ISA {

template <class T>
struct Lstm {
  static constexpr const char* kName = "lstm";
  static constexpr int kGates = 4, kStates = 2, kSaved = 4;
  static constexpr bool kApart = false;

  // a_t and c_{t-1} -> (i, f, g, o), c_t, S_t
  static BPTT_INLINE void forward(const Vec<T> (&a)[4], const Vec<T> (&)[4], Vec<T> previous,
                                  Vec<T> (&saved)[4], Vec<T>& c, Vec<T>& s) {
    const Vec<T> i = sigmoid<T>(a[0]), f = sigmoid<T>(a[1]);
    const Vec<T> g = tanh<T>(a[2]), o = sigmoid<T>(a[3]);
    saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o;
    c = fma(f, previous, i * g);
    s = o * tanh<T>(c);
  }

  // (i, f, g, o), c_{t-1}, c_t, dS_t, dc_t from outside -> (da_i, da_f, da_g, da_o), and what is
  // carried
  static BPTT_INLINE void backward(const Vec<T> (&saved)[4], Vec<T> previous, Vec<T> c, Vec<T> ds,
                                   Vec<T> dc_outside, Vec<T>& carry, Vec<T> (&delta)[4]) {
    const Vec<T> i = saved[0], f = saved[1], g = saved[2], o = saved[3];
    const Vec<T> tanh_c = tanh<T>(c);
    const Vec<T> dc = fma(ds * o, slope_of_tanh<T>(tanh_c), carry) + dc_outside;
    delta[0] = dc * g * slope_of_sigmoid<T>(i);
    delta[1] = dc * previous * slope_of_sigmoid<T>(f);
    delta[2] = dc * i * slope_of_tanh<T>(g);
    delta[3] = ds * tanh_c * slope_of_sigmoid<T>(o);
    carry = f * dc;
  }
};

}  // namespace bptt::BPTT_ISA
