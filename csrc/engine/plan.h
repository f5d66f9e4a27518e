// How the work of a call is cut: time into blocks, and each step among threads; and the cost model
// that decides it (docs/performance.md).
#pragma once

#include <span>
#include <vector>

#include "engine/machine.h"
#include "engine/problem.h"

namespace bptt {

enum class Split : int {
  slices,    // each thread takes slices of the batch, from the steps to the weight gradients
  rows,      // each thread takes rows of the batch; products are shared
  hidden,    // each thread takes hidden units, and waits for the others at every step
  pipeline,  // one thread recurs, the other does the products of the blocks beside
};
inline constexpr const char* kSplitNames[] = {"slices", "rows", "hidden", "pipeline"};

// What a call does.
enum class Passes : int { forward, backward, both, both_in_segments };

// Predicted seconds.
struct Cost {
  double recurrence;  // steps, one after the other
  double products;    // what is done block by block: input projection, dx, weight gradients
  double exchange;    // barriers, and the start of the team
  double total;       // less than the sum where products run beside the recurrence
};

// Rows of the batch that go through time together, and the blocks of steps that they go by.
struct Group {
  Range rows;                     // of the batch
  Sequence sequence;              // theirs alone
  Index block_steps;              // of all blocks but the last, in a dense batch
  std::span<const Index> begins;  // (blocks + 1) steps, in a ragged one
  Index slice;                    // which a ragged one is

  Index blocks() const;
  Range steps_of(Index block) const;
};

// Bits must depend neither on threads nor on caches, so what is summed up in which order is a
// function of the shape alone: a weight gradient is the sum of those of slices of the batch, in
// their order, and each is summed over time by pieces of sum_steps, from the last to the first. In
// a ragged batch each slice goes through time alone, and its pieces are the blocks: they have as
// many steps as it takes one of the slices to come to so many rows. Where rows are wanted apart,
// each is a slice, summed as if it were the batch.
struct Plan {
  Shape shape;
  int threads;
  Split split;
  Index slice_rows;    // of the batch
  Index sum_steps;     // whose products are summed in registers, before they are added to what was
  Index block_steps;   // steps of a time block, a multiple of sum_steps: what stays in the cache
  Index rows_at_once;  // of the batch that go through time together, in a split by slices
  bool project_first;  // the input projection of a block in one product, ahead of its steps
  Index near_k;        // longest sums whose weights, of a member's units, lie nearby
  Cost cost;

  // A slice of a ragged batch.
  struct Slice {
    Range rows;
    std::vector<Index> offsets;  // of its sequence
  };
  std::vector<Slice> ragged;      // empty in a dense batch
  std::vector<Index> begins;      // of its blocks, and the end; the same of all slices
  std::vector<Index> row_begins;  // of each member, in a split of a ragged batch by rows

  Index slices() const;
  Index blocks() const { return group({0, shape.sequence.batch}).blocks(); }
  // Those of some steps, which begin and end where blocks do.
  Range blocks_of(Range steps) const;
  // The slices that are this member's, in a split by slices.
  Range slices_of(int member) const;
  // How many groups of rows go through time one after the other, of members below this one; or in
  // all.
  Index first_group_of(int member) const;
  int groups() const { return static_cast<int>(first_group_of(threads)); }
  // Rows of the batch that go through time together, of a slice or of several.
  Group group(Range rows) const;
  Group group_of_slice(Index slice) const;
  // Most rows of a block, all its steps together.
  Index most_rows() const;
  // Rows of the batch that are this member's; in a split by slices whole slices.
  Range rows_of(int member) const;
  // Units of a step that are this member's.
  Range units_of(int member, Index panel) const;
  bool packs_split;   // as the machine
  Index fetch_bytes;  // the same
  // Whether the weights of sums over so many k are better fetched ahead (contract: `Product`).
  bool far(Index k) const { return k > near_k; }
  // Whether so much that is read again and again is better fetched ahead.
  bool far_bytes(Index bytes) const { return bytes > fetch_bytes; }
  bool recurs(int member) const { return split != Split::pipeline || member == 0; }
};

// `panel` is the number of hidden units of a packed panel, the smallest piece of a hidden split.
Plan make_plan(const Shape& shape, Index panel, Index item_size, int threads,
               Passes passes = Passes::both, const Machine& machine = this_machine());

}  // namespace bptt
