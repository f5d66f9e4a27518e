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

#include "cells/gates.h"
#include "simd/math.h"

namespace bptt::BPTT_ISA {

template <class T>
void lstm_forward(const GatesForward<T>& p) {
  for_each_unit_vector(p, [&](const ForwardUnits<T>& at) {
    const Vec<T> i = sigmoid<T>(at.sum(p.sums, 4, 0)), f = sigmoid<T>(at.sum(p.sums, 4, 1));
    const Vec<T> g = tanh<T>(at.sum(p.sums, 4, 2)), o = sigmoid<T>(at.sum(p.sums, 4, 3));
    const Vec<T> c = fma(f, at.load(p.previous), i * g);
    at.save(4, 0, i), at.save(4, 1, f), at.save(4, 2, g), at.save(4, 3, o);
    at.store(p.c, c);
    at.store(p.y, o * tanh<T>(c));
  });
}

template <class T>
void lstm_backward(const GatesBackward<T>& p) {
  const T* const next_saved = p.next_saved ? p.next_saved : p.saved;
  for_each_unit_vector(p, [&](const BackwardUnits<T>& at) {
    at.fetch(next_saved, 4);
    const Vec<T> i = at.saved(4, 0), f = at.saved(4, 1), g = at.saved(4, 2), o = at.saved(4, 3);
    const Vec<T> tanh_c = tanh<T>(at.load(p.c)), ds = at.ds();
    Vec<T> dc = fma(ds * o, slope_of_tanh<T>(tanh_c), at.carry());
    if (p.dc) dc += at.load(p.dc);
    at.delta(0, dc * g * slope_of_sigmoid<T>(i));
    at.delta(1, dc * at.load(p.previous) * slope_of_sigmoid<T>(f));
    at.delta(2, dc * i * slope_of_tanh<T>(g));
    at.delta(3, ds * tanh_c * slope_of_sigmoid<T>(o));
    at.carry(f * dc);
  });
}

template <class T>
constexpr Cell<T> lstm_cell() {
  return {"lstm", {4, 2, 4, false}, nullptr, nullptr, lstm_forward<T>, lstm_backward<T>};
}

}  // namespace bptt::BPTT_ISA
