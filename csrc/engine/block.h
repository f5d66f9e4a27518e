// A block of time for some rows of the batch, and the walks over it.
#pragma once

#include <algorithm>

#include "engine/plan.h"

namespace bptt {

// Its scratch has a row for every step and row of the batch: row (t - steps.begin) * batch.size() +
// b - batch.begin. What belongs to two blocks that follow each other is kept side by side, by the
// parity of their numbers.
struct Block {
  Index number;
  Range steps;
  Range batch;  // rows of the batch

  Index rows() const { return steps.size() * batch.size(); }
  Index row_of(Index t) const { return (t - steps.begin) * batch.size(); }
};

// Calls f(row, array_row, rows) for the pieces of the block's rows [mine.begin, mine.end) that lie
// side by side in arrays of all steps.
template <class F>
void for_each_run(const Block& block, const Sequence& sequence, Range mine, F&& f) {
  const Index batch = block.batch.size();
  for (Index row = mine.begin; row < mine.end;) {
    const Index t = block.steps.begin + row / batch, b = row % batch;
    const Index left = mine.end - row;
    const Index rows = batch == sequence.batch ? left : std::min(left, batch - b);
    f(row, sequence.row(t) + block.batch.begin + b, rows);
    row += rows;
  }
}

// Calls f(slice, batch, steps) for every sum of a block, in the order in which a slice is summed:
// rows `batch` of the batch, those of the block's steps that are summed at once, the latest first.
template <class F>
void for_each_sum(const Plan& plan, const Block& block, F&& f) {
  const Index pieces = (block.steps.size() + plan.sum_steps - 1) / plan.sum_steps;
  for (Index first = block.batch.begin; first < block.batch.end; first += plan.slice_rows) {
    const Range batch{first, std::min(first + plan.slice_rows, block.batch.end)};
    for (Index i = pieces - 1; i >= 0; --i) {
      const Index begin = block.steps.begin + i * plan.sum_steps;
      f(first / plan.slice_rows, batch,
        Range{begin, std::min(begin + plan.sum_steps, block.steps.end)});
    }
  }
}

}  // namespace bptt
