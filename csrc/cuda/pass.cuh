// What a pass of a layer reads and writes. The library that owns the arrays has done, or will do,
// what is a product over all steps: W_x x before, the gradients of weights and x behind.
//
// N rows in all: T * B of a dense batch, row b of step t at t * B + b; of a packed one, which has
// offsets, step t has rows offsets[t] up to offsets[t + 1], one for each of the first rows of the
// batch, and never more than the step before.
//
// G gates, D deltas: one a sum of the cell, G, and one more in a cell that takes W_x x and W_s S
// apart, of its last gate's W_s S. Gates lie in planes (N, planes, H).
#pragma once

#include "simd/one_lane.h"

namespace bptt::BPTT_ISA {

struct Rows {
  Index steps, batch;
  const Index* offsets;  // (T + 1), or null of a dense batch

  BPTT_INLINE Index at(Index t) const { return offsets ? offsets[t] : t * batch; }
  // How many rows step t has; none behind the last.
  BPTT_INLINE Index active(Index t) const {
    return t >= steps ? 0 : offsets ? offsets[t + 1] - offsets[t] : batch;
  }
  // How many steps row b of the batch has.
  BPTT_INLINE Index steps_of(Index b) const {
    Index low = 0, high = b < batch ? steps : 0;
    while (low < high) {
      const Index middle = (low + high) / 2;
      if (active(middle) > b) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Null: what there is not. A cell that carries c has state_c and c; one with gates has `saved`,
// which may be null all the same if nothing will be pulled back.
template <class T>
struct ForwardPass {
  Rows rows;
  Index hidden;
  const T*
      projected;     // (N, G, H) W_x x_t + b_ih + b_hh; without b_hh in a cell that has both apart
  const T* w_hh;     // (G, H, H)
  const T* b_hh;     // (G, H) of a cell that has both apart, or null
  const T* state;    // (B, H) S_{-1}
  const T* state_c;  // (B, H)
  T* y;              // (N, H) S_t
  T* c;              // (N, H)
  T* saved;          // (N, saved, H)
};

template <class T>
struct BackwardPass {
  Rows rows;
  Index hidden;
  const T* w_hh;     // (G, H, H)
  const T* state;    // (B, H)
  const T* state_c;  // (B, H)
  const T* y;        // (N, H)
  const T* c;        // (N, H)
  const T* saved;    // (N, saved, H)
  const T* dy;       // (N, H), or null
  const T* dc;       // (N, H), or null
  const T* dlast;    // (B, H) of each row's state after its last step, or null
  const T* dlast_c;  // (B, H), or null
  T* delta;          // (N, D, H) dL/d(sums): planes 0 .. G-1 those of W_x x
  T* dstate;         // (B, H) of S_{-1}, or null
  T* dstate_c;       // (B, H), or null
};

}  // namespace bptt::BPTT_ISA
