// Which of the caller's rows each row of the engine's is.
//
// A caller has sequences of several lengths side by side in padded arrays (T, B, ...); they may be
// read from their ends, and be cut by resets into pieces that know nothing of each other. The
// engine has pieces sorted by falling length, whose rows of each step are the first ones
// (engine/sequence.h). `RowMap` of python/bptt/row_map.py is the same for callers in Python.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/sequence.h"

namespace bptt {

// What sequences lie in arrays (T, B, ...).
struct Padded {
  Index steps, batch;
  const std::int32_t* lengths = nullptr;  // (B), each in [0, T]; null: all have T steps
  const std::uint8_t* reset = nullptr;  // (T, B) not 0: the state before this step is zero; or null
  bool reverse = false;                 // from a sequence's last step to its first

  // Whether all lengths are in their range.
  bool valid() const;
};

struct RowMap {
  // Throws std::bad_alloc.
  explicit RowMap(const Padded& padded);

  // Whether the engine reads and writes the caller's arrays as they are.
  bool same = false;
  bool dense = false;           // whether all pieces are as long as the longest
  Index steps = 0, batch = 0;   // T' and B' of the engine's rows: B' pieces of sequences
  std::vector<Index> offsets;   // (T' + 1) rows before each step
  std::vector<Index> sources;   // (N') the caller's row of each
  std::vector<Index> places;    // (T B) the engine's row of each of the caller's, or -1
  std::vector<Index> entering;  // (B') whose initial state a piece begins with, or -1: zeros
  std::vector<Index> first;     // (B) the piece that S_0 of a sequence enters, or -1: none
  std::vector<Index> last;      // (B) the piece that a sequence ends with

  Sequence sequence() const { return {steps, batch, dense ? nullptr : offsets.data()}; }
  // (B') whose final state's gradient a piece gets, or -1.
  std::vector<Index> ending() const;
};

}  // namespace bptt
