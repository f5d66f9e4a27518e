// A block of time for some rows of the batch, and the walks over it.
#pragma once

#include <algorithm>

#include "engine/plan.h"

namespace bptt {

// Its scratch has a row for every row of the batch that takes part in a step: those of step t begin
// at row_of(t). What belongs to two blocks that follow each other is kept side by side, by the
// parity of their numbers.
struct Block {
  Index number;
  Index slice;  // of a ragged batch
  Range steps;
  Range batch;        // rows of the batch
  Sequence sequence;  // theirs alone

  Block(const Group& group, Index index)
      : number(index),
        slice(group.slice),
        steps(group.steps_of(index)),
        batch(group.rows),
        sequence(group.sequence),
        first_(sequence.row(steps.begin)) {}

  Index rows() const { return row_of(steps.end); }
  Index row_of(Index t) const { return sequence.row(t) - first_; }

 private:
  Index first_;
};

// The rows that a sum has of some steps: a group for each of them or, in a ragged batch, where they
// are of different sizes but all of the block, one of all.
inline RowGroups groups_of(const Block& block, Range batch, Range steps) {
  if (block.sequence.dense()) return {steps.size(), batch.size()};
  return {1, block.row_of(steps.end) - block.row_of(steps.begin)};
}

// Calls f(row, array_row, rows) for the pieces of the block's rows [mine.begin, mine.end) that lie
// side by side in arrays of all steps.
template <class F>
void for_each_run(const Block& block, const Sequence& sequence, Range mine, F&& f) {
  if (mine.size() <= 0) return;
  if (block.batch.size() == sequence.batch) {
    f(mine.begin, sequence.row(block.steps.begin) + mine.begin, mine.size());
    return;
  }
  for (Index t = block.steps.begin; t < block.steps.end; ++t) {
    const Index first = block.row_of(t);
    const Index begin = std::max(mine.begin, first), end = std::min(mine.end, block.row_of(t + 1));
    if (begin < end) f(begin, sequence.row(t) + block.batch.begin + begin - first, end - begin);
  }
}

// Calls f(group, rows) for the groups of rows in which a member takes part, and its own rows of
// each. Ends when f returns false, and returns that.
template <class F>
bool for_each_group(const Plan& plan, int member, F&& f) {
  const Range mine = plan.rows_of(member);
  if (plan.split != Split::slices) return f(plan.group({0, plan.shape.sequence.batch}), mine);
  if (!plan.ragged.empty()) {
    const Range slices = plan.slices_of(member);
    for (Index slice = slices.begin; slice < slices.end; ++slice) {
      const Group group = plan.group_of_slice(slice);
      if (!f(group, group.rows)) return false;
    }
    return true;
  }
  for (Index first = mine.begin; first < mine.end; first += plan.rows_at_once) {
    const Range rows{first, std::min(first + plan.rows_at_once, mine.end)};
    if (!f(plan.group(rows), rows)) return false;
  }
  return true;
}

// Calls f(slice, batch, steps) for every sum of a block, in the order in which a slice is summed:
// rows `batch` of the batch, those of the block's steps that are summed at once, the latest first.
template <class F>
void for_each_sum(const Plan& plan, const Block& block, F&& f) {
  if (!block.sequence.dense()) {
    f(block.slice, block.batch, block.steps);
    return;
  }
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
