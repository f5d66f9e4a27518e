// The forward pass with W_hh held through all steps:
//
//     a_t = projected_t + W_hh S_{t-1}        (S_t, c_t) = cell(a_t, c_{t-1})
//
// Every block keeps all of S_{t-1} of its rows in shared memory, twice: step t reads one copy and
// writes the other, so that blocks meet once a step.
#pragma once

#include "cuda/tile.cuh"

namespace bptt::BPTT_ISA {

template <class Tile>
struct HoldForward {
  using T = typename Tile::T;
  using Unit = typename Tile::Unit;
  using Exchange = typename Tile::Exchange;
  using Product = typename Tile::Forward;
  using Value = typename Product::Value;
  using In = Room<Product, Tile::kRows>;
  static constexpr int kUnits = Tile::kUnits, kRows = Tile::kRows, kGates = Tile::kGates;
  static constexpr int kPitch = Product::kPitch, kSumPitch = Product::kSumPitch;
  // The (row, unit) of which a thread computes the step: thread, thread + kThreads, ...
  static constexpr int kMine = (kRows * kUnits + Tile::kThreads - 1) / Tile::kThreads;

  const ForwardPass<T>& p;
  Member me;
  unsigned char* const kept = shared_memory();
  Value* const states = reinterpret_cast<Value*>(kept + Product::kKeptBytes);  // (2, kRows, kPitch)
  T* const sums = reinterpret_cast<T*>(states + 2 * In::kValues);  // (kParts, kRows, kSumPitch)
  const Index first_unit = Index(me.rank) * kUnits, first_row = me.group * kRows;

  // What a thread's j-th place is; none of it if `row` is kRows or more.
  struct Place {
    int row, unit;
  };
  BPTT_INLINE Place place(int j) const {
    const int i = thread_index() + j * Tile::kThreads;
    return {i / kUnits, i % kUnits};
  }
  BPTT_INLINE bool owns(Place at, Index active) const {
    return at.row < kRows && first_row + at.row < active && first_unit + at.unit < p.hidden;
  }

  // S_{-1} to the first copy; zeros where there are no units, and to the rest of both.
  BPTT_INLINE void load_initial() const {
    for (int i = thread_index(); i < 2 * In::kValues; i += Tile::kThreads) {
      const Index b = first_row + i / kPitch, column = i % kPitch;
      const bool exists = i < In::kValues && b < p.rows.batch && column < p.hidden;
      states[i] = Product::value(exists ? p.state[b * p.hidden + column] : T(0));
    }
  }

  // The unit's step in one row: the shares summed in their order.
  BPTT_INLINE void step(Place at, Index row, T (&projected)[kGates], T& carried,
                        Value* after) const {
    T recurrent[kGates] = {};
    BPTT_UNROLL for (int q = 0; q < Product::kParts; ++q) {
      BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
        recurrent[g] += sums[(q * kRows + at.row) * kSumPitch + g * kUnits + at.unit];
      }
    }
    const Index unit = first_unit + at.unit;
    const T s = Unit::forward(p, row, unit, projected, recurrent, carried);
    if constexpr (!Exchange::kThroughL2) {
      Value* const mine = after + at.row * kPitch + unit;
      const Value value = Product::value(s);
      for (int rank = 0; rank < me.blocks; ++rank) Exchange::store(mine, rank, value);
    }
  }

  // S_t of all units, which the blocks of the group have written to y.
  BPTT_INLINE void load_states(Index t, Index active, Value* after) const {
    for (int i = thread_index(); i < In::kValues; i += Tile::kThreads) {
      const Index b = first_row + i / kPitch, column = i % kPitch;
      if (b < active && column < p.hidden) {
        after[i] = Product::value(load_l2(p.y + (p.rows.at(t) + b) * p.hidden + column));
      }
    }
  }

  BPTT_INLINE void run() {
    Product product;
    T carried[kMine], projected[kMine][kGates] = {};
    product.load(p.w_hh, p.hidden, first_unit, kept);
    load_initial();
    const T* const initial = Unit::kHasC ? p.state_c : p.state;
    BPTT_UNROLL for (int j = 0; j < kMine; ++j) {
      const Place at = place(j);
      const Index i = (first_row + at.row) * p.hidden + first_unit + at.unit;
      carried[j] = owns(at, p.rows.batch) ? initial[i] : T(0);
    }
    if constexpr (Exchange::kThroughL2) {
      block_barrier();
    } else {
      Exchange::meet(me);
    }
    for (Index t = 0, active; (active = p.rows.active(t)) > first_row; ++t) {
      const Value* const before = states + t % 2 * In::kValues;
      Value* const after = states + (t + 1) % 2 * In::kValues;
      const Index first = p.rows.at(t) + first_row;
      BPTT_UNROLL for (int j = 0; j < kMine; ++j) {  // asked for before they are needed
        const Place at = place(j);
        if (owns(at, active)) Unit::load(p, first + at.row, first_unit + at.unit, projected[j]);
      }
      product.multiply(before, sums);
      block_barrier();
      BPTT_UNROLL for (int j = 0; j < kMine; ++j) {
        const Place at = place(j);
        if (owns(at, active)) step(at, first + at.row, projected[j], carried[j], after);
      }
      Exchange::meet(me);
      if constexpr (Exchange::kThroughL2) {
        load_states(t, active, after);
        block_barrier();
      }
    }
  }
};

// `blocks` of a group, and for a grid a counter of each group, zero. A launch may run some of the
// groups, from one on.
template <class Tile>
BPTT_INLINE void hold_forward(const ForwardPass<typename Tile::T>& p, int blocks,
                              unsigned* counters, Index first_group = 0) {
  HoldForward<Tile>{p, member_of(blocks, counters, first_group)}.run();
}

}  // namespace bptt::BPTT_ISA
