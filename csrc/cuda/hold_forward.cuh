// The forward pass with W_hh in registers through all steps:
//
//     a_t = projected_t + W_hh S_{t-1}        (S_t, c_t) = cell(a_t, c_{t-1})
//
// Every block keeps all of S_{t-1} of its rows in shared memory, twice: step t reads one copy and
// writes the other, so that blocks meet once a step.
#pragma once

#include "cuda/exchange.cuh"
#include "cuda/tile.cuh"

namespace bptt::BPTT_ISA {

template <class Tile>
struct HoldForward {
  using T = typename Tile::T;
  using Unit = typename Tile::Unit;
  using Exchange = typename Tile::Exchange;
  static constexpr int kUnits = Tile::kUnits, kRows = Tile::kRows, kGates = Tile::kGates;
  static constexpr int kParts = Tile::kParts, kDepth = Tile::kDepth, kColumns = Tile::kColumns;
  // The rows of which a thread computes its unit's step: part, part + kParts, ...
  static constexpr int kMine = (kRows + kParts - 1) / kParts;

  const ForwardPass<T>& p;
  Member me;
  T* const states = reinterpret_cast<T*>(shared_memory());  // (2, kRows, kColumns)
  T* const sums = states + Tile::kStates;                   // (kParts, kRows, kGates, kUnits)
  const int place = thread_index() % kUnits, part = thread_index() / kUnits;
  const Index unit = Index(me.rank) * kUnits + place, first_row = me.group * kRows;

  BPTT_INLINE bool owns(int row, Index active) const {
    return row < kRows && first_row + row < active && unit < p.hidden;
  }

  BPTT_INLINE void load_weights(T (&w)[kGates][kDepth]) const {
    BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
      BPTT_UNROLL for (int k = 0; k < kDepth; ++k) {
        const Index column = part * kDepth + k;
        const bool exists = unit < p.hidden && column < p.hidden;
        w[g][k] = exists ? p.w_hh[(g * p.hidden + unit) * p.hidden + column] : T(0);
      }
    }
  }

  // S_{-1} to the first copy; zeros where there are no units, and to the rest of both.
  BPTT_INLINE void load_initial() const {
    for (int i = thread_index(); i < Tile::kStates; i += Tile::kThreads) {
      const Index b = first_row + i / kColumns, column = i % kColumns;
      const bool exists = i < kRows * kColumns && b < p.rows.batch && column < p.hidden;
      states[i] = exists ? p.state[b * p.hidden + column] : T(0);
    }
  }

  // This thread's share of W_hh S_{t-1}, of all rows.
  BPTT_INLINE void multiply(const T (&w)[kGates][kDepth], const T* before) const {
    T acc[kGates][kRows] = {};
    BPTT_UNROLL for (int k = 0; k < kDepth; k += 4) {
      BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
        const T* const from = before + row * kColumns + part * kDepth + k;
        const Four<T> s = *reinterpret_cast<const Four<T>*>(from);
        BPTT_UNROLL for (int j = 0; j < 4; ++j) {
          BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
            acc[g][row] = fma(w[g][k + j], s.v[j], acc[g][row]);
          }
        }
      }
    }
    BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
      BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
        sums[((part * kRows + row) * kGates + g) * kUnits + place] = acc[g][row];
      }
    }
  }

  // The unit's step in one row: the shares summed in their order.
  BPTT_INLINE void step(int row, Index at, T (&projected)[kGates], T& carried, T* after) const {
    T recurrent[kGates] = {};
    BPTT_UNROLL for (int q = 0; q < kParts; ++q) {
      BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
        recurrent[g] += sums[((q * kRows + row) * kGates + g) * kUnits + place];
      }
    }
    const T s = Unit::forward(p, at, unit, projected, recurrent, carried);
    if constexpr (!Exchange::kThroughL2) {
      T* const mine = after + row * kColumns + unit;
      for (int rank = 0; rank < me.blocks; ++rank) Exchange::store(mine, rank, s);
    }
  }

  // S_t of all units, which the blocks of the group have written to y.
  BPTT_INLINE void load_states(Index t, Index active, T* after) const {
    for (int i = thread_index(); i < kRows * kColumns; i += Tile::kThreads) {
      const Index b = first_row + i / kColumns, column = i % kColumns;
      if (b < active && column < p.hidden) {
        after[i] = load_l2(p.y + (p.rows.at(t) + b) * p.hidden + column);
      }
    }
  }

  BPTT_INLINE void run() {
    T w[kGates][kDepth], carried[kMine], projected[kMine][kGates] = {};
    load_weights(w);
    load_initial();
    const T* const initial = Unit::kHasC ? p.state_c : p.state;
    BPTT_UNROLL for (int j = 0; j < kMine; ++j) {
      const int row = part + j * kParts;
      carried[j] = owns(row, p.rows.batch) ? initial[(first_row + row) * p.hidden + unit] : T(0);
    }
    if constexpr (Exchange::kThroughL2) {
      block_barrier();
    } else {
      Exchange::meet(me);
    }
    for (Index t = 0, active; (active = p.rows.active(t)) > first_row; ++t) {
      const T* const before = states + t % 2 * kRows * kColumns;
      T* const after = states + (t + 1) % 2 * kRows * kColumns;
      const Index first = p.rows.at(t) + first_row;
      BPTT_UNROLL for (int j = 0; j < kMine; ++j) {  // asked for before they are needed
        const int row = part + j * kParts;
        if (owns(row, active)) Unit::load(p, first + row, unit, projected[j]);
      }
      multiply(w, before);
      block_barrier();
      BPTT_UNROLL for (int j = 0; j < kMine; ++j) {
        const int row = part + j * kParts;
        if (owns(row, active)) step(row, first + row, projected[j], carried[j], after);
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
