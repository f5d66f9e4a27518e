// The backward pass with W_hh in registers through all steps:
//
//     dS_t = dy_t + W_hhᵀ da_{t+1}        da_t = cell's adjoint(dS_t)
//
// A block has the rows of W_hh of its own units: it turns their deltas into a share of dS_{t-1} of
// all units, and gives each to the block that owns the unit, which adds the shares by rank. That
// moves H values a row between blocks, where the deltas themselves are G H. Shares have two places,
// in turn, so that blocks meet once a step.
#pragma once

#include "cuda/exchange.cuh"
#include "cuda/tile.cuh"

namespace bptt::BPTT_ISA {

template <class Tile>
struct HoldBackward {
  using T = typename Tile::T;
  using Unit = typename Tile::Unit;
  using Exchange = typename Tile::Exchange;
  static constexpr int kUnits = Tile::kUnits, kRows = Tile::kRows, kGates = Tile::kGates;
  static constexpr int kParts = Tile::kBackParts, kDepth = Tile::kBackDepth;
  static constexpr int kColumns = Tile::kColumns, kSlice = Tile::kSlice, kQuads = Tile::kQuads;
  static_assert(Exchange::kPeers || kUnits == kColumns);
  // The (row, unit) of which a thread computes the step: thread, thread + kThreads, ...
  static constexpr int kMine = (kRows * kUnits + Tile::kThreads - 1) / Tile::kThreads;

  const BackwardPass<T>& p;
  Member me;
  T* const exchange;                                        // of the group; null but for a grid
  T* const deltas = reinterpret_cast<T*>(shared_memory());  // (kRows, kGates, kUnits)
  T* const sums = deltas + Tile::kDeltas;                   // (kParts, kRows, kColumns)
  T* const given = sums + Tile::kBackSums;                  // (2, blocks, kRows, kUnits)
  const int quad = thread_index() % kQuads, part = thread_index() / kQuads;
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

  BPTT_INLINE void load_weights(T (&w)[kDepth][4]) const {
    BPTT_UNROLL for (int r = 0; r < kDepth; ++r) {
      BPTT_UNROLL for (int j = 0; j < 4; ++j) {
        const int i = part * kDepth + r;
        const Index unit = first_unit + i % kUnits, column = quad * 4 + j;
        const bool exists = unit < p.hidden && column < p.hidden;
        w[r][j] = exists ? p.w_hh[(i / kUnits * p.hidden + unit) * p.hidden + column] : T(0);
      }
    }
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
        deltas[at.row * kSlice + g * kUnits + at.unit] = delta[Unit::recurrent_delta(g)];
      }
    }
  }

  // This thread's share of W_hhᵀ da, of all rows.
  BPTT_INLINE void multiply(const T (&w)[kDepth][4]) const {
    T acc[kRows][4] = {};
    BPTT_UNROLL for (int r = 0; r < kDepth; r += 4) {
      BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
        const T* const from = deltas + row * kSlice + part * kDepth + r;
        const Four<T> d = *reinterpret_cast<const Four<T>*>(from);
        BPTT_UNROLL for (int q = 0; q < 4; ++q) {
          BPTT_UNROLL for (int j = 0; j < 4; ++j) {
            acc[row][j] = fma(w[r + q][j], d.v[q], acc[row][j]);
          }
        }
      }
    }
    BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
      BPTT_UNROLL for (int j = 0; j < 4; ++j) {
        sums[(part * kRows + row) * kColumns + quad * 4 + j] = acc[row][j];
      }
    }
  }

  // The block's share of dS_{t-1}, of all units.
  BPTT_INLINE void give_all(int turn) const {
    for (int i = thread_index(); i < kRows * kColumns; i += Tile::kThreads) {
      const int row = i / kColumns, column = i % kColumns;
      if (column >= p.hidden) continue;
      T sum = T(0);
      BPTT_UNROLL for (int q = 0; q < kParts; ++q) {
        sum += sums[(q * kRows + row) * kColumns + column];
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
    T w[kDepth][4], carry[kMine] = {};
    load_weights(w);
    // Before anything is stored to them, all blocks of a cluster have to be there.
    if constexpr (Exchange::kPeers && !Exchange::kThroughL2) Exchange::meet(me);
    Index later = 0;
    for (Index t = p.rows.steps_of(first_row) - 1; t >= 0; --t) {
      const Index active = p.rows.active(t);
      step(t, active, later, carry);
      block_barrier();
      multiply(w);
      block_barrier();
      give_all(static_cast<int>((t + 1) % 2));
      if constexpr (Exchange::kPeers) Exchange::meet(me);  // else a thread takes what it gave
      later = active;
    }
    leave(carry);
  }
};

// `exchange` has the values of Tile::backward_exchange for each group of the launch.
template <class Tile>
BPTT_INLINE void hold_backward(const BackwardPass<typename Tile::T>& p, int blocks,
                               unsigned* counters, typename Tile::T* exchange,
                               Index first_group = 0) {
  const Member me = member_of(blocks, counters, first_group);
  const Index place = me.group - first_group;
  HoldBackward<Tile>{p, me, exchange + place * Tile::backward_exchange(blocks)}.run();
}

}  // namespace bptt::BPTT_ISA
