// One step of a pass whose weights no chip can hold: what acts on each unit, beside a product that
// the library that owns the arrays makes of every step. Any grid of threads will do.
#pragma once

#include "cuda/unit.cuh"

namespace bptt::BPTT_ISA {

// Calls f(b, unit) for every unit of the first rows of the batch.
template <class F>
BPTT_INLINE void for_each_unit(Index rows, Index hidden, F&& f) {
  const Index threads = Index(blocks_of_grid()) * threads_of_block();
  Index i = Index(block_index()) * threads_of_block() + thread_index();
  for (; i < rows * hidden; i += threads) f(i / hidden, i % hidden);
}

// From W_s S_{t-1} of the rows of step t, `recurrent` (rows, G, H).
template <class T, class Cell>
BPTT_INLINE void step_forward(const ForwardPass<T>& p, Index t, const T* recurrent) {
  using Unit = Unit<T, Cell>;
  for_each_unit(p.rows.active(t), p.hidden, [&](Index b, Index unit) {
    const Index row = p.rows.at(t) + b;
    T sums[Unit::kGates], from_state[Unit::kGates];
    Unit::load(p, row, unit, sums);
    BPTT_UNROLL for (int g = 0; g < Unit::kGates; ++g) {
      from_state[g] = recurrent[(b * Unit::kGates + g) * p.hidden + unit];
    }
    const T* const initial = Unit::kHasC ? p.state_c : p.state;
    const T* const kept = Unit::kHasC ? p.c : p.y;
    T carried =
        t == 0 ? initial[b * p.hidden + unit] : kept[(p.rows.at(t - 1) + b) * p.hidden + unit];
    Unit::forward(p, row, unit, sums, from_state, carried);
  });
}

// From W_sᵀ da_{t+1} of the rows of step t + 1, `recurrent` (rows, H), and what these rows carry,
// `carry` (B, H), which it leaves for the step before. Of t = -1, what the initial state gets.
template <class T, class Cell>
BPTT_INLINE void step_backward(const BackwardPass<T>& p, Index t, const T* recurrent, T* carry) {
  using Unit = Unit<T, Cell>;
  const Index later = p.rows.active(t + 1);
  for_each_unit(t < 0 ? p.rows.batch : p.rows.active(t), p.hidden, [&](Index b, Index unit) {
    const Index i = b * p.hidden + unit;
    T carried, ds;
    if (b < later) {
      ds = recurrent[i], carried = carry[i];
    } else {
      ds = Unit::enter(p, b, unit, carried);
    }
    if (t < 0) {
      Unit::leave(p, b, unit, ds, carried);
    } else {
      T delta[Unit::kDeltas];
      const Index before = t == 0 ? -1 : p.rows.at(t - 1) + b;
      Unit::backward(p, p.rows.at(t) + b, before, b, unit, ds, carried, delta);
      carry[i] = carried;
    }
  });
}

}  // namespace bptt::BPTT_ISA
