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

#include "cells/slopes.h"
#include "simd/math.h"

namespace bptt::BPTT_ISA {

template <class T>
struct Gru {
  static constexpr const char* kName = "gru";
  static constexpr int kGates = 3, kStates = 1, kSaved = 4;
  static constexpr bool kApart = true;

  // W_x x_t + b_ih, W_s S_{t-1} + b_hh and S_{t-1} -> (r, z, n, h_n), S_t
  static BPTT_INLINE void forward(const Vec<T> (&i)[3], const Vec<T> (&h)[3], Vec<T> previous,
                                  Vec<T> (&saved)[4], Vec<T>&, Vec<T>& s) {
    const Vec<T> r = sigmoid<T>(i[0] + h[0]), z = sigmoid<T>(i[1] + h[1]);
    const Vec<T> n = tanh<T>(fma(r, h[2], i[2]));
    saved[0] = r, saved[1] = z, saved[2] = n, saved[3] = h[2];
    s = fma(z, previous, (broadcast(T(1)) - z) * n);
  }

  // (r, z, n, h_n), S_{t-1}, dS_t -> (da_r, da_z, da_n, r da_n), and what is carried
  static BPTT_INLINE void backward(const Vec<T> (&saved)[4], Vec<T> previous, Vec<T>, Vec<T> ds,
                                   Vec<T>, Vec<T>& carry, Vec<T> (&delta)[4]) {
    const Vec<T> r = saved[0], z = saved[1], n = saved[2], h_n = saved[3];
    ds += carry;
    const Vec<T> da_n = ds * (broadcast(T(1)) - z) * slope_of_tanh<T>(n);
    delta[0] = da_n * h_n * slope_of_sigmoid<T>(r);
    delta[1] = ds * (previous - n) * slope_of_sigmoid<T>(z);
    delta[2] = da_n;
    delta[3] = r * da_n;
    carry = z * ds;
  }
};

}  // namespace bptt::BPTT_ISA
