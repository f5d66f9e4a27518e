// How a layer is cut for kernels that hold W_hh through all steps.
//
// A group of C blocks holds all of it and owns some rows of the batch; groups share nothing. Block
// `rank` of a group has the rows of W_hh of `kUnits` units, all gates of each. What it makes of
// them, forward and back, is its products', `Forward` and `Backward`: each says how it holds its
// part of W_hh, in which type and how far apart rows are that it reads from shared memory, and how
// many shares of each sum it leaves there.
#pragma once

#include "cuda/exchange.cuh"
#include "cuda/simt.cuh"
#include "cuda/tensor_cores.cuh"
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
  static constexpr int kRows = kRows_, kGates = Cell::kGates, kSlice = kGates * kUnits;
  using Forward = SimtForward<T, kGates, kUnits, kColumns, kThreads, kRows>;
  using Backward = SimtBackward<T, kGates, kUnits, kColumns, kThreads, kRows>;
};

// The same with products by tensor cores; of the tiles that a warp has, kForwardHeld are in
// registers forward and kBackHeld back, and all others in shared memory.
template <class Format, class Cell_, class Exchange_, int kUnits_, int kColumns_, int kThreads_,
          int kRows_, int kForwardHeld, int kBackHeld>
struct MmaTile {
  using T = float;
  using Cell = Cell_;
  using Exchange = Exchange_;
  using Unit = bptt::BPTT_ISA::Unit<T, Cell>;
  static constexpr int kUnits = kUnits_, kColumns = kColumns_, kThreads = kThreads_;
  static constexpr int kRows = kRows_, kGates = Cell::kGates, kSlice = kGates * kUnits;
  using Forward = MmaForward<Format, kGates, kUnits, kColumns, kThreads, kRows, kForwardHeld>;
  using Backward = MmaBackward<Format, kGates, kUnits, kColumns, kThreads, kRows, kBackHeld>;
};

// Of a product in shared memory: what is kept of W_hh, then `copies` of what it multiplies that by,
// then the shares of the sums.
template <class Product, int kRows>
struct Room {
  using Value = typename Product::Value;
  using Sum = typename Product::Sum;
  static constexpr int kValues = kRows * Product::kPitch;
  static constexpr int kSums = Product::kParts * kRows * Product::kSumPitch;
  static constexpr int bytes(int copies) {
    return Product::kKeptBytes + copies * kValues * static_cast<int>(sizeof(Value)) +
           kSums * static_cast<int>(sizeof(Sum));
  }
};

// Bytes of shared memory, of a block in a group of so many.
template <class Tile>
constexpr int forward_bytes() {
  return Room<typename Tile::Forward, Tile::kRows>::bytes(2);
}
template <class Tile>
constexpr int backward_bytes(int blocks) {
  const int given = Tile::Exchange::kThroughL2 ? 0 : 2 * blocks * Tile::kRows * Tile::kUnits;
  return Room<typename Tile::Backward, Tile::kRows>::bytes(1) +
         given * static_cast<int>(sizeof(typename Tile::T));
}
// Values of global memory through which a group passes dS on.
template <class Tile>
constexpr Index backward_exchange(int blocks) {
  return Tile::Exchange::kThroughL2 ? Index(2) * blocks * Tile::kRows * Tile::kColumns : 0;
}

}  // namespace bptt::BPTT_ISA
