// What the weight gradients of a block of time read beside da_t: x_t, S_{t-1} and S_t.
//
// Short rows of whole vectors are read as they lie; others are packed, since rows a long way apart
// fall on few sets of the first-level cache.
#pragma once

#include "engine/panels.h"
#include "engine/problem.h"

namespace bptt {

// Steps [first, last), the `number`-th such block. What belongs to two blocks that follow each
// other is kept side by side, by the parity of their numbers.
struct TimeBlock {
  Index number, first, last;
};

// A matrix of which the rows from `row` on take part in a sum.
template <class T>
struct Operand {
  Columns<T> matrix;
  Index row;
};

template <class T>
class BlockInputs {
 public:
  // `y` (T, B, H) are all states; a block has at most block_rows rows.
  BlockInputs(const Problem<T>& problem, const Kernels<T>& kernels, const T* y, Index block_rows);

  // One member's part; all are done before anything of the block is read.
  void pack(const TimeBlock& block, int member, int members);

  // From step t of the block on. Before step 0 there is the initial state, so `previous` of step 0
  // is that step's alone.
  Operand<T> x(const TimeBlock& block, Index t) const;
  Operand<T> previous(const TimeBlock& block, Index t) const;
  Operand<T> states(const TimeBlock& block, Index t) const;

 private:
  bool packs(Index columns) const;

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const T* y_;
  Panels<T> x_[2];
  Panels<T> s_[2];  // S_{t-1} of the block's steps, and behind them S_t of its last
};

}  // namespace bptt
