// How a layer is cut for kernels that hold W_hh in registers through all steps.
//
// A group of C blocks holds all of it and owns some rows of the batch; groups share nothing. Block
// `rank` of a group has the rows of W_hh of `kUnits` units, all gates of each. Forward, a thread
// has kDepth columns of one unit; back, of the same slice, four columns of kBackDepth rows.
#pragma once

#include "cuda/unit.cuh"

namespace bptt::BPTT_ISA {

// A layer of at most kColumns units. Blocks of a group are as many as units take.
template <class T_, class Cell_, class Exchange_, int kUnits_, int kColumns_, int kThreads_,
          int kRows_>
struct Tile {
  using T = T_;
  using Cell = Cell_;
  using Exchange = Exchange_;
  using Unit = bptt::BPTT_ISA::Unit<T, Cell>;
  static constexpr int kUnits = kUnits_, kColumns = kColumns_, kThreads = kThreads_;
  static constexpr int kRows = kRows_, kGates = Cell::kGates;

  // Forward: thread (part, unit).
  static constexpr int kParts = kThreads / kUnits, kDepth = kColumns / kParts;
  static_assert(kParts * kUnits == kThreads && kDepth * kParts == kColumns && kDepth % 4 == 0);
  // Back: thread (part, quad of columns).
  static constexpr int kQuads = kColumns / 4, kBackParts = kThreads / kQuads;
  static constexpr int kSlice = kGates * kUnits, kBackDepth = kSlice / kBackParts;
  static_assert(kBackParts * kQuads == kThreads && kBackDepth * kBackParts == kSlice);
  static_assert(kBackDepth % 4 == 0);

  // Values of shared memory in a group of so many blocks.
  static constexpr int kStates = 2 * kRows * kColumns, kSums = kParts * kRows * kSlice;
  static constexpr int kDeltas = kRows * kSlice, kBackSums = kBackParts * kRows * kColumns;
  static constexpr int forward_values() { return kStates + kSums; }
  static constexpr int backward_values(int blocks) {
    return kDeltas + kBackSums + (Exchange::kThroughL2 ? 0 : 2 * blocks * kRows * kUnits);
  }
  // Values of global memory through which a group passes dS on.
  static constexpr Index backward_exchange(int blocks) {
    return Exchange::kThroughL2 ? Index(2) * blocks * kRows * kColumns : 0;
  }
};

// Four values that are loaded at once, by 16 bytes.
template <class T>
struct alignas(16) Four {
  T v[4];
};

}  // namespace bptt::BPTT_ISA
