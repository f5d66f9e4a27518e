// The backward pass with W_hh held through all steps:
//
//     dS_t = dy_t + W_hhᵀ da_{t+1}        da_t = cell's adjoint(dS_t)
//
// A block has the rows of W_hh of its own units: it turns their deltas into a share of dS_{t-1} of
// all units, and gives each to the block that owns the unit, which adds the shares by rank. That
// moves H values a row between blocks, where the deltas themselves are G H. Shares have two places,
// in turn, so that blocks meet once a step.
#pragma once

#include "cuda/tile.cuh"

namespace bptt::BPTT_ISA {

template <class Tile>
struct HoldBackward {
  using T = typename Tile::T;
  using Unit = typename Tile::Unit;
  using Exchange = typename Tile::Exchange;
  using Product = typename Tile::Backward;
  using Value = typename Product::Value;
  using In = Room<Product, Tile::kRows>;
  static constexpr int kUnits = Tile::kUnits, kRows = Tile::kRows, kGates = Tile::kGates;
  static constexpr int kColumns = Tile::kColumns, kPitch = Product::kPitch;
  static constexpr int kSumPitch = Product::kSumPitch;
  static_assert(Exchange::kPeers || kUnits == kColumns);
  // The (row, unit) of which a thread computes the step: thread, thread + kThreads, ...
  static constexpr int kMine = (kRows * kUnits + Tile::kThreads - 1) / Tile::kThreads;

  const BackwardPass<T>& p;
  Member me;
  T* const exchange;  // of the group; null but for a grid
  unsigned char* const kept = shared_memory();
  Value* const deltas = reinterpret_cast<Value*>(kept + Product::kKeptBytes);  // (kRows, kPitch)
  T* const sums = reinterpret_cast<T*>(deltas + In::kValues);  // (kParts, kRows, kSumPitch)
  T* const given = sums + In::kSums;                           // (2, blocks, kRows, kUnits)
  const Index first_unit = Index(me.rank) * kUnits, first_row = me.group * kRows;

  // What a thread's j-th place is; none of it if `row` is kRows.
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

  // Where block `from` leaves its share of a column for the block that owns it; turn is 0 or 1.
  BPTT_INLINE void give(int turn, int row, int column, T value) const {
    const Index at = Index(turn * me.blocks + me.rank) * kRows + row;
    if constexpr (Exchange::kThroughL2) {
      exchange[at * kColumns + column] = value;
    } else {
      Exchange::store(given + at * kUnits + column % kUnits, column / kUnits, value);
    }
  }
  // W_hhᵀ da of one's own unit: the shares of all blocks in their order.
  BPTT_INLINE T taken(int turn, Place place) const {
    T sum = T(0);
    BPTT_UNROLL_BY_4 for (int from = 0; from < me.blocks; ++from) {
      const Index at = Index(turn * me.blocks + from) * kRows + place.row;
      if constexpr (Exchange::kThroughL2) {
        sum += load_l2(exchange + at * kColumns + first_unit + place.unit);
      } else {
        sum += given[at * kUnits + place.unit];
      }
    }
    return sum;
  }

  // The deltas of one's own units; zeros of rows that have no such step, and of no units.
  BPTT_INLINE void step(Index t, Index active, Index later, T (&carry)[kMine]) const {
    BPTT_UNROLL for (int j = 0; j < kMine; ++j) {
      const Place at = place(j);
      if (at.row >= kRows) continue;
      T delta[Unit::kDeltas] = {};
      if (owns(at, active)) {
        const Index b = first_row + at.row, unit = first_unit + at.unit;
        const T ds =
            b < later ? taken(static_cast<int>(t % 2), at) : Unit::enter(p, b, unit, carry[j]);
        const Index before = t == 0 ? -1 : p.rows.at(t - 1) + b;
        Unit::backward(p, p.rows.at(t) + b, before, b, unit, ds, carry[j], delta);
      }
      BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
        deltas[at.row * kPitch + g * kUnits + at.unit] =
            Product::value(delta[Unit::recurrent_delta(g)]);
      }
    }
  }

  // The block's share of dS_{t-1}, of all units.
  BPTT_INLINE void give_all(int turn) const {
    for (int i = thread_index(); i < kRows * kColumns; i += Tile::kThreads) {
      const int row = i / kColumns, column = i % kColumns;
      if (column >= p.hidden) continue;
      T sum = T(0);
      BPTT_UNROLL for (int q = 0; q < Product::kParts; ++q) {
        sum += sums[(q * kRows + row) * kSumPitch + column];
      }
      give(turn, row, column, sum);
    }
  }

  BPTT_INLINE void leave(T (&carry)[kMine]) const {
    BPTT_UNROLL for (int j = 0; j < kMine; ++j) {
      const Place at = place(j);
      if (!owns(at, p.rows.batch)) continue;
      const Index b = first_row + at.row, unit = first_unit + at.unit;
      const bool stepped = b < p.rows.active(0);
      const T ds = stepped ? taken(1, at) : Unit::enter(p, b, unit, carry[j]);
      Unit::leave(p, b, unit, ds, carry[j]);
    }
  }

  BPTT_INLINE void run() {
    Product product;
    T carry[kMine] = {};
    product.load(p.w_hh, p.hidden, first_unit, kept);
    // Before anything is stored to them, all blocks of a cluster have to be there.
    if constexpr (Exchange::kPeers && !Exchange::kThroughL2) Exchange::meet(me);
    Index later = 0;
    for (Index t = p.rows.steps_of(first_row) - 1; t >= 0; --t) {
      const Index active = p.rows.active(t);
      step(t, active, later, carry);
      block_barrier();
      product.multiply(deltas, sums);
      block_barrier();
      give_all(static_cast<int>((t + 1) % 2));
      if constexpr (Exchange::kPeers) Exchange::meet(me);  // else a thread takes what it gave
      later = active;
    }
    leave(carry);
  }
};

// `exchange` has the values of backward_exchange<Tile> for each group of the launch.
template <class Tile>
BPTT_INLINE void hold_backward(const BackwardPass<typename Tile::T>& p, int blocks,
                               unsigned* counters, typename Tile::T* exchange,
                               Index first_group = 0) {
  const Member me = member_of(blocks, counters, first_group);
  const Index place = me.group - first_group;
  HoldBackward<Tile>{p, me, exchange + place * backward_exchange<Tile>(blocks)}.run();
}

}  // namespace bptt::BPTT_ISA
