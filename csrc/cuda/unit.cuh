// A unit's step: the cell's equations between what a pass has in memory.
#pragma once

#include "cells/elman.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cuda/pass.cuh"

namespace bptt::BPTT_ISA {

// An Elman cell with the counts and functions of one with gates.
template <class T, class Policy>
struct Elman {
  static constexpr int kGates = 1, kStates = 1, kSaved = 0;
  static constexpr bool kApart = false;

  static BPTT_INLINE void forward(const T (&a)[1], const T (&)[1], T, T (&)[1], T&, T& s) {
    s = Policy::activate(a[0]);
  }
  static BPTT_INLINE void backward(const T (&)[1], T, T s, T ds, T, T&, T (&delta)[1]) {
    delta[0] = Policy::chain(ds, s);
  }
};

// `carried` is what goes from step to step beside the products: c, or in a cell without it S.
template <class T, class Cell>
struct Unit {
  static constexpr int kGates = Cell::kGates, kSaved = Cell::kSaved;
  static constexpr int kDeltas = kGates + (Cell::kApart ? 1 : 0);
  static constexpr bool kHasC = Cell::kStates == 2;
  // The plane of deltas that belongs to gate g of W_s.
  static BPTT_INLINE constexpr int recurrent_delta(int g) {
    return Cell::kApart && g == kGates - 1 ? kGates : g;
  }

  // The unit's part of `projected` in a row of all.
  static BPTT_INLINE void load(const ForwardPass<T>& p, Index row, Index unit, T (&sums)[kGates]) {
    BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
      sums[g] = p.projected[(row * kGates + g) * p.hidden + unit];
    }
  }

  // From both sums to S_t, which it returns, and all that is kept of the step.
  static BPTT_INLINE T forward(const ForwardPass<T>& p, Index row, Index unit, T (&sums)[kGates],
                               T (&recurrent)[kGates], T& carried) {
    BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
      if constexpr (Cell::kApart) {
        if (p.b_hh) recurrent[g] += p.b_hh[g * p.hidden + unit];
      } else {
        sums[g] += recurrent[g];
      }
    }
    T saved[kSaved ? kSaved : 1], c = T(0), s;
    Cell::forward(sums, recurrent, carried, saved, c, s);
    if (p.saved) {
      BPTT_UNROLL for (int plane = 0; plane < kSaved; ++plane) {
        p.saved[(row * kSaved + plane) * p.hidden + unit] = saved[plane];
      }
    }
    if constexpr (kHasC) p.c[row * p.hidden + unit] = c;
    p.y[row * p.hidden + unit] = s;
    carried = kHasC ? c : s;
    return s;
  }

  // Its adjoint: from dS_t, without what is carried, to the deltas. `before` is the row of the step
  // before, -1 at the first.
  static BPTT_INLINE void backward(const BackwardPass<T>& p, Index row, Index before, Index b,
                                   Index unit, T ds, T& carry, T (&delta)[kDeltas]) {
    const T* const kept = kHasC ? p.c : p.y;
    const T* const initial = kHasC ? p.state_c : p.state;
    const T previous = before < 0 ? initial[b * p.hidden + unit] : kept[before * p.hidden + unit];
    T saved[kSaved ? kSaved : 1];
    BPTT_UNROLL for (int plane = 0; plane < kSaved; ++plane) {
      saved[plane] = p.saved[(row * kSaved + plane) * p.hidden + unit];
    }
    const T dc = kHasC && p.dc ? p.dc[row * p.hidden + unit] : T(-0.0);
    if (p.dy) ds += p.dy[row * p.hidden + unit];
    Cell::backward(saved, previous, kept[row * p.hidden + unit], ds, dc, carry, delta);
    BPTT_UNROLL for (int plane = 0; plane < kDeltas; ++plane) {
      p.delta[(row * kDeltas + plane) * p.hidden + unit] = delta[plane];
    }
  }

  // What enters a row at its last step: dS_t, and what is carried.
  static BPTT_INLINE T enter(const BackwardPass<T>& p, Index b, Index unit, T& carry) {
    carry = kHasC && p.dlast_c ? p.dlast_c[b * p.hidden + unit] : T(0);
    return p.dlast ? p.dlast[b * p.hidden + unit] : T(0);
  }
  // And what leaves it at its first: `ds` without what is carried.
  static BPTT_INLINE void leave(const BackwardPass<T>& p, Index b, Index unit, T ds, T carry) {
    if (p.dstate) p.dstate[b * p.hidden + unit] = kHasC ? ds : ds + carry;
    if (kHasC && p.dstate_c) p.dstate_c[b * p.hidden + unit] = carry;
  }
};

}  // namespace bptt::BPTT_ISA
