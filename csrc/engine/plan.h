// How the work of a call is cut: time into blocks, and each step among threads.
#pragma once

#include "contract/kernels.h"

namespace bptt {

struct Shape {
  Index steps, batch, inputs, hidden;
};

struct Range {
  Index begin, end;
  Index size() const { return end - begin; }
};

// Rows of a block are shared out in pieces of this many, so that no member is left with a tile or
// two that are nearly empty.
inline constexpr Index kRowGrain = 8;

// Part `i` of `parts` of [0, n), cut at multiples of `grain`.
Range share(Index n, Index grain, int i, int parts);

enum class Split {
  rows,    // each thread takes rows of the batch through all of time: nothing to wait for
  hidden,  // each thread takes hidden units, and waits for the others at every step
};

struct Plan {
  int threads;
  Split split;
  Index block_steps;   // steps of a time block; a function of the shape alone, since the weight
                       // gradient is summed block by block and its bits must not depend on threads
  bool project_first;  // the input projection of a block in one product, ahead of its steps

  Range rows_of(int thread, const Shape& shape) const;
  Range units_of(int thread, const Shape& shape, Index panel) const;
};

// `panel` is the number of hidden units of a packed panel, the smallest piece of a hidden split.
Plan make_plan(const Shape& shape, Index panel, Index item_size, int threads);

}  // namespace bptt
