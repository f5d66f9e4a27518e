// The gated recurrent unit (Cho et al. 2014, EMNLP, arXiv 1406.1078), with the reset gate behind
// the recurrent product, as cuDNN and PyTorch have it:
//
//     (i_r, i_z, i_n) = W_x x_t + b_ih      (h_r, h_z, h_n) = W_s S_{t-1} + b_hh
//     r = σ(i_r + h_r)    z = σ(i_z + h_z)    n = tanh(i_n + r h_n)
//     S_t = (1 - z) n + z S_{t-1}
//
// and back, with dS_t what comes from outside, through W_s and, carried, along z of the step after:
//
//     da_n = dS_t (1 - z) (1 - n²)          da_z = dS_t (S_{t-1} - n) z (1 - z)
//     da_r = da_n h_n r (1 - r)             carried: z dS_t
//
// The last gate has two deltas: da_n for W_x, r da_n for W_s. r, z, n and h_n are saved.
#pragma once

#include "cells/gates.h"
#include "simd/math.h"

namespace bptt::BPTT_ISA {

template <class T>
void gru_forward(const GatesForward<T>& p) {
  for_each_unit_vector(p, [&](const ForwardUnits<T>& at) {
    const Vec<T> r = sigmoid<T>(at.sum(p.sums, 3, 0) + at.sum(p.recurrent, 3, 0));
    const Vec<T> z = sigmoid<T>(at.sum(p.sums, 3, 1) + at.sum(p.recurrent, 3, 1));
    const Vec<T> h_n = at.sum(p.recurrent, 3, 2);
    const Vec<T> n = tanh<T>(fma(r, h_n, at.sum(p.sums, 3, 2)));
    at.save(4, 0, r), at.save(4, 1, z), at.save(4, 2, n), at.save(4, 3, h_n);
    at.store(p.y, fma(z, at.load(p.previous), (broadcast(T(1)) - z) * n));
  });
}

template <class T>
void gru_backward(const GatesBackward<T>& p) {
  const T* const next_saved = p.next_saved ? p.next_saved : p.saved;
  for_each_unit_vector(p, [&](const BackwardUnits<T>& at) {
    at.fetch(next_saved, 4);
    const Vec<T> r = at.saved(4, 0), z = at.saved(4, 1), n = at.saved(4, 2), h_n = at.saved(4, 3);
    const Vec<T> ds = at.ds() + at.carry();
    const Vec<T> da_n = ds * (broadcast(T(1)) - z) * slope_of_tanh<T>(n);
    at.delta(0, da_n * h_n * slope_of_sigmoid<T>(r));
    at.delta(1, ds * (at.load(p.previous) - n) * slope_of_sigmoid<T>(z));
    at.delta(2, da_n);
    at.delta(3, r * da_n);
    at.carry(z * ds);
  });
}

template <class T>
constexpr Cell<T> gru_cell() {
  return {"gru", {3, 1, 4, true}, nullptr, nullptr, gru_forward<T>, gru_backward<T>};
}

}  // namespace bptt::BPTT_ISA
